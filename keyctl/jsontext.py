"""Read JSON strictly and write it exactly.  Pure.

simplejson rather than the standard library because money is a JSON number with up to nineteen
digits, and only it writes a Decimal as one.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

import simplejson

from keyctl.errors import MalformedRequestError, Violation

MAX_DOCUMENT = 4 * 1024 * 1024
_MAX_DEPTH = 32
_PIECE = 500
# Made once: to make one costs several times what decoding a column does.
_DECODER = simplejson.JSONDecoder(parse_float=Decimal)


def load_document(text: str | bytes, *, what: str, most: int = MAX_DOCUMENT) -> dict[str, Any]:
    """Return the JSON object in *text*, of *most* characters, numbers with a fraction as Decimal.

    Raises:
        MalformedRequestError: No JSON, not an object, a name given twice, NaN or Infinity, a
            NUL or a lone surrogate in a string, or nested deeper than 32 levels.  *what* names
            the document; nothing of its content is repeated.
    """
    try:
        return _object(_loaded(text, most))
    except _FaultError as fault:
        raise MalformedRequestError(
            f"{what} {fault}",
            hint="give one JSON object; python3 -m json.tool shows where a text is none",
        ) from None


def load_value(text: str, *, what: str) -> Any:
    """Return the value of JSON that others stored, as strictly as `load_document`.

    Raises:
        MalformedRequestError: It is none; nothing of its content is repeated.
    """
    try:
        return _loaded(text, MAX_DOCUMENT)
    except _FaultError as fault:
        raise MalformedRequestError(f"{what} {fault}") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _FaultError("is not a JSON object")
    return value


def _loaded(text: str | bytes, most: int) -> Any:
    if len(text) > most:
        raise _FaultError(f"is larger than {most // 1024 // 1024} MiB")
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return simplejson.loads(
            decoded,
            use_decimal=True,
            object_pairs_hook=_no_twice,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError:
        raise _FaultError("is not UTF-8") from None
    except simplejson.JSONDecodeError as error:
        raise _FaultError(
            f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except _RepeatedNameError as error:
        raise _FaultError(f"names {error.name!r} twice") from None
    except RecursionError:
        raise _FaultError("is nested too deep") from None
    except ValueError as error:
        raise _FaultError(f"is not JSON: {error}") from None
    except ArithmeticError:  # an exponent of a million digits
        raise _FaultError("has a number that is none") from None


def check_strings(document: Any) -> list[Violation]:
    """Return a violation for each string in *document* that a database or terminal cannot hold."""
    found: list[Violation] = []
    _check(document, "", 0, found)
    return found


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Return *value* as JSON on one line (or indented), with `Z` instants and exact decimals."""
    return simplejson.dumps(
        value,
        use_decimal=True,
        ensure_ascii=True,
        allow_nan=False,
        default=_default,
        indent=indent,
        separators=(",", ": ") if indent else (",", ":"),
    )


def pieces(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `dumps` returns with an indent of 2, a piece at a time.

    An iterator in *document* is written as an array, and never held whole.
    """
    opening = "{\n"
    for name, value in document.items():
        yield f"{opening}  {dumps(name)}: "
        opening = ",\n"
        if isinstance(value, Iterator):
            yield from _array_pieces(value)
        else:
            yield _indented(value, 2)
    yield "\n}"


def _array_pieces(items: Iterator[Any]) -> Iterator[str]:
    opening = "[\n"
    while some := list(islice(items, _PIECE)):
        yield opening + ",\n".join(f"    {_indented(item, 4)}" for item in some)
        opening = ",\n"
    yield "[]" if opening == "[\n" else "\n  ]"


def _indented(value: Any, by: int) -> str:
    # No string has a line break in it: there it is written as two characters.
    return dumps(value, indent=2).replace("\n", f"\n{' ' * by}")


def loads(text: str) -> Any:
    """Return the value of JSON that keyctl itself stored."""
    return _DECODER.decode(text)


def canonical(value: Any) -> str:
    """Return the canonical form of *value*: sorted names, no spaces, no floats, `Z` microseconds.

    A Decimal becomes a string; a float is refused, because its text is not its own.
    """
    _refuse_floats(value)
    return _CANONICAL.encode(value)


class SharedTexts:
    """Canonical texts of documents that many events share, made once for each."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[dict[str, Any], str]] = {}

    def of(self, document: dict[str, Any] | None) -> str | None:
        """Return the canonical form of *document*, by identity: it must not change meanwhile."""
        if document is None:
            return None
        if (known := self._known.get(id(document))) is None:
            # The document is kept, so that no other can get its address.
            known = self._known[id(document)] = document, canonical(document)
        return known[1]


def instant(moment: datetime) -> str:
    """Return *moment* in UTC as RFC 3339 with microseconds and `Z`: always 27 characters."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


class _FaultError(Exception):
    """What is wrong with a document."""


class _RepeatedNameError(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _RepeatedNameError(name[:80])
            seen.add(name)
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _check(value: Any, path: str, depth: int, found: list[Violation]) -> None:
    if depth > _MAX_DEPTH:
        found.append(
            Violation(
                rule="request.depth", field=path, message="is nested too deep", bound=_MAX_DEPTH
            )
        )
        return
    if isinstance(value, str):
        if problem := _problem(value):
            found.append(Violation(rule="request.text", field=path, message=problem))
    elif isinstance(value, dict):
        for name, item in value.items():
            if problem := _problem(str(name)):
                found.append(
                    Violation(rule="request.text", field=path, message=f"has a name that {problem}")
                )
                continue
            _check(item, f"{path}.{name}" if path else str(name), depth + 1, found)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, f"{path}.{index}", depth + 1, found)


def _problem(text: str) -> str | None:
    if "\0" in text:
        return "contains a NUL character"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "contains a lone surrogate or bytes that are not UTF-8"
    return None


def _default(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _refuse_floats(value: Any) -> None:
    kind = type(value)
    if kind is float:
        raise TypeError("a float has no canonical form")
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return
    for item in value:
        if type(item) in _NOT_FLAT:
            _refuse_floats(item)


def _canonical_default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f") if abs(value.adjusted()) < 64 else str(value)
    return _default(value)


_NOT_FLAT = frozenset({float, dict, list, tuple})
# The standard library's encoder: simplejson cannot leave decimals to a function of ours and
# still be fast, and every audit event is encoded three times.
_CANONICAL = json.JSONEncoder(
    ensure_ascii=True,
    sort_keys=True,
    allow_nan=False,
    separators=(",", ":"),
    default=_canonical_default,
)
