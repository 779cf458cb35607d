"""Say what a plan is: the changes, what speaks against them, and the state that they start from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final, Literal

from keyctl.db.queries.audit import Head
from keyctl.errors import KeyctlError, Violation
from keyctl.fleetfile.entries import Entry, KeyTemplate
from keyctl.records import Key, Member, Principal, Tier
from keyctl.sinks.base import Target

Action = Literal["create", "update", "delete", "adopt"]
ACTIONS: Final[tuple[Action, ...]] = ("create", "update", "delete", "adopt")
Fields = Mapping[str, tuple[Any, Any]]
# What gateways write while they serve: no change of a key, so no reason to plan anew.
_USAGE: Final = frozenset({"spend", "last_used_at", "budget_reset_at"})


# Shared: a plan may have a hundred thousand changes that show no field.
_NONE: Final[Fields] = MappingProxyType({})


class Outdated(Exception):  # noqa: N818  # not an error
    """A key changed since the plan read it: plan again."""


def stamp_of(key: Key) -> bytes:
    """Return a digest of every column of *key* but usage: another one tells that it was changed."""
    values = [getattr(key, name) for name in Key.names() if name not in _USAGE]
    return blake2b(repr(values).encode(), digest_size=16).digest()


@dataclass(slots=True, kw_only=True)
class Change:
    """One object that would change: its fields before and after, and the rules it would break.

    `object_id` is the name by which files call the object; `key_id` is set for keys that exist.
    """

    action: Action
    object_type: str
    object_id: str
    key_id: str | None = None
    entry: Entry | None = None
    fields: Fields = field(default_factory=lambda: _NONE)
    violations: Sequence[Violation] = ()


@dataclass(slots=True, kw_only=True)
class OwnerChange(Change):
    """An owner that is made, changed, adopted or ended; `roles` are the members it gets.

    `members` are those of a team that limits of their own are said of, as they are and will be.
    """

    before: Principal | None = None
    after: Principal
    roles: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)
    members: Mapping[str, tuple[Member | None, Member]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class TierChange(Change):
    """A budget tier that is made, changed, adopted or ended."""

    before: Tier | None = None
    after: Tier


@dataclass(slots=True, kw_only=True)
class KeyChange(Change):
    """A key that is changed, adopted or ended: the columns that it gets.

    The key itself is read again when it is written, because a plan may change a hundred thousand;
    `stamp` is that of the key as it was judged.  `moves_place` tells that its sink keeps it
    elsewhere then, `sink` where it goes if it is rotated.
    """

    key_id: str
    values: Mapping[str, Any]
    stamp: bytes
    sink: str | None = None
    moves_place: bool = False
    rotates: bool = False

    def after(self, before: Key) -> Key:
        """Return the key as it will be."""
        return replace(before, **self.values)


@dataclass(slots=True, kw_only=True)
class NewKeyChange(Change):
    """A key that is made."""

    template: KeyTemplate
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that no plan can be carried out with, and where it is written.

    Without an *entry* no file describes the object; *field* is its whole path then.
    """

    error: KeyctlError
    entry: Entry | None
    field: str
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something that a person should know, and where it is written."""

    entry: Entry | None
    field: str = ""
    message: str


@dataclass(slots=True, kw_only=True)
class Lowered:
    """A user who gets a lower role in a place, None for everywhere, and the keys that it leaves there.

    Without an *entry* no file describes the user any more: `--prune` ends it.
    """

    entry: Entry | None
    field: str
    user_id: str
    place: tuple[type[Principal], str] | None
    key_ids: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Plan:
    """Everything that files would change, from the state at the audit head on.

    `abandoned` are keys that dead runs left half made under a described name: they make way.
    `lowered` are those who get a lower role or end: what becomes of the keys that they leave is to
    be said.
    """

    changes: list[Change] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    abandoned: list[Key] = field(default_factory=list)
    lowered: list[Lowered] = field(default_factory=list)
    unchanged: int = 0
    head: Head

    @property
    def is_denied(self) -> bool:
        """Tell whether a rule speaks against a change."""
        return any(change.violations for change in self.changes)

    @property
    def does_something(self) -> bool:
        """Tell whether anything but the mark of a fleet would change."""
        return any(change.action != "adopt" for change in self.changes)

    def stopped(self, left_keys: str | None) -> list[str]:
        """Return the ids of keys that it ends or blocks, and of those that users who end leave.

        *left_keys* says what becomes of the keys of who gets a lower role or ends.
        """
        left = [
            key_id
            for item in self.lowered
            if item.entry is None or left_keys != "keep"
            for key_id in item.key_ids
        ]
        changed = [
            item.key_id
            for item in self.changes
            if isinstance(item, KeyChange)
            and (item.action == "delete" or item.values.get("blocked") is True)
        ]
        return list(dict.fromkeys([*changed, *left]))

    def summary(self) -> dict[str, int]:
        """Return how many changes there are of each kind, and how many objects stay as they are."""
        counts: dict[str, int] = dict.fromkeys(ACTIONS, 0)
        for change in self.changes:
            counts[change.action] += 1
        return {**counts, "unchanged": self.unchanged}
