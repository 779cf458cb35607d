"""Publish the JSON Schema of fleet files: what editors complete from, a sentence for each field.  Pure."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from keyctl.fleetfile.document import (
    MEMBERS,
    OWNERS,
    SECTIONS,
    SYNONYMS,
    Heading,
    KeyEntry,
)
from keyctl.fleetfile.sentences import SECTION_SENTENCES, SENTENCES
from keyctl.principals import owner_model
from keyctl.records import Principal

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REF: Final = "#/$defs/{model}"


def fleet() -> dict[str, Any]:
    """Return the schema of a fleet file."""
    models = [
        Heading,
        KeyEntry,
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
    model = KeyEntry if section == "keys" else owner_model(OWNERS[section])
    return _REF.format(model=model.__name__)


def _describe_owner(kind: type[Principal], defs: dict[str, Any]) -> None:
    """Give an owner what only files have: members, adoption, and LiteLLM's names."""
    shape = defs[owner_model(kind).__name__]
    properties = shape["properties"]
    del properties["id"]
    shape["required"] = [name for name in shape.get("required", ()) if name != "id"]
    if not shape["required"]:
        del shape["required"]
    for theirs, own in SYNONYMS[kind].items():
        properties[theirs] = dict(properties[own])
    properties["adopt"] = {"type": "boolean", "description": SENTENCES["adopt_owner"]}
    if kind in MEMBERS:
        member = {"$ref": _REF.format(model=MEMBERS[kind].__name__)}
        properties["members"] = {
            "type": "object",
            "additionalProperties": {"anyOf": [member, {"type": "null"}]},
        }


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
