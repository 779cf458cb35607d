"""Compute the key that a change would make: the patch merged into it, what is cleared emptied, and what follows from both."""

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from keyctl import durations, nearest
from keyctl.errors import (
    MalformedRequestError,
    Violation,
)
from keyctl.policy import resolve
from keyctl.records import Key
from keyctl.requests import UpdateRequest

# What an own column becomes when it is cleared, where that is not null.
_EMPTY: Final[dict[str, Any]] = {
    "models": [],
    "budget_limits": [],
    "model_max_budget": {},
    "budget_fallbacks": {},
    "model_tpm_limit": {},
    "model_rpm_limit": {},
    "allowed_routes": [],
    "permissions": {},
    "guardrails": [],
    "tags": [],
    "metadata": {},
    "blocked": False,
    "auto_rotate": False,
    "send_invite_email": False,
    "spend": 0,
    "key_type": "default",
}
_COLUMNS: Final = frozenset(item.name for item in fields(Key))
# Objects that a patch changes name by name; everything else it replaces.
_MERGED: Final = frozenset({"metadata", "permissions", "model_tpm_limit", "model_rpm_limit"})


def empty_value(name: str) -> Any:
    """Return what the column *name* is when it is cleared."""
    return _EMPTY.get(name)


def emptied(key: Key, names: frozenset[str], *, now: datetime) -> Key:
    """Return *key* with these fields emptied, and what follows from that."""
    return changed_key(key, {}, names, now=now)


def merge(before: Key, patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that *patch* gives a value, objects merged into what is stored."""
    whole: dict[str, Any] = {}
    for name, value in patch.items():
        stored = getattr(before, name, None) if name in _MERGED else None
        whole[name] = (
            _merge_patch(stored, value)
            if isinstance(stored, dict) and isinstance(value, dict)
            else value
        )
    return whole


def _merge_patch(stored: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return *stored* with *patch* applied, after RFC 7396, section 2."""
    result = dict(stored)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            inner = result.get(name)
            result[name] = _merge_patch(inner if isinstance(inner, dict) else {}, value)
        else:
            result[name] = value
    return result


def changed_key(
    before: Key, values: Mapping[str, Any], cleared: frozenset[str], *, now: datetime
) -> Key:
    """Return *before* with *values* set and *cleared* emptied, and what follows from them."""
    unknown = cleared - UpdateRequest.model_fields.keys()
    if unknown:
        name = min(unknown)
        raise MalformedRequestError(
            f"the request is malformed: {name!r} is not a field that can be cleared",
            hint=nearest.meant(
                name,
                list(UpdateRequest.model_fields),
                otherwise="keyctl schema update-request prints what is accepted",
            ),
            violations=[
                Violation(rule="request.unknown_field", field=name, message="is not a known field")
            ],
        )
    columns = {name: value for name, value in values.items() if name in _COLUMNS}
    columns.update({name: _EMPTY.get(name) for name in cleared if name in _COLUMNS})
    gateway = {name: value for name, value in before.gateway.items() if name not in cleared}
    gateway.update({name: values[name] for name in resolve.GATEWAY_FIELDS if name in values})
    columns["gateway"] = gateway
    if "key_type" in values:
        columns.update(resolve.routes_of(values))
    columns.update(_expiry(values, cleared, now=now))
    key = replace(before, **columns)
    if "key_alias" in values:
        key = replace(key, key_alias=values["key_alias"] or None)
    if "budget_duration" in values or "budget_duration" in cleared:
        period = key.budget_duration
        key = replace(
            key,
            budget_anchor_at=now if period else None,
            budget_reset_at=durations.next_reset(period, anchor=now, now=now) if period else None,
        )
    return _rotation(key, before, now=now)


def _expiry(values: Mapping[str, Any], cleared: frozenset[str], *, now: datetime) -> dict[str, Any]:
    if "duration" in values:
        expires = durations.parse_duration(values["duration"]).after(now)
        return {"duration": values["duration"], "expires": expires}
    if "expires" in values:
        return {"duration": None, "expires": resolve.future(values["expires"], now)}
    if cleared & {"duration", "expires"}:
        return {"duration": None, "expires": None}
    return {}


def _rotation(key: Key, before: Key, *, now: datetime) -> Key:
    if not key.auto_rotate and key.rotation_interval is not None and before.auto_rotate:
        key = replace(key, rotation_interval=None)  # switched off: the interval goes with it
    if key.auto_rotate != (key.rotation_interval is not None):
        raise MalformedRequestError(
            "the request is malformed: auto_rotate and rotation_interval are only set together",
            hint="give both, or clear both",
            violations=[
                Violation(
                    rule="request.value",
                    field="rotation_interval",
                    message="auto_rotate and rotation_interval are only set together",
                )
            ],
        )
    if key.rotation_interval == before.rotation_interval:
        return key
    due = None
    if key.rotation_interval is not None:
        due = durations.parse_duration(key.rotation_interval).after(now)
    return replace(key, key_rotation_at=due)
