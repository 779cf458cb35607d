"""Validate what comes in: the request to generate or update a key, field by field.

Field names and meanings are LiteLLM's `GenerateKeyRequest`; unknown fields are errors.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)

from keyctl.fields import (
    Alias,
    Dollars,
    DurationText,
    GraceText,
    Instant,
    Limit,
    Limits,
    LimitType,
    Metadata,
    Name,
    Names,
    PeriodText,
    Routes,
    Strict,
    refusal,
    unquoted,
)


class BudgetWindow(Strict):
    """One of several budgets of a key or a team, each with its own period."""

    budget_duration: PeriodText
    max_budget: Dollars


def refuse_twice(windows: Sequence[BudgetWindow] | None) -> None:
    """Refuse windows of which two have the same period: what is spent is counted by period.

    Raises:
        ValueError: Two have.
    """
    periods = [window.budget_duration for window in windows or ()]
    if len(set(periods)) != len(periods):
        raise refusal("budget_limits names a budget_duration twice")


Windows = Annotated[list[BudgetWindow], Field(max_length=20)]

_OTHER_NAMES: Final = {"budget_limit": "max_budget", "time_period": "budget_duration"}
_QUOTED: Final = "budget_limit"


def _publish_other_names(schema: dict[str, Any]) -> None:
    properties = schema["properties"]
    properties.update({given: properties[name] for given, name in _OTHER_NAMES.items()})
    quoted = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,9})?$"}
    properties[_QUOTED] = {"anyOf": [properties[_QUOTED], quoted]}


def _own_names(value: Any) -> Any:
    """Return a model's budget under the names of every other budget, where it has those of LiteLLM's manual."""
    if not isinstance(value, dict):
        return value
    renamed = dict(value)
    for given, name in _OTHER_NAMES.items():
        if given in renamed:
            if name in renamed:
                raise refusal(f"give either {given} or {name}, not both")
            value = renamed.pop(given)
            renamed[name] = unquoted(value) if given == _QUOTED else value
    return renamed


class ModelBudget(Strict):
    """A budget for one model; `budget_limit` and `time_period` are understood too."""

    max_budget: Dollars | None = None
    budget_duration: PeriodText | None = None
    tpm_limit: Limit | None = None
    rpm_limit: Limit | None = None

    model_config = ConfigDict(json_schema_extra=_publish_other_names)
    other_names: ClassVar = frozenset(_OTHER_NAMES)
    _named = model_validator(mode="before")(_own_names)


class ObjectPermission(Strict):
    """Which tools and stores of the gateway a key may use."""

    mcp_servers: Names | None = None
    mcp_access_groups: Names | None = None
    mcp_toolsets: Names | None = None
    mcp_tool_permissions: dict[Name, Names] | None = None
    mcp_tool_search_enabled: bool | None = None
    blocked_tools: Names | None = None
    vector_stores: Names | None = None
    agents: Names | None = None
    agent_access_groups: Names | None = None
    models: Names | None = None
    search_tools: Names | None = None
    skills: Names | None = None


class VectorStoreIndex(Strict):
    """What a key may do with one vector store index."""

    index_name: Name
    index_permissions: list[Literal["read", "write"]]


class GatewayFields(Strict):
    """Fields that only a gateway interprets: checked for shape and kept together in one column."""

    access_group_ids: Names | None = None
    aliases: dict[Name, Name] | None = None
    allowed_cache_controls: Names | None = None
    allowed_passthrough_routes: Names | None = None
    denied_passthrough_routes: Names | None = None
    allowed_vector_store_indexes: list[VectorStoreIndex] | None = None
    default_estimated_output_tokens: Annotated[int, Field(gt=0)] | None = None
    default_estimated_output_tokens_per_model: dict[Name, Annotated[int, Field(gt=0)]] | None = None
    disable_global_guardrails: bool | None = None
    enable_prompt_caching: bool | None = None
    enforced_params: Names | None = None
    mcp_rpm_limit: Limits | None = None
    object_permission: ObjectPermission | None = None
    policies: Names | None = None
    prompts: Names | None = None
    router_settings: dict[str, Any] | None = None
    tag_rpm_limit: Limits | None = None
    throttle_on_budget_exceeded: bool | None = None


class MayIssue(Strict):
    """The most that the keys may have which a caller's key makes, in place of its own limits."""

    max_budget: Dollars | None = None
    duration: DurationText | None = None
    budget_duration: PeriodText | None = None
    tpm_limit: Limit | None = None
    rpm_limit: Limit | None = None
    max_parallel_requests: Limit | None = None
    models: Names | None = None
    allowed_routes: Names | None = None
    max_keys: Limit | None = None


class KeyFields(GatewayFields):
    """What a key may do: every field that a request, a default or an update can set."""

    key_type: Literal["llm_api", "management", "read_only", "default"] | None = None
    models: Names | None = None
    max_budget: Dollars | None = None
    soft_budget: Dollars | None = None
    budget_duration: PeriodText | None = None
    budget_limits: Windows | None = None
    model_max_budget: dict[Name, ModelBudget] | None = None
    budget_fallbacks: dict[Name, Names] | None = None
    budget_id: Name | None = None
    tpm_limit: Limit | None = None
    rpm_limit: Limit | None = None
    tpd_limit: Limit | None = None
    max_parallel_requests: Limit | None = None
    model_tpm_limit: Limits | None = None
    model_rpm_limit: Limits | None = None
    tpm_limit_type: LimitType | None = None
    rpm_limit_type: LimitType | None = None
    allowed_routes: Routes | None = None
    permissions: dict[Name, Any] | None = None
    guardrails: Names | None = None
    tags: Names | None = None
    metadata: Metadata | None = None
    blocked: bool | None = None
    duration: DurationText | None = None
    auto_rotate: bool | None = None
    rotation_interval: DurationText | None = None
    grace_period: GraceText | None = None
    send_invite_email: bool | None = None
    may_issue: MayIssue | None = None

    @model_validator(mode="after")
    def _together(self) -> "KeyFields":
        refuse_twice(self.budget_limits)
        if self.allowed_routes is not None and self.key_type not in (None, "default"):
            raise refusal("give either allowed_routes or a key_type that implies them, not both")
        return self


class KeyRequest(KeyFields):
    """What a request to make or change a key may name: its alias, its owners, its end, and its fields."""

    key_alias: Alias | None = None
    user_id: Name | None = None
    team_id: Name | None = None
    organization_id: Name | None = None
    spend: Dollars | None = None
    expires: Instant | None = None

    @model_validator(mode="after")
    def _one_end(self) -> "KeyRequest":
        if self.duration is not None and self.expires is not None:
            raise refusal("give either duration or expires, not both")
        return self


class GenerateRequest(KeyRequest):
    """A request for a new key: LiteLLM's `GenerateKeyRequest`, its JSON body unchanged."""

    key: str | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _whole(self) -> "GenerateRequest":
        if bool(self.auto_rotate) != (self.rotation_interval is not None):
            raise refusal("auto_rotate and rotation_interval are only given together")
        return self


class UpdateRequest(KeyRequest):
    """A change of a key: the fields of a request, except its key string."""
