"""Shape JSON Schemas: what words, instants, money, keys, secrets and lists look like in every answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from keyctl import lifecycle
from keyctl.records import Key

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
WORD: Final[Schema] = {"type": "string"}
WORDS: Final[Schema] = {"type": "array", "items": WORD}
NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
TRUTH: Final[Schema] = {"type": "boolean"}
MONEY: Final = {"type": ["number", "null"], "minimum": 0}
TEXT: Final = {"type": ["string", "null"]}
INSTANT: Final = {"type": ["string", "null"], "format": "date-time"}
# A moment that there always is.
MOMENT: Final = {"type": "string", "format": "date-time"}
# Where the next page of a list begins.
CURSOR: Final = ["string", "null"]
BY_TYPE: Final[dict[str, Schema]] = {
    "str": WORD,
    "str | None": TEXT,
    "int": {"type": "integer"},
    "int | None": {"type": ["integer", "null"], "minimum": 0},
    "bool": TRUTH,
    "datetime": MOMENT,
    "datetime | None": INSTANT,
    "list[str]": WORDS,
}
_DOLLARS: Final = ("max_budget", "soft_budget", "spend")


def object_of(properties: Schema, required: list[str]) -> Schema:
    """Return the schema of an object that has these properties and no others."""
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def whole(properties: Schema, *optional: str) -> Schema:
    """Return the schema of an object that has all of *properties*, but for those that are *optional*."""
    return object_of(properties, [name for name in properties if name not in optional])


def rows(row: Schema) -> Schema:
    """Return the schema of an array whose items are all alike."""
    return {"type": "array", "items": row}


def record_properties(kind: type, *, without: Sequence[str], renamed: Mapping[str, str]) -> Schema:
    """Return the properties of a record as its view shows it: money as numbers, all but a few columns."""
    properties: Schema = {}
    for name, annotation in annotations(kind).items():
        if name not in without:
            properties[renamed.get(name, name)] = _shape(name, annotation)
    return properties


def _shape(name: str, annotation: str) -> Schema:
    if name in _DOLLARS:
        return MONEY
    if name in ("may_issue", "policy"):
        return {"type": ["object", "null"]}
    other = "array" if annotation.startswith("list") else "object"
    return BY_TYPE.get(annotation, {"type": other})


def key_properties() -> Schema:
    """Return the properties of a key, those that only a gateway reads aside."""
    properties: Schema = {
        "key_id": {"type": "string", "pattern": "^key_[0-9A-Za-z]{20}$"},
        "token": WORD,
        "token_id": WORD,
        "key_name": TEXT,
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


def secrets() -> Schema:
    """Return the schema of a key's secrets."""
    properties = {
        "id": WORD,
        "state": {"enum": list(lifecycle.SECRET_STATES)},
        "created_at": MOMENT,
        "not_after": INSTANT,
        "administers": TRUTH,
        "issued_by": TEXT,
    }
    own = whole(properties)
    del own["$schema"]
    return rows(own)


def list_of(plural: str, row: Schema, cursor: list[str]) -> Schema:
    """Return the schema of a list: its rows, and where the next page begins."""
    return whole({plural: rows(row), "next": {"type": cursor}})


# Where the chain ends: an event's number and hash.
HEAD: Final = whole({"seq": NUMBER, "head": {"type": "string", "pattern": "^[0-9a-f]{64}$"}})
HEAD_OR_NONE: Final[Schema] = {"anyOf": [HEAD, {"type": "null"}]}
VIOLATION: Final = whole(
    {"rule": WORD, "field": WORD, "message": WORD, "bound": {}, "value": {}},
)
VIOLATIONS: Final = rows(VIOLATION)
ERROR: Final = whole(
    {
        "code": WORD,
        "exit_code": {"type": "integer"},
        "message": WORD,
        "hint": TEXT,
        "violations": VIOLATIONS,
    }
)
FILLED: Final = rows(whole({"field": WORD, "value": {}, "source": WORD}))
CHANGES: Final = {
    "type": "object",
    "additionalProperties": whole({"before": {}, "after": {}}),
}
# What is left of one budget, and whose it is.
LEFT: Final = whole(
    {
        "of": {"enum": ["key", "team", "user", "organization"]},
        "id": WORD,
        "what": WORD,
        "model": TEXT,
        "unit": {"enum": ["dollars", "tokens"]},
        "limit": {"type": "number"},
        "spend": {"type": "number"},
        "left": {"type": "number"},
        "period": TEXT,
        "resets_at": INSTANT,
    }
)
# What becomes of the keys of somebody who leaves.
LEFT_KEYS: Final = rows(whole({"key_id": WORD, "key_alias": TEXT, "result": WORD}))
