"""Validate field by field: the types of values, documents in which every name must be known, and what is said of a wrong one."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from keyctl import durations, jsontext, money, names, routes
from keyctl.errors import KeyctlError, MalformedRequestError, Violation
from keyctl.moments import parse_instant

UNSUPPORTED: Final = frozenset(
    {
        "project_id",
        "agent_id",
        "end_user_budget_id",
        "config",
    }
)
METADATA_MAX: Final = 64 * 1024
BLANK: Final = "must not consist of blanks only"
# What a validator is told of a document that the database holds.
_STORED: Final = "stored"

# One address, with nothing in it that makes a list, a group or a name with an address of a header;
# nor an encoded word, which would be decoded to that.
_ADDRESS = re.compile(r"""[^\s@,;:<>()\[\]"\\]+@[^\s@,;:<>()\[\]"\\]+""")
_ENCODED_WORD: Final = "=?"


def refusal(message: str) -> PydanticCustomError:
    """Return the error that a validator raises to say *message*, and nothing of the value."""
    return PydanticCustomError("value", "{why}", {"why": message})


def _checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return a validator that keeps the value when *check* does not raise one of our errors."""

    def validate(value: str) -> str:
        try:
            check(value)
        except KeyctlError as error:
            raise refusal(f"{error.message}; {error.hint}") from None
        return value

    return validate


def _text(value: str) -> str:
    if not names.is_printable(value):
        raise refusal("must be 1 to 255 printable characters")
    return value


def _name(value: str, info: ValidationInfo) -> str:
    # What older versions stored is read as it is: its owner could not be changed otherwise.
    if names.is_blank(value) and not (info.context or {}).get(_STORED):
        raise refusal(BLANK)
    return value


def _alias(value: str, info: ValidationInfo) -> str:
    if value == "":
        return value
    _name(_text(value), info)
    if value.startswith(("-", "key_", "sk-")):
        raise refusal("must not start with '-', 'key_' or 'sk-'")
    return value


def _routes(entries: list[str]) -> list[str]:
    found = routes.first_unknown(entries)
    if found is not None:
        unknown, near = found
        hint = f"did you mean {' or '.join(near)}?" if near else "see: keyctl schema routes"
        raise refusal(f"{unknown!r} is neither a path nor a group of routes; {hint}")
    return entries


def _email(text: str) -> str:
    plain = text.isprintable() and len(text) <= 320
    if not plain or _ADDRESS.fullmatch(text) is None or _ENCODED_WORD in text:
        raise refusal("must be an e-mail address")
    return text


def _nano(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise refusal("must be a number of dollars")
    try:
        return money.to_nano(Decimal(repr(value)) if isinstance(value, float) else value)
    except KeyctlError as error:
        raise refusal(f"{error.message}; {error.hint}") from None


def unquoted(amount: Any) -> Any:
    """Return an amount in quotation marks, as LiteLLM's manual has some, as a number; others as they are."""
    if not isinstance(amount, str):
        return amount
    try:
        return money.dollars(money.parse_money(amount))
    except KeyctlError as error:
        raise refusal(f"{error.message}; {error.hint}") from None


def _instant(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    try:
        return parse_instant(value if isinstance(value, str) else "")
    except ValueError:
        raise refusal("must be an RFC 3339 instant such as 2030-01-31T12:00:00Z") from None


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    if len(jsontext.dumps(value)) > METADATA_MAX:
        raise refusal(f"is larger than {METADATA_MAX // 1024} KiB")
    return value


def parse_grace(text: str) -> durations.Grace:
    """Return the grace period that *text* says: a duration, or ``none``.

    Raises:
        InvalidDurationError: It is neither.
    """
    return durations.Grace(None if text == "none" else durations.parse_duration(text))


M = TypeVar("M", bound="Strict")
Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[Text, AfterValidator(_name)]
Names = Annotated[list[Name], Field(max_length=1000)]
# Paths, beginnings of paths that end in `*`, and names of groups.
Routes = Annotated[Names, AfterValidator(_routes)]
Alias = Annotated[str, AfterValidator(_alias)]
Email = Annotated[str, AfterValidator(_email)]
Dollars = Annotated[
    int,
    BeforeValidator(_nano),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": money.MAX_DOLLARS}),
]
Limit = Annotated[int, Field(ge=0, le=2**63 - 1)]
DurationText = Annotated[str, AfterValidator(_checked(durations.parse_duration))]
GraceText = Annotated[str, AfterValidator(_checked(parse_grace))]
PeriodText = Annotated[str, AfterValidator(_checked(durations.parse_period))]
Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
Limits = Annotated[dict[Name, Limit], Field(max_length=1000)]
LimitType = Literal["guaranteed_throughput", "best_effort_throughput", "dynamic"]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]


class Strict(BaseModel):
    """A document in which every name must be known and every type exact."""

    # Built when first used: most commands validate one document, and there are two dozen models.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)
    # Names of fields that are understood beside the model's own.
    other_names: ClassVar[frozenset[str]] = frozenset()


# Of what is wrong with a document so much is named: a megabyte of mistakes helps nobody.
_MOST_NAMED: Final = 100
_MOST_LIKENED: Final = 10
# What people write who never saw the names of the fields.
_PEOPLE_SAY: Final = {
    "name": ("key_alias",),
    "email": ("user_id",),
    "mail": ("user_id",),
    "owner": ("user_id",),
    "limit": ("max_budget",),
    "expiry": ("expires",),
    "ttl": ("duration",),
}


def validate(
    model: type[M],
    document: Mapping[str, Any],
    *,
    what: str,
    schema: str = "generate-request",
    stored: bool = False,
) -> M:
    """Return *document* as *model*; names whose value is null count as not given.

    *stored* says that the database holds it: then names may consist of blanks.

    Raises:
        MalformedRequestError: With one violation for each thing that is wrong.
    """
    violations = jsontext.check_strings(document)
    given = {name: value for name, value in document.items() if value is not None}
    known = set(model.model_fields)
    unknown = sorted(given.keys() - known)
    # Of many the likest name is looked for a few times only: that takes a millisecond each.
    violations += [
        unknown_field(name, known if number < _MOST_LIKENED else set())
        for number, name in enumerate(unknown[:_MOST_NAMED])
    ]
    wrong = len(violations) + max(0, len(unknown) - _MOST_NAMED)
    if not violations:
        try:
            return model.model_validate(given, context={_STORED: stored})
        except ValidationError as error:
            items = error.errors(include_input=False, include_url=False)
            violations = [_violation(model, item) for item in items[:_MOST_NAMED]]
            wrong = len(items)
    first = violations[0]
    where = f"{first.field}: " if first.field else ""
    raise MalformedRequestError(
        f"{what} is malformed: {where}{first.message}"
        + (f" (and {wrong - 1} more)" if wrong > 1 else ""),
        hint=f"keyctl schema {schema} prints what is accepted",
        violations=violations[:_MOST_NAMED],
    )


def unknown_field(name: str, known: set[str]) -> Violation:
    """Return what is said of a name that is none of *known*, with the one that is like it."""
    shown = name if len(name) <= 80 else name[:80] + "…"
    if name in UNSUPPORTED:
        return Violation(
            rule="request.unsupported", field=shown, message="is not supported by keyctl"
        )
    # The names of options first: of `alias`, `key_alias` is meant, though `aliases` is nearer.
    forms = (*_PEOPLE_SAY.get(name, ()), f"key_{name}", f"max_{name}", f"{name}_id", f"{name}s")
    near = [form for form in forms if form in known] or get_close_matches(name, known, n=1)
    message = "is not a known field" + (f"; did you mean {near[0]}?" if near else "")
    return Violation(rule="request.unknown_field", field=shown, message=message)


def _violation(model: type[BaseModel], item: Any) -> Violation:
    path = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        inner = unknown_field(path[-1], _names_at(model, path[:-1]))
        return Violation(rule=inner.rule, field=".".join(path), message=inner.message)
    kind = "value" if item["type"] == "value" else "type"
    if path[-1:] == ["[key]"]:  # pydantic's word for a name in a dictionary
        message = f"the name {path[-2][:80]!r} {_message(item)}"
        return Violation(rule=f"request.{kind}", field=".".join(path[:-2]), message=message)
    return Violation(rule=f"request.{kind}", field=".".join(path), message=_message(item))


def _names_at(model: type[BaseModel], path: list[str]) -> set[str]:
    """Return the field names of the model inside *model* that *path* leads to, as far as it can be followed."""
    names = set(model.model_fields)
    for part in path:
        field = model.model_fields.get(part)
        inner = _models_in(field.annotation) if field else []
        if not inner:
            continue  # an index, a key of a dictionary, the tag of a union
        model = inner[0]
        names = set().union(
            *(kind.model_fields for kind in inner),
            *(kind.other_names for kind in inner if issubclass(kind, Strict)),
        )
    return names


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


# What is said instead of pydantic's own words; in braces what its error knows.
_SAID: Final = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    "int_parsing_size": "is too large a number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    "string_type": "must be text",
    "list_type": "must be a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
    "missing": "is missing",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be more than {gt}",
    "too_long": "must have at most {max_length} entries",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
}


def _message(item: Any) -> str:
    if (said := _SAID.get(item["type"])) is not None:
        return said.format_map(item.get("ctx") or {})
    text = str(item["msg"])
    return text[0].lower() + text[1:]
