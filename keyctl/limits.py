"""Tell of every limit whose it is, who enforces it, and how two values of it are compared.  Pure.

The table is what `keyctl schema fields` prints.  `order` is how a caller's own key bounds a key
that it makes or changes:

- ``cap``: at most as much; null is without end;
- ``subset``: nothing that the caller's does not have;
- ``keep``: everything that the caller's has, and perhaps more;
- ``admin``: only admins set it;
- ``inert``: it gives nobody anything, so it is not compared.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

Owner = Literal["key", "member", "team", "user", "organization"]
EnforcedBy = Literal["verifier", "proxy", "keyctl", "nobody"]
Order = Literal["cap", "subset", "keep", "admin", "inert"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One field of one or several kinds of owner."""

    field: str
    of: tuple[Owner, ...] = ("key",)
    enforced_by: EnforcedBy = "nobody"
    order: Order
    note: str


_OWNERS: Final[tuple[Owner, ...]] = ("team", "user", "organization")

LIMITS: Final[tuple[Limit, ...]] = (
    # --- which models
    Limit(
        field="models",
        enforced_by="verifier",
        order="subset",
        note="empty: what the team, organization and user allow",
    ),
    Limit(
        field="models",
        of=_OWNERS,
        enforced_by="verifier",
        order="admin",
        note="empty: all; applies besides the key's own list",
    ),
    Limit(
        field="access_group_ids",
        enforced_by="verifier",
        order="subset",
        note="groups of models, besides those in models",
    ),
    Limit(
        field="aliases",
        enforced_by="verifier",
        order="inert",
        note="the model that is meant is checked, not its alias",
    ),
    Limit(field="budget_fallbacks", order="subset", note="the models are checked as any other"),
    # --- money
    Limit(
        field="max_budget",
        enforced_by="verifier",
        order="cap",
        note="compared with its period: a larger amount or a shorter period is more",
    ),
    Limit(
        field="max_budget",
        of=_OWNERS,
        enforced_by="verifier",
        order="admin",
        note="a purse: its spend outlives keys",
    ),
    Limit(
        field="budget_duration",
        enforced_by="verifier",
        order="cap",
        note="compared with max_budget; without one the budget is for ever",
    ),
    Limit(
        field="budget_duration",
        of=_OWNERS,
        enforced_by="verifier",
        order="admin",
        note="when the spend of the purse begins anew",
    ),
    Limit(
        field="budget_limits",
        enforced_by="verifier",
        order="cap",
        note="windows, each with its own period and spend",
    ),
    Limit(
        field="model_max_budget",
        enforced_by="verifier",
        order="cap",
        note="a budget, and rates, for requests for one model",
    ),
    Limit(
        field="budget_limits",
        of=("team",),
        enforced_by="verifier",
        order="admin",
        note="windows of all its keys together, each with its own period and spend",
    ),
    Limit(
        field="model_max_budget",
        of=("team", "organization"),
        enforced_by="verifier",
        order="admin",
        note="of all its keys: a budget, and rates, for requests for one model",
    ),
    Limit(
        field="max_budget",
        of=("member",),
        enforced_by="verifier",
        order="admin",
        note="of all the user's keys in the team; its spend outlives the membership",
    ),
    Limit(
        field="budget_duration",
        of=("member",),
        enforced_by="verifier",
        order="admin",
        note="when what the member has spent begins anew",
    ),
    Limit(
        field="rpm_limit",
        of=("member",),
        enforced_by="verifier",
        order="admin",
        note="of all the user's keys in the team",
    ),
    Limit(
        field="tpm_limit",
        of=("member",),
        enforced_by="verifier",
        order="admin",
        note="of all the user's keys in the team",
    ),
    Limit(
        field="budget_id",
        of=("key", "user", "member"),
        enforced_by="verifier",
        order="admin",
        note="a tier: its limits hold besides the own ones; spend is each one's own",
    ),
    Limit(
        field="soft_budget",
        enforced_by="keyctl",
        order="inert",
        note="warns, and stops nothing: keyctl remind tells of it",
    ),
    Limit(
        field="spend",
        enforced_by="verifier",
        order="admin",
        note="what was spent already, of max_budget",
    ),
    Limit(
        field="throttle_on_budget_exceeded",
        order="admin",
        note="a key that has spent its budget is slowed down, not stopped",
    ),
    # --- rates
    Limit(field="rpm_limit", enforced_by="verifier", order="cap", note="requests per minute"),
    Limit(field="tpm_limit", enforced_by="verifier", order="cap", note="tokens per minute"),
    Limit(
        field="rpm_limit", enforced_by="verifier", of=_OWNERS, order="admin", note="of all its keys"
    ),
    Limit(
        field="tpm_limit", enforced_by="verifier", of=_OWNERS, order="admin", note="of all its keys"
    ),
    Limit(
        field="tpd_limit",
        enforced_by="verifier",
        order="cap",
        note="tokens a day, from midnight UTC, by all processes together",
    ),
    Limit(
        field="tpd_limit",
        of=("team", "organization"),
        enforced_by="verifier",
        order="admin",
        note="tokens a day, from midnight UTC, of all its keys",
    ),
    Limit(
        field="max_parallel_requests",
        enforced_by="verifier",
        order="cap",
        note="requests at the same time",
    ),
    Limit(
        field="max_parallel_requests",
        of=("team", "organization"),
        enforced_by="verifier",
        order="admin",
        note="of all its keys",
    ),
    Limit(field="model_rpm_limit", enforced_by="verifier", order="cap", note="for each model"),
    Limit(field="model_tpm_limit", enforced_by="verifier", order="cap", note="for each model"),
    Limit(
        field="model_rpm_limit",
        enforced_by="verifier",
        of=("team", "organization"),
        order="admin",
        note="for each model, of all its keys",
    ),
    Limit(
        field="model_tpm_limit",
        enforced_by="verifier",
        of=("team", "organization"),
        order="admin",
        note="for each model, of all its keys",
    ),
    Limit(
        field="rpm_limit_type",
        enforced_by="proxy",
        order="cap",
        note="dynamic: rpm_limit holds only while the model has errors",
    ),
    Limit(
        field="tpm_limit_type",
        enforced_by="proxy",
        order="cap",
        note="dynamic: tpm_limit holds only while the model has errors",
    ),
    Limit(
        field="mcp_rpm_limit",
        enforced_by="proxy",
        order="cap",
        note="for each MCP server; LiteLLM may count a call twice",
    ),
    Limit(
        field="tag_rpm_limit", enforced_by="proxy", order="cap", note="for each tag of a request"
    ),
    Limit(
        field="default_estimated_output_tokens",
        enforced_by="proxy",
        order="admin",
        note="how much a request reserves that names no bound",
    ),
    Limit(
        field="default_estimated_output_tokens_per_model",
        enforced_by="proxy",
        order="admin",
        note="how much a request reserves that names no bound",
    ),
    # --- routes and tools
    Limit(
        field="allowed_routes",
        enforced_by="verifier",
        order="subset",
        note="only admins name routes; a key type stands for its own",
    ),
    Limit(
        field="key_type", enforced_by="verifier", order="subset", note="the routes it stands for"
    ),
    Limit(
        field="allowed_passthrough_routes",
        enforced_by="proxy",
        order="subset",
        note="pass-through endpoints; only admins name them",
    ),
    Limit(
        field="denied_passthrough_routes",
        enforced_by="proxy",
        order="keep",
        note="pass-through endpoints; only admins name them",
    ),
    Limit(field="allowed_cache_controls", enforced_by="proxy", order="subset", note="empty: all"),
    Limit(
        field="allowed_vector_store_indexes",
        order="subset",
        note="each index with its permissions; none given: all",
    ),
    Limit(
        field="object_permission",
        order="subset",
        note="each list for itself; blocked_tools is kept",
    ),
    Limit(field="prompts", order="subset", note="none given: all"),
    Limit(field="permissions", order="admin", note="switches of the gateway"),
    Limit(
        field="router_settings",
        enforced_by="proxy",
        order="admin",
        note="how the gateway routes the key's requests",
    ),
    # --- what is done to every request
    Limit(
        field="guardrails",
        order="keep",
        note="LiteLLM applies them with a licence, and refuses every request without one",
    ),
    Limit(field="policies", order="keep", note="applied to every request"),
    Limit(field="disable_global_guardrails", order="admin", note="switches guardrails off"),
    Limit(
        field="enforced_params",
        enforced_by="proxy",
        order="keep",
        note="what every request must have",
    ),
    Limit(field="tags", enforced_by="proxy", order="keep", note="what spend is counted under"),
    Limit(field="enable_prompt_caching", order="inert", note="how requests are sent on"),
    # --- life
    Limit(
        field="expires",
        enforced_by="verifier",
        order="cap",
        note="no key that a caller makes outlives the caller's own",
    ),
    Limit(field="duration", enforced_by="verifier", order="cap", note="says when the key expires"),
    Limit(field="blocked", enforced_by="verifier", order="admin", note="suspends the key"),
    Limit(
        field="blocked",
        of=_OWNERS,
        enforced_by="verifier",
        order="admin",
        note="suspends all its keys",
    ),
    Limit(
        field="auto_rotate",
        enforced_by="keyctl",
        order="inert",
        note="a rotation lengthens nothing",
    ),
    Limit(
        field="rotation_interval",
        enforced_by="keyctl",
        order="inert",
        note="a rotation lengthens nothing",
    ),
    Limit(
        field="grace_period",
        enforced_by="keyctl",
        order="inert",
        note="an old secret never outlives its key",
    ),
    Limit(field="send_invite_email", enforced_by="keyctl", order="inert", note="mails the owner"),
    Limit(
        field="may_issue",
        enforced_by="keyctl",
        order="admin",
        note="the bounds of what the key may make, in place of its own limits",
    ),
    Limit(field="metadata", of=("key", *_OWNERS), order="inert", note="nothing reads it"),
)


@cache
def key_orders() -> dict[str, Order]:
    """Return how each field of a key is compared; a field that is absent is for admins."""
    return {limit.field: limit.order for limit in LIMITS if "key" in limit.of}


@cache
def unenforced() -> tuple[str, ...]:
    """Return the fields of a key that are kept and shown, and that nobody enforces."""
    return tuple(
        limit.field
        for limit in LIMITS
        if "key" in limit.of and limit.enforced_by == "nobody" and limit.order != "inert"
    )
