"""Read YAML 1.2 strictly: what two readers could understand differently is refused.  Pure.

PyYAML splits the text; what a plain word means is decided here, because PyYAML follows YAML 1.1,
where `no` is a truth value and `007` is octal.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import yaml

from keyctl.fleetfile.faults import Path

MOST_BY_ANCHORS: Final = 1024 * 1024
_MAX_DEPTH: Final = 32
_LONGEST_NUMBER: Final = 40
# The same reader in C where the installation has it: five times as fast.
_READER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTH: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_BOTH_WAYS: Final = frozenset(
    form for word in ("yes", "no", "on", "off") for form in (word, word.title(), word.upper())
)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OTHER_BASE = re.compile(r"[-+]?0[0-9_]+(\.[0-9_]*)?|0[xob][0-9a-fA-F_]+")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LOOKS_NUMERIC = frozenset("0123456789+-.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """Something in a YAML text that is refused: where, which rule, and what to write instead."""

    rule: str
    line: int
    path: Path
    message: str


def load(text: str) -> tuple[Any, list[Trap]]:
    """Return the value in *text* and every trap in it; with traps the value is not to be used.

    Numbers with a fraction are Decimal.  What an anchor names is shared, so nothing in the value
    may be changed.
    """
    reading = _Reading()
    try:
        value = reading.document(yaml.parse(text, Loader=_READER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        reading.traps.append(_syntax(line, f"is not YAML: {error.problem or error.context}"))
        return None, reading.traps
    except yaml.YAMLError:
        reading.traps.append(_syntax(1, "is not YAML: it holds characters that no text may have"))
        return None, reading.traps
    except _StopReading:
        return None, reading.traps
    return value, reading.traps


def find_lines(text: str, paths: Collection[Path]) -> dict[Path, int]:
    """Return the line of each path in *text*; of one that is not written out, that of what is around it."""
    # One dictionary from the start to the end: there may be a hundred thousand paths.
    found: dict[Path, int] = {path[:length]: 0 for path in paths for length in range(len(path) + 1)}
    found[()] = 1
    try:
        for path, line in _places(yaml.parse(text, Loader=_READER)):
            if found.get(path) == 0:
                found[path] = line
    except yaml.YAMLError:
        pass  # JSON that is no YAML, such as with tabs: what was found until there is told
    for path in paths:
        # What is around it was found first, if that is not written out either.
        found[path] = next(
            line for length in range(len(path), -1, -1) if (line := found[path[:length]])
        )
    return found


class _StopReading(Exception):  # noqa: N818  # not an error
    """The rest of the text is not looked at."""


@dataclass(slots=True)
class _Reading:
    """One pass over a text's events."""

    traps: list[Trap] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int] | None] = field(default_factory=dict)
    expanded: int = 0
    # Each text once: thousands of keys name the same fields, teams and models.
    texts: dict[str, str] = field(default_factory=dict)

    def document(self, events: Iterator[Any]) -> Any:
        """Return the value of the only document."""
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value, _ = self._value(next(events), events, ())
        next(events)  # the document's end
        following = next(events)
        if not isinstance(following, yaml.StreamEndEvent):
            self._refuse("yaml.document", following, (), "holds several documents; one file is one")
        return value

    def _value(self, event: Any, events: Iterator[Any], path: Path) -> tuple[Any, int]:
        """Return a value and its size in characters, with all that anchors put into it."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if event.tag is not None and not _is_plain_tag(event):
            self._refuse("yaml.tag", event, path, "has a tag; fleet files need none, leave it out")
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # not to be named inside itself
        if isinstance(event, yaml.ScalarEvent):
            result = self._scalar(event, path), len(event.value) + 1
        elif len(path) >= _MAX_DEPTH:
            self._refuse("yaml.depth", event, path, f"is nested deeper than {_MAX_DEPTH} levels")
            raise _StopReading
        elif isinstance(event, yaml.MappingStartEvent):
            result = self._mapping(events, path)
        else:
            result = self._sequence(events, path)
        if event.anchor is not None:
            self.anchors[event.anchor] = result
        return result

    def _alias(self, event: Any, path: Path) -> tuple[Any, int]:
        known = self.anchors.get(event.anchor)
        if known is None:
            self._refuse("yaml.anchor", event, path, f"*{event.anchor} names no anchor before it")
            raise _StopReading
        self.expanded += known[1]
        if self.expanded > MOST_BY_ANCHORS:
            self._refuse("yaml.anchor", event, path, "anchors expand the file by more than 1 MiB")
            raise _StopReading
        return known

    def _mapping(self, events: Iterator[Any], path: Path) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        inherited: dict[str, Any] = {}
        lines: dict[str, int] = {}
        size = 2
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            name = self._name(event, events, path)
            own = (*path, name)
            value, length = self._value(next(events), events, own)
            size += length + len(name)
            if name == "<<" and not event.style:
                self._merge(value, inherited, event, path)
            elif name in found:
                self._refuse(
                    "yaml.duplicate",
                    event,
                    own,
                    f"is named twice, first on line {lines[name]}; name it once",
                )
            else:
                found[name] = value
                lines[name] = event.start_mark.line + 1
        return {**inherited, **found} if inherited else found, size

    def _merge(self, value: Any, inherited: dict[str, Any], event: Any, path: Path) -> None:
        """Take over what `<<` names, the first of several first; the mapping's own names win."""
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                self._refuse("yaml.merge", event, path, "<< takes the alias of a mapping")
                return
            for name, inner in source.items():
                inherited.setdefault(name, inner)

    def _sequence(self, events: Iterator[Any], path: Path) -> tuple[list[Any], int]:
        found: list[Any] = []
        size = 2
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            value, length = self._value(event, events, (*path, len(found)))
            found.append(value)
            size += length
        return found, size

    def _name(self, event: Any, events: Iterator[Any], path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse("yaml.name", event, path, "holds a name that is no text")
            raise _StopReading
        if not event.style and event.value != "<<":
            value = self._scalar(event, (*path, event.value), is_name=True)
            if not isinstance(value, str):
                kind = (
                    "nothing"
                    if value is None
                    else "a truth value"
                    if isinstance(value, bool)
                    else "a number"
                )
                self._refuse(
                    "yaml.name",
                    event,
                    (*path, event.value),
                    f"is {kind} to YAML, not a name; put it in quotes",
                )
        return self.texts.setdefault(event.value, event.value)

    def _scalar(self, event: Any, path: Path, *, is_name: bool = False) -> Any:
        text = self.texts.setdefault(event.value, event.value)
        if event.style:  # quoted, or a block: a text, whatever it looks like
            return text
        if text in _NULL:
            return None
        if text in _TRUTH:
            return _TRUTH[text]
        if text in _BOTH_WAYS:
            advice = "put it in quotes" if is_name else "write true or false, or put it in quotes"
            self._refuse(
                "yaml.ambiguous",
                event,
                path,
                f"{text!r} is a truth value to some readers and a text to others; {advice}",
            )
            return text
        return self._number(event, path) if text[0] in _LOOKS_NUMERIC else text

    def _number(self, event: Any, path: Path) -> Any:
        text = event.value
        if len(text) > _LONGEST_NUMBER:
            return text
        if _INTEGER.fullmatch(text):
            return int(text)
        if _OTHER_BASE.fullmatch(text):
            message = f"{text!r} is read differently by different readers; put it in quotes, or write a decimal number without zeros before it"
            self._refuse("yaml.number", event, path, message)
            return text
        if _FRACTION.fullmatch(text):
            return Decimal(text)
        if _NO_NUMBER.fullmatch(text):
            self._refuse(
                "yaml.number", event, path, "is not a number that anything can be limited to"
            )
        return text

    def _refuse(self, rule: str, event: Any, path: Path, message: str) -> None:
        self.traps.append(
            Trap(rule=rule, line=event.start_mark.line + 1, path=path, message=message)
        )


def _is_plain_tag(event: Any) -> bool:
    """Tell whether the tag is the one that says "a text, whatever it looks like": ``!``."""
    return event.tag == "!" and isinstance(event, yaml.ScalarEvent) and bool(event.style)


def _syntax(line: int, message: str) -> Trap:
    return Trap(rule="yaml.syntax", line=line, path=(), message=message)


def _places(events: Iterator[Any]) -> Iterator[tuple[Path, int]]:
    """Yield the path and line of everything that is written out in a text."""
    # One frame for each collection that is open: its path, and the name or number that comes next.
    frames: list[tuple[Path, list[Any]]] = []
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            frames.pop()
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        path: Path = ()
        if frames:
            parent, state = frames[-1]
            if state[0] is None:  # a name of a mapping
                name = str(getattr(event, "value", ""))
                state[0] = name
                yield (*parent, name), line
                continue
            following: str | int = state[0]
            path = (*parent, following)
            if isinstance(following, int):
                yield path, line
                state[0] = following + 1
            else:
                state[0] = None
        if isinstance(event, yaml.MappingStartEvent):
            frames.append((path, [None]))
        elif isinstance(event, yaml.SequenceStartEvent):
            frames.append((path, [0]))
