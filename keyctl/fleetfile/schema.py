"""Publish the JSON Schema of fleet files: what editors complete from, a sentence for each field.  Pure."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from keyctl.fleetfile.document import (
    BUDGETS,
    MEMBERS,
    OWNERS,
    SECTIONS,
    SYNONYMS,
    Heading,
    KeyEntry,
)
from keyctl.fleetfile.sentences import SECTION_SENTENCES, SENTENCES
from keyctl.principals import TierRequest, owner_model
from keyctl.records import Principal

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REF: Final = "#/$defs/{model}"


def fleet() -> dict[str, Any]:
    """Return the schema of a fleet file."""
    models = [
        Heading,
        KeyEntry,
        TierRequest,
        *MEMBERS.values(),
        *(owner_model(kind) for kind in OWNERS.values()),
    ]
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF.format(model="{model}")
    )
    defs = found["$defs"]
    heading = defs.pop(Heading.__name__)
    keys = defs[KeyEntry.__name__]
    keys["properties"].pop("key_alias")
    for kind in OWNERS.values():
        _describe_owner(kind, defs)
    _adoptable(defs[TierRequest.__name__])
    sections = {
        name: {
            "type": "object",
            "additionalProperties": {"anyOf": [{"$ref": _ref(name)}, {"type": "null"}]},
            "description": SECTION_SENTENCES[name],
        }
        for name in SECTIONS
    }
    document = {
        "$schema": _DIALECT,
        "title": "keyctl fleet",
        "type": "object",
        "properties": {**heading["properties"], **sections},
        "additionalProperties": False,
        "$defs": defs,
    }
    for name, field in _fields(document):
        field.pop("title", None)
        field.setdefault("description", SENTENCES.get(name, ""))
    return document


def _ref(section: str) -> str:
    if section == BUDGETS:
        return _REF.format(model=TierRequest.__name__)
    model = KeyEntry if section == "keys" else owner_model(OWNERS[section])
    return _REF.format(model=model.__name__)


def _describe_owner(kind: type[Principal], defs: dict[str, Any]) -> None:
    """Give an owner what only files have: members, adoption, and LiteLLM's names."""
    shape = defs[owner_model(kind).__name__]
    properties = shape["properties"]
    _adoptable(shape)
    for theirs, own in SYNONYMS[kind].items():
        properties[theirs] = dict(properties[own])
    if kind in MEMBERS:
        member = {"$ref": _REF.format(model=MEMBERS[kind].__name__)}
        properties["members"] = {
            "type": "object",
            "additionalProperties": {"anyOf": [member, {"type": "null"}]},
        }


def _adoptable(shape: dict[str, Any]) -> None:
    """Let an object be adopted; its id is the name in front."""
    properties = shape["properties"]
    del properties["id"]
    if shape.get("required") == ["id"]:
        del shape["required"]
    properties["adopt"] = {"type": "boolean", "description": SENTENCES["adopt_owner"]}


def _fields(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and schema of every field in *schema*, however deep."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties.items()
        for value in schema.values():
            yield from _fields(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _fields(value)
