"""Shape JSON Schemas: what instants, money, keys, secrets and lists look like in every answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from keyctl import lifecycle
from keyctl.records import Key

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MONEY: Final = {"type": ["number", "null"], "minimum": 0}
TEXT: Final = {"type": ["string", "null"]}
INSTANT: Final = {"type": ["string", "null"], "format": "date-time"}
BY_TYPE: Final[dict[str, dict[str, Any]]] = {
    "str": {"type": "string"},
    "str | None": {"type": ["string", "null"]},
    "int": {"type": "integer"},
    "int | None": {"type": ["integer", "null"], "minimum": 0},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
    "datetime | None": INSTANT,
    "list[str]": {"type": "array", "items": {"type": "string"}},
}


_DOLLARS: Final = ("max_budget", "soft_budget", "spend")


def object_of(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """Return the schema of an object that has these properties and no others."""
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def record_properties(
    kind: type, *, without: Sequence[str], renamed: Mapping[str, str]
) -> dict[str, Any]:
    """Return the properties of a record as its view shows it: money as numbers, all but a few columns."""
    properties: dict[str, Any] = {}
    for name, annotation in annotations(kind).items():
        if name not in without:
            properties[renamed.get(name, name)] = _shape(name, annotation)
    return properties


def _shape(name: str, annotation: str) -> dict[str, Any]:
    if name in _DOLLARS:
        return MONEY
    if name in ("may_issue", "policy"):
        return {"type": ["object", "null"]}
    other = "array" if annotation.startswith("list") else "object"
    return BY_TYPE.get(annotation, {"type": other})


def key_properties() -> dict[str, Any]:
    """Return the properties of a key, those that only a gateway reads aside."""
    properties: dict[str, Any] = {
        "key_id": {"type": "string", "pattern": "^key_[0-9A-Za-z]{20}$"},
        "token": {"type": "string"},
        "token_id": {"type": "string"},
        "key_name": {"type": ["string", "null"]},
        "state": {"enum": list(lifecycle.KEY_STATES)},
    }
    without = ("id", "gateway", "confirmed_at", "budget_anchor_at")
    properties.update(record_properties(Key, without=without, renamed={}))
    return properties


def annotations(kind: type) -> dict[str, str]:
    """Return the type of each of a record's columns, as it is written."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for name, annotation in getattr(base, "__annotations__", {}).items():
            found[name] = (
                annotation.__name__
                if isinstance(annotation, type) and not hasattr(annotation, "__args__")
                else str(annotation).replace("datetime.datetime", "datetime")
            )
    return found


def secrets() -> dict[str, Any]:
    """Return the schema of a key's secrets."""
    properties = {
        "id": {"type": "string"},
        "state": {"enum": list(lifecycle.SECRET_STATES)},
        "created_at": {"type": "string", "format": "date-time"},
        "not_after": INSTANT,
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


def list_of(plural: str, row: dict[str, Any], cursor: list[str]) -> dict[str, Any]:
    """Return the schema of a list: its rows, and where the next page begins."""
    return object_of(
        {plural: {"type": "array", "items": row}, "next": {"type": cursor}}, [plural, "next"]
    )


# Where the chain ends: an event's number and hash.
HEAD: Final = object_of(
    {
        "seq": {"type": "integer", "minimum": 0},
        "head": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    },
    ["seq", "head"],
)
VIOLATION: Final = object_of(
    {
        "rule": {"type": "string"},
        "field": {"type": "string"},
        "message": {"type": "string"},
        "bound": {},
        "value": {},
    },
    ["rule", "field", "message", "bound", "value"],
)
ERROR: Final = object_of(
    {
        "code": {"type": "string"},
        "exit_code": {"type": "integer"},
        "message": {"type": "string"},
        "hint": TEXT,
        "violations": {"type": "array", "items": VIOLATION},
    },
    ["code", "exit_code", "message", "hint", "violations"],
)
FILLED: Final = {
    "type": "array",
    "items": object_of(
        {"field": {"type": "string"}, "value": {}, "source": {"type": "string"}},
        ["field", "value", "source"],
    ),
}
CHANGES: Final = {
    "type": "object",
    "additionalProperties": object_of({"before": {}, "after": {}}, ["before", "after"]),
}
