"""Find the stored key of each description, whatever the order of files and of objects in them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Self

from sqlalchemy import Connection

from keyctl.db import queries
from keyctl.fleetfile.described import Fleet
from keyctl.fleetfile.entries import KeyTemplate
from keyctl.portions import portions
from keyctl.records import Key

_PORTION: Final = 500


@dataclass(slots=True, kw_only=True)
class Matching:
    """The names in some files, and which of them a stored key was found for."""

    fleets: Collection[str]
    by_name: dict[str, KeyTemplate]
    by_id: dict[str, str]
    by_old: dict[str, str]
    seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, fleet: Fleet) -> Self:
        """Return the names that *fleet* describes; one that is described is no old name of another."""
        by_name = {name: template for template in fleet.keys for name in template.names()}
        return cls(
            fleets=fleet.names,
            by_name=by_name,
            by_id={item.entry.adopt: item.name for item in fleet.keys if item.entry.adopt},
            by_old={
                old: name
                for name, template in by_name.items()
                if (old := template.old_name(name)) is not None and old not in by_name
            },
        )

    def pairs(self, connection: Connection) -> Iterator[tuple[Key, str | None]]:
        """Yield each stored key and the name it is described under, None for one of the fleet's own
        that is described no more.

        Its own name comes before the id that it is adopted by, and before an old name: that one is
        looked for where the new one is free.
        """
        others: list[Key] = []
        for key in queries.managed_keys(connection, self.fleets):
            if key.key_alias in self.by_name:
                yield self._taken(key, key.key_alias)
            elif self._other_name(key) is None:
                yield key, None  # at once: they may be very many
            else:
                others.append(key)
        for key in queries.keys_named(connection, self.by_name.keys() - self.seen):
            if key.managed_by not in self.fleets:
                yield self._taken(key, key.key_alias or "")
        yield from self._renamed(connection, others)

    def _renamed(
        self, connection: Connection, others: list[Key]
    ) -> Iterator[tuple[Key, str | None]]:
        """Yield the same of keys that are described by id or by an old name, *others* among them."""
        known = {key.id for key in others}
        wanted = [key_id for key_id, name in self.by_id.items() if name not in self.seen]
        old = [alias for alias, name in self.by_old.items() if name not in self.seen]
        by_id = (queries.find_keys(connection, some) for some in portions(wanted, _PORTION))
        more = chain(chain.from_iterable(by_id), queries.keys_named(connection, old))
        fresh = (key for key in more if key.deleted_at is None and key.id not in known)
        for key in chain(others, fresh):
            known.add(key.id)
            name = self._other_name(key)
            if name is not None and name not in self.seen:
                yield self._taken(key, name)
            elif key.managed_by in self.fleets:
                yield key, None

    def missing(self) -> list[tuple[str, KeyTemplate]]:
        """Return the names that no stored key was found for, after all pairs."""
        return [(name, self.by_name[name]) for name in sorted(self.by_name.keys() - self.seen)]

    def _other_name(self, key: Key) -> str | None:
        """Return the name under which a key is described that has another one now."""
        return self.by_id.get(key.id) or self.by_old.get(key.key_alias or "")

    def _taken(self, key: Key, name: str) -> tuple[Key, str]:
        # A pending key is one that a run is making: the name is still to be filled.
        if key.confirmed_at is not None:
            self.seen.add(name)
        return key, name


def is_wanted(key: Key, wanted: Collection[tuple[str, str]]) -> bool:
    """Tell whether the key is one of *wanted*, or belongs to one; if nothing is wanted, every key is."""
    return not wanted or bool(_names_of(key) & set(wanted))


def _names_of(key: Key) -> set[tuple[str, str | None]]:
    return {
        ("key", key.key_alias),
        ("key", key.id),
        ("team", key.team_id),
        ("user", key.user_id),
        ("organization", key.organization_id),
    }
