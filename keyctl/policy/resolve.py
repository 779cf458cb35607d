"""Turn a request into the key as it would be: defaults first, then every field in its place.  Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from keyctl import durations, money, routes
from keyctl.errors import MalformedRequestError, Violation
from keyctl.policy.bounds import Filled, shown
from keyctl.policy.documents import KeyDefaults
from keyctl.records import DEFAULT_ROUTES, Key
from keyctl.requests import GatewayFields, KeyFields

GATEWAY_FIELDS: Final = tuple(GatewayFields.model_fields)
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
ROUTES_OF_TYPE: Final = {
    "llm_api": ["llm_api_routes"],
    "management": ["management_routes"],
    "read_only": ["info_routes"],
}
# A default for one of a group is only taken when the request names none of them.
_TOGETHER: Final = (
    ("duration", "expires"),
    ("auto_rotate", "rotation_interval"),
    ("key_type", "allowed_routes"),
)


def given_values(request: KeyFields) -> dict[str, Any]:
    """Return the fields that *request* gives a value, as column values (money inside documents in dollars)."""
    values = request.model_dump(exclude_none=True)
    for window in values.get("budget_limits", ()):
        window["max_budget"] = money.dollars(window["max_budget"])
    for budget in values.get("model_max_budget", {}).values():
        if "max_budget" in budget:
            budget["max_budget"] = money.dollars(budget["max_budget"])
    if "max_budget" in values.get("may_issue", {}):
        values["may_issue"]["max_budget"] = money.dollars(values["may_issue"]["max_budget"])
    return values


def with_defaults(
    values: Mapping[str, Any], layers: Sequence[tuple[str, KeyDefaults | None]]
) -> tuple[dict[str, Any], list[Filled]]:
    """Return *values* with what is missing taken from the first layer that has it, and what was taken."""
    result, filled = dict(values), []
    for source, defaults in layers:
        if defaults is None:
            continue
        taken_before = set(result)
        for field, value in given_values(defaults).items():
            # An empty list or object asks for nothing, so a default still applies.
            if result.get(field) not in (None, [], {}) or _settled(field, taken_before):
                continue
            result[field] = value
            filled.append(
                Filled(field, shown(field, value), f"{source}.default_key_generate_params")
            )
    return result, filled


def build_key(
    values: Mapping[str, Any],
    *,
    key_id: str,
    actor: str,
    now: datetime,
    kept: Mapping[str, Any] = NOTHING,
) -> Key:
    """Return the pending key that *values* describe.

    *kept* are columns that an imported key brings along in place of what a new one begins with,
    such as an expiry that may have passed.

    Raises:
        MalformedRequestError: It would have expired already.
    """
    columns = {name: value for name, value in values.items() if name not in GATEWAY_FIELDS}
    for transient in ("key", "expires"):
        columns.pop(transient, None)
    columns["key_alias"] = values.get("key_alias") or None
    columns["gateway"] = {name: values[name] for name in GATEWAY_FIELDS if name in values}
    columns.update(routes_of(values))
    if "expires" not in kept:
        columns["expires"] = _expires(values, now)
    if period := values.get("budget_duration"):
        columns["budget_anchor_at"] = now
        columns["budget_reset_at"] = durations.next_reset(period, anchor=now, now=now)
    if interval := values.get("rotation_interval"):
        columns["key_rotation_at"] = durations.parse_duration(interval).after(now)
    stamps = {"created_at": now, "created_by": actor, "updated_at": now, "updated_by": actor}
    return Key(id=key_id, **{**stamps, **columns, **kept})


def routes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `key_type` and the `allowed_routes` it implies."""
    kind = values.get("key_type") or "default"
    return {
        "key_type": kind,
        "allowed_routes": ROUTES_OF_TYPE.get(kind, values.get("allowed_routes") or []),
    }


def with_default_routes(key: Key, more: Sequence[str]) -> Key:
    """Return *key* with the routes written down that it reaches if it names none: the default and *more*."""
    gateway = {name: value for name, value in key.gateway.items() if name != DEFAULT_ROUTES}
    if not key.allowed_routes:
        gateway[DEFAULT_ROUTES] = [routes.DEFAULT, *more]
    return replace(key, gateway=gateway)


def _expires(values: Mapping[str, Any], now: datetime) -> datetime | None:
    if duration := values.get("duration"):
        return durations.parse_duration(duration).after(now)
    expires: datetime | None = values.get("expires")
    return None if expires is None else future(expires, now)


def future(expires: datetime, now: datetime) -> datetime:
    """Return *expires* if it is yet to come.

    Raises:
        MalformedRequestError: It is not.
    """
    if expires <= now:
        raise MalformedRequestError(
            "the request is malformed: expires: is in the past",
            hint="give an instant to come, or a duration",
            violations=[
                Violation(
                    rule="request.expires",
                    field="expires",
                    message="is in the past",
                    bound=shown("expires", now),
                    value=shown("expires", expires),
                )
            ],
        )
    return expires


def _settled(field: str, names: set[str]) -> bool:
    return any(field in group and names & set(group) for group in _TOGETHER)
