"""Hand LiteLLM what it enforces without its database, and tell clients what is left."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from litellm.proxy._types import UserAPIKeyAuth

from keyctl import money, routes
from keyctl.gateway.found import Found
from keyctl.gateway.rates import Rate
from keyctl.gateway.verdict import Left, Verdict
from keyctl.policy.models import INHERIT, NO_PERSONAL
from keyctl.records import Key, Organization, Team, User

# Under which name a request comes back with its cost, and who it is charged to if it is forgotten.
CHARGED: Final = "keyctl"
LEFT: Final = "x-keyctl-budget-left"
# What a key from before there was a default reaches: otherwise it would reach settings pages.
_EARLIER_ROUTES: Final = ("llm_api_routes",)
_RATES_BY_MODEL: Final = ("model_rpm_limit", "model_tpm_limit")
# Fields of a key that LiteLLM reads from its metadata.
_IN_METADATA: Final = (
    "allowed_passthrough_routes",
    "denied_passthrough_routes",
    "disable_global_guardrails",
    "enable_prompt_caching",
    "mcp_rpm_limit",
    "tag_rpm_limit",
)
# What LiteLLM's names of rates begin with.
_RATES: Final = {"keys": "", "teams": "team_", "users": "user_", "organizations": "organization_"}
_NAMES: Final = {"keys": "key", "teams": "team", "users": "user", "organizations": "organization"}


def handed_on(
    verdict: Verdict, route: str, name: str | None, object_id: str | None
) -> UserAPIKeyAuth:
    """Return what the proxy enforces on a request to *route*, which goes by *name* from here on.

    Under the key's id, not under the hash of the string that was presented: old and new secret of
    a rotation share one limit.  Neither budgets nor ends: those are judged here, by the database's
    clock and by what is spent, and the proxy would judge them by its own.
    """
    found = verdict.found
    if found is None:
        raise ValueError("a key that is valid was found")
    key, team, user, organization = found.key, found.team, found.user, found.organization
    return UserAPIKeyAuth(
        api_key=key.id,
        token=key.id,
        key_name=f"sk-{found.secret_id}…",
        key_alias=key.key_alias,
        user_id=key.user_id,
        user_email=user.email if user else None,
        team_id=key.team_id,
        team_alias=team.name if team else None,
        org_id=key.organization_id,
        models=_models_of(key, team, organization, user),
        aliases=key.gateway.get("aliases") or {},
        allowed_routes=_routes_of(key, route),
        allowed_cache_controls=key.gateway.get("allowed_cache_controls") or [],
        router_settings=key.gateway.get("router_settings"),
        permissions=key.permissions,
        **_least_rates(verdict.rates),
        team_metadata=_rates_by_model(team),
        organization_metadata=_rates_by_model(organization),
        metadata=_metadata_of(found, name, object_id),
    )


def is_left_to_us(rate: Rate, key: Key) -> bool:
    """Tell whether LiteLLM does not count requests or tokens under *rate*, however it is told.

    Those of single models are counted for keys, teams and organizations only, and a team's not
    where the key has one of its own.
    """
    if rate.model is None or rate.kind == "parallel":
        return False
    is_in_a_budget = rate.field == "model_max_budget" or "/" in rate.owner.meter
    return is_in_a_budget or (rate.owner.table == "teams" and bool(getattr(key, rate.field)))


def parallel_left_to_us(rates: Iterable[Rate]) -> dict[str, int]:
    """Return how many requests may run at once of whom, where it is not the key: LiteLLM counts the key's only."""
    return {
        "/".join(rate.owner): rate.limit
        for rate in rates
        if rate.kind == "parallel" and rate.owner.table != "keys"
    }


def name_of(token: UserAPIKeyAuth) -> str | None:
    """Return the name that the request goes by; None for one that is not to be charged."""
    charged = (token.metadata or {}).get(CHARGED) or {}
    name: str | None = charged.get("request")
    return name


def left_header(verdict: Verdict) -> dict[str, str] | None:
    """Return the header that tells what is left of each budget, in dollars or tokens, and of which period.

    For example ``key 4.7 of 5 per 30d, team 80 of 100``.
    """
    said = ", ".join(map(_said, verdict.left()))
    return {LEFT: said} if said else None


def left_view(left: Left) -> dict[str, Any]:
    """Return what is left of one budget, as the answer about a key tells it."""
    return {
        "of": _NAMES.get(left.name.table, left.name.table),
        "id": left.name.object_id,
        "budget": left.name.meter or "max_budget",
        "max_budget": _shown(left, left.limit),
        "left": _shown(left, left.left),
        "period": left.period,
        "resets_at": left.resets_at.isoformat() if left.resets_at else None,
    }


def _said(left: Left) -> str:
    named = _NAMES.get(left.name.table, left.name.table)
    if left.name.meter:
        named = f"{named} {left.name.meter}"
    period = f" per {left.period}" if left.period else ""
    amounts = f"{_shown(left, left.left)} of {_shown(left, left.limit)}"
    return f"{named} {amounts}{period}".encode("ascii", "replace").decode()


def _shown(left: Left, amount: int) -> float | int:
    """Return dollars, or tokens where the budget counts those."""
    return amount if left.name.counts_tokens else float(money.dollars(amount))


def _metadata_of(found: Found, name: str | None, object_id: str | None) -> dict[str, Any]:
    key = found.key
    handed = {field: key.gateway[field] for field in _IN_METADATA if key.gateway.get(field)}
    kinds = {"rpm_limit_type": key.rpm_limit_type, "tpm_limit_type": key.tpm_limit_type}
    return {
        **_rates_by_model(key),
        **handed,
        **{field: value for field, value in kinds.items() if value},
        "tags": key.tags,
        "guardrails": key.guardrails,
        CHARGED: {
            "request": name,
            "object": object_id,
            "key_id": key.id,
            "team_id": key.team_id,
            "user_id": key.user_id,
            "organization_id": key.organization_id,
        },
    }


def _least_rates(rates: Iterable[Rate]) -> dict[str, int]:
    """Return the rates that LiteLLM counts, by its names; of an owner's own and its tier's the smaller one.

    Both count the same requests, so the smaller one is all that can be exceeded.
    """
    least: dict[str, int] = {}
    for rate in rates:
        whose = (
            "team_member_" if rate.owner.meter.startswith("member:") else _RATES[rate.owner.table]
        )
        if rate.model is None and not (whose and rate.kind == "parallel"):
            name = f"{whose}{rate.field}"
            least[name] = min(rate.limit, least.get(name, rate.limit))
    return least


def _routes_of(key: Key, route: str) -> list[str]:
    """Return what the proxy holds the route against, once more.

    It does not know our group, and lets a route through to its own settings pages only if the key's
    list names it by more than a group.  So a route to models is named, and no other.
    """
    named = [route] if routes.is_allowed(route, [routes.DEFAULT]) else []
    reached = key.gateway_routes() or _EARLIER_ROUTES
    return [*(entry for entry in reached if entry != routes.DEFAULT), *named]


def _models_of(
    key: Key, team: Team | None, organization: Organization | None, user: User | None
) -> list[str]:
    """Return the first list that limits: by it the proxy tells models, and chooses fallbacks.

    Names that inherit, or that send a user to a team, mean something else to LiteLLM.
    """
    if user is not None and NO_PERSONAL in user.models:
        user = None  # it is a key of a team, or it was refused
    lists: list[Sequence[str]] = [
        owner.models for owner in (key, team, organization, user) if owner is not None
    ]
    return next((list(models) for models in lists if models and INHERIT not in models), [])


def _rates_by_model(owner: Any) -> dict[str, Any]:
    limits = {name: getattr(owner, name, None) or {} for name in _RATES_BY_MODEL}
    return {name: value for name, value in limits.items() if value}
