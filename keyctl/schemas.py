"""Publish the JSON Schemas of requests and answers, and the table of rules."""

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel

from keyctl import actions, lifecycle, limits
from keyctl.config.settings import Settings
from keyctl.fleetfile.schema import fleet
from keyctl.policy import authority, engine
from keyctl.policy.documents import Policy
from keyctl.principals import OrganizationRequest, TeamRequest, UserRequest
from keyctl.records import DEFAULT_ROUTES, Key
from keyctl.requests import GatewayFields, GenerateRequest, UpdateRequest

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_MONEY: Final = {"type": ["number", "null"], "minimum": 0}
_TEXT: Final = {"type": ["string", "null"]}
_INSTANT: Final = {"type": ["string", "null"], "format": "date-time"}
_BY_TYPE: Final[dict[str, dict[str, Any]]] = {
    "str": {"type": "string"},
    "str | None": {"type": ["string", "null"]},
    "int": {"type": "integer"},
    "int | None": {"type": ["integer", "null"], "minimum": 0},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
    "datetime | None": _INSTANT,
    "list[str]": {"type": "array", "items": {"type": "string"}},
}


def _model(model: type[BaseModel]) -> Callable[[], dict[str, Any]]:
    return lambda: {"$schema": _DIALECT, **model.model_json_schema()}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "$schema": _DIALECT,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


# Shown of a key that names no routes itself.
_DEFAULT_ROUTES: Final = {
    DEFAULT_ROUTES: {"type": "array", "items": {"type": "string"}},
}


def _key_properties() -> dict[str, Any]:
    properties: dict[str, Any] = {
        "key_id": {"type": "string", "pattern": "^key_[0-9A-Za-z]{20}$"},
        "token": {"type": "string"},
        "token_id": {"type": "string"},
        "key_name": {"type": ["string", "null"]},
        "state": {"enum": list(lifecycle.KEY_STATES)},
    }
    for name, annotation in _annotations(Key).items():
        if name in ("id", "gateway", "confirmed_at", "budget_anchor_at"):
            continue
        shape = _BY_TYPE.get(annotation)
        if name == "may_issue":
            shape = {"type": ["object", "null"]}
        if name in ("max_budget", "soft_budget", "spend"):
            shape = _MONEY
        properties[name] = shape or {"type": "array" if annotation.startswith("list") else "object"}
    return properties


def _annotations(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for name, annotation in getattr(base, "__annotations__", {}).items():
            found[name] = (
                annotation.__name__
                if isinstance(annotation, type) and not hasattr(annotation, "__args__")
                else str(annotation).replace("datetime.datetime", "datetime")
            )
    return found


def generate_response() -> dict[str, Any]:
    """Return the schema of what `generate -o json` prints."""
    properties = _key_properties()
    required = list(properties)
    gateway = GatewayFields.model_json_schema()
    properties.update({**gateway["properties"], **_DEFAULT_ROUTES})
    properties.update(
        {
            "key": {"type": "string", "pattern": "^sk-"},
            "filled": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "field": {"type": "string"},
                        "value": {},
                        "source": {"type": "string"},
                    },
                    "required": ["field", "value", "source"],
                    "additionalProperties": False,
                },
            },
            "warnings": {"type": "array", "items": {"type": "string"}},
            "replayed": {"type": "boolean"},
            "secrets": _secrets(),
            "audit": {
                "type": "object",
                "properties": {
                    "seq": {"type": "integer", "minimum": 1},
                    "head": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                },
                "required": ["seq", "head"],
                "additionalProperties": False,
            },
        }
    )
    # `key` is absent where a file or sink took it, the last four in the answer to a replay.
    return {**_object(properties, required), "$defs": gateway.get("$defs", {})}


def info_response() -> dict[str, Any]:
    """Return the schema of what `info -o json` prints."""
    properties = _key_properties()
    required = [*properties, "secrets"]
    gateway = GatewayFields.model_json_schema()
    properties.update({**gateway["properties"], **_DEFAULT_ROUTES})
    properties["secrets"] = _secrets()
    properties["effective"] = _effective()
    return {**_object(properties, [*required, "effective"]), "$defs": gateway.get("$defs", {})}


def _effective() -> dict[str, Any]:
    """Return the schema of what a key may do in effect: each limit with whose it is."""
    owner = {"of": {"enum": ["key", "team", "user", "organization"]}, "id": {"type": "string"}}
    text = {"type": ["string", "null"]}
    limit = _object({**owner, "limit": {"type": "integer"}}, ["limit", "of", "id"])
    budget = {
        **owner,
        "what": {"type": "string"},
        "model": text,
        "unit": {"enum": ["dollars", "tokens"]},
        "limit": {"type": "number"},
        "left": {"type": "number"},
        "period": text,
        "resets_at": _INSTANT,
    }
    names = {"models": {"type": "array", "items": {"type": "string"}}}
    properties = {
        "works": {"type": "boolean"},
        "reason": text,
        "until": _INSTANT,
        "models": {"type": "array", "items": _object({**owner, **names}, ["of", "id", "models"])},
        **{
            name: {"anyOf": [limit, {"type": "null"}]}
            for name in ("rpm_limit", "tpm_limit", "max_parallel_requests")
        },
        "budgets": {"type": "array", "items": _object(budget, list(budget))},
    }
    return _object(properties, ["works", "reason", "until", "models", "budgets"])


def verify_response() -> dict[str, Any]:
    """Return the schema of what `verify -o json` prints."""
    reasons = (
        "malformed unknown revoked blocked expired team_blocked org_blocked user_blocked"
        " budget_exceeded"
    )
    text = {"type": ["string", "null"]}
    properties = {
        "valid": {"type": "boolean"},
        "reason": {"enum": [None, *reasons.split()]},
        **dict.fromkeys(("key_id", "key_alias", "team_id", "user_id", "secret_id"), text),
        "secret_state": {"enum": [None, *lifecycle.SECRET_STATES]},
        "expires": _INSTANT,
    }
    return _object(properties, list(properties))


def error_response() -> dict[str, Any]:
    """Return the schema of the error that `-o json` prints on stderr."""
    violation = {
        "type": "object",
        "properties": {
            "rule": {"type": "string"},
            "field": {"type": "string"},
            "message": {"type": "string"},
            "bound": {},
            "value": {},
        },
        "required": ["rule", "field", "message", "bound", "value"],
        "additionalProperties": False,
    }
    error = {
        "type": "object",
        "properties": {
            "code": {"type": "string"},
            "exit_code": {"type": "integer"},
            "message": {"type": "string"},
            "hint": {"type": ["string", "null"]},
            "violations": {"type": "array", "items": violation},
        },
        "required": ["code", "exit_code", "message", "hint", "violations"],
        "additionalProperties": False,
    }
    return _object({"error": error}, ["error"])


def event() -> dict[str, Any]:
    """Return the schema of what a hook is sent: Standard Webhooks' `type`, `timestamp` and `data`."""
    text = {"type": ["string", "null"]}
    data = {
        "object_type": {"type": "string"},
        "object_id": {"type": "string"},
        "actor": {"type": "string"},
        "changed_by": text,
        "reason": text,
        "seq": {"type": "integer", "minimum": 1},
        "changes": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {"before": {}, "after": {}},
                "required": ["before", "after"],
            },
        },
        "key": {"type": "object", "properties": _key_properties()},
        # Of a rotation: where its new secret went, null if it was shown.
        "sink": text,
    }
    properties = {
        "type": {"enum": sorted(actions.ACTIONS)},
        "timestamp": {"type": "string", "format": "date-time"},
        "data": {
            "type": "object",
            "properties": data,
            "required": [name for name in data if name not in ("key", "sink")],
            "additionalProperties": False,
        },
    }
    return _object(properties, list(properties))


def rule_table() -> list[dict[str, Any]]:
    """Return every rule: its id, whom it binds, whether it can be overridden, what it demands.

    `closes` marks those without which a caller could end up with more than they were given.
    """
    return [
        {
            "rule": rule.id,
            "binds": rule.binds,
            "overridable": rule.overridable,
            "closes": rule.closes,
            "demands": rule.demands,
        }
        for rule in engine.RULES
    ]


def field_table() -> list[dict[str, Any]]:
    """Return every limit: whose it is, who enforces it, how it is compared, and what else to know."""
    return [
        {
            "field": limit.field,
            "of": list(limit.of),
            "enforced_by": limit.enforced_by,
            "order": limit.order,
            "note": limit.note,
        }
        for limit in limits.LIMITS
    ]


def authority_table() -> list[dict[str, Any]]:
    """Return who may do what to whose key, as the rules decide it, with LiteLLM's answer beside."""
    return [
        {
            "operation": cell.operation,
            "route": cell.route,
            "role": cell.role,
            "whose": cell.whose,
            "allowed": cell.allowed,
            "rules": list(cell.rules),
            "litellm": cell.litellm,
            "reason": cell.reason,
        }
        for cell in authority.table()
    ]


def _secrets() -> dict[str, Any]:
    properties = {
        "id": {"type": "string"},
        "state": {"enum": list(lifecycle.SECRET_STATES)},
        "created_at": {"type": "string", "format": "date-time"},
        "not_after": _INSTANT,
        "administers": {"type": "boolean"},
        "issued_by": {"type": ["string", "null"]},
    }
    return {
        "type": "array",
        "items": {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        },
    }


def _list_of(plural: str, row: dict[str, Any], cursor: list[str]) -> dict[str, Any]:
    """Return the schema of a list: its rows, and where the next page begins."""
    return _object(
        {plural: {"type": "array", "items": row}, "next": {"type": cursor}}, [plural, "next"]
    )


def list_response() -> dict[str, Any]:
    """Return the schema of what `list -o json` prints; a line of `-o jsonl` is one of its rows."""
    gateway = GatewayFields.model_json_schema()
    properties = _key_properties()
    row = _object({**properties, **gateway["properties"], **_DEFAULT_ROUTES}, list(properties))
    return {**_list_of("keys", row, ["string", "null"]), "$defs": gateway.get("$defs", {})}


def many_response() -> dict[str, Any]:
    """Return the schema of what `generate --count -o json` prints."""
    made = generate_response()
    failed = _object({"key_alias": _TEXT, **error_response()["properties"]}, ["key_alias", "error"])
    properties = {
        "keys": {"type": "array", "items": {name: made[name] for name in made if name != "$defs"}},
        "failed": {"type": "array", "items": failed},
    }
    return {**_object(properties, ["keys", "failed"]), "$defs": made["$defs"]}


def results_response() -> dict[str, Any]:
    """Return the schema of what `block|unblock|delete|revoke -o json` print."""
    row = _object(
        dict.fromkeys(("given", "key_id", "result", "reason"), _TEXT), ["given", "result"]
    )
    properties = {
        "results": {"type": "array", "items": row},
        "audit": {"type": ["object", "null"]},
    }
    return _object(properties, ["results"])


def audit_list_response() -> dict[str, Any]:
    """Return the schema of what `audit list -o json` prints."""
    names = ("actor", "changed_by", "action", "object_type", "object_id", "reason")
    properties: dict[str, Any] = {
        "seq": {"type": "integer"},
        "at": {"type": "string"},
        **dict.fromkeys(names, _TEXT),
        # Documents, or the text that is there instead where somebody tampered with them.
        "before": {"type": ["object", "string", "null"]},
        "after": {"type": ["object", "string", "null"]},
    }
    row = {**_object(properties, list(properties)), "additionalProperties": True}
    return _list_of("events", row, ["integer", "null"])


SCHEMAS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "generate-request": _model(GenerateRequest),
    "update-request": _model(UpdateRequest),
    "generate-response": generate_response,
    "info-response": info_response,
    "list-response": list_response,
    "many-response": many_response,
    "results-response": results_response,
    "audit-list-response": audit_list_response,
    "verify-response": verify_response,
    "error-response": error_response,
    "event": event,
    "team-policy": _model(Policy),
    "team": _model(TeamRequest),
    "user": _model(UserRequest),
    "organization": _model(OrganizationRequest),
    "fleet": fleet,
    "configuration": _model(Settings),
}
