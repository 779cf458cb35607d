"""Hold what a fleet file says of each object, validated and in column values.  Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keyctl.fleetfile.document import BUDGETS, COUNTER
from keyctl.records import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerEntry:
    """An organization, user or team as a file describes it: column values, and those of the members it names."""

    kind: type[Principal]
    section: str
    name: str
    fleet: str
    source: int
    values: Mapping[str, Any]
    members: Mapping[str, Mapping[str, Any]]
    adopt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TierEntry:
    """A budget tier as a file describes it, in column values."""

    name: str
    fleet: str
    source: int
    values: Mapping[str, Any]
    adopt: bool

    @property
    def section(self) -> str:
        """Return where it stands in the file."""
        return BUDGETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """What an entry says of how to go about a key, and is no field of it."""

    count: int | None = None
    was: str | None = None
    adopt: str | None = None
    deliver: str | None = None
    rotate: bool | None = None
    administers: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTemplate:
    """A key, or `count` of them, as a file describes them.

    `values` are column values, `cleared` the fields that are said to be empty.  `asked` are the
    fields as a request has them: mostly the very same mapping, because a fleet holds many keys.
    """

    name: str
    fleet: str
    source: int
    values: Mapping[str, Any]
    cleared: frozenset[str]
    asked: Mapping[str, Any]
    entry: Instructions

    @property
    def section(self) -> str:
        """Return where it stands in the file."""
        return "keys"

    def names(self) -> Iterator[str]:
        """Yield the name of each key."""
        if self.entry.count is None:
            yield self.name
            return
        for number in range(1, self.entry.count + 1):
            yield self.name.replace(COUNTER, str(number))

    def old_name(self, name: str) -> str | None:
        """Return what the key of this *name* was called before, if the file says so."""
        was = self.entry.was
        if was is None or self.entry.count is None:
            return was
        before, _, after = self.name.partition(COUNTER)
        return was.replace(COUNTER, name[len(before) : len(name) - len(after)])


Entry = OwnerEntry | TierEntry | KeyTemplate
