"""Look owners up as they will be when the files are applied, each read once."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from keyctl.db.queries import directory
from keyctl.fleetfile.described import Fleet
from keyctl.records import Member, Organization, Principal, Team, User

P = TypeVar("P", bound=Principal)
_KINDS: tuple[type[Principal], ...] = (Organization, User, Team)


@dataclass(slots=True)
class World:
    """A `Lookup` of owners and roles: what is stored, and over it what the plan makes of it.

    `tiers` are the budget tiers that files describe, `members` the stored ones that limits are said of.
    """

    stored: dict[type[Principal], dict[str, Principal]]
    roles: dict[type[Principal], dict[tuple[str, str], str]]
    planned: dict[type[Principal], dict[str, Principal | None]] = field(
        default_factory=lambda: {kind: {} for kind in _KINDS}
    )
    tiers: set[str] = field(default_factory=set)
    members: dict[tuple[str, str], Member] = field(default_factory=dict)
    _others: dict[tuple[type[Principal], str], Principal | None] = field(default_factory=dict)

    @classmethod
    def of(cls, connection: Connection, fleet: Fleet, *, lock: bool) -> "World":
        """Return the owners that *fleet* describes and names; locked in keyctl's order if asked for."""
        named = _named(fleet)
        before = directory.find_all(connection, Team, named[Team])
        named[Organization] |= {
            team.organization_id for team in before.values() if team.organization_id
        }
        organizations = directory.find_all(connection, Organization, named[Organization], lock=lock)
        teams = directory.find_all(connection, Team, named[Team], lock=lock) if lock else before
        users = directory.find_all(connection, User, named[User], lock=lock)
        return cls(
            stored={Organization: {**organizations}, Team: {**teams}, User: {**users}},
            roles={
                Team: directory.roles_in(connection, Team, teams.keys()),
                Organization: directory.roles_in(connection, Organization, organizations.keys()),
            },
            members={
                (member.team_id, member.user_id): member
                for member in directory.team_members_in(connection, _limiting(fleet))
            },
        )

    def find(
        self, connection: Connection, kind: type[P], object_id: str, *, lock: bool = False
    ) -> P | None:
        """Return the owner as it will be, None if there will be none."""
        found: Any
        if object_id in self.planned[kind]:
            found = self.planned[kind][object_id]
        elif object_id in self.stored[kind]:
            found = self.stored[kind][object_id]
        else:
            if (kind, object_id) not in self._others:
                self._others[kind, object_id] = directory.find(
                    connection, kind, object_id, lock=lock
                )
            found = self._others[kind, object_id]
        return found  # type: ignore[no-any-return]  # each table holds its own kind

    def member_role(
        self, connection: Connection, kind: type[Principal], object_id: str, user_id: str
    ) -> str | None:
        """Return the user's role in a team or organization as it will be, None for a stranger."""
        if object_id in self.planned[kind] or object_id in self.stored[kind]:
            return self.roles[kind].get((object_id, user_id))
        return directory.member_role(connection, kind, object_id, user_id)


def _named(fleet: Fleet) -> dict[type[Principal], set[str]]:
    named: dict[type[Principal], set[str]] = {kind: set() for kind in _KINDS}
    for owner in fleet.owners:
        named[owner.kind].add(owner.name)
        named[User].update(owner.members)
        _add(named[Organization], owner.values.get("organization_id"))
    for template in fleet.keys:
        _add(named[Team], template.values.get("team_id"))
        _add(named[User], template.values.get("user_id"))
        _add(named[Organization], template.values.get("organization_id"))
    return named


def _limiting(fleet: Fleet) -> list[str]:
    """Return the teams that say limits of members: only there more than the role is read."""
    return [
        owner.name
        for owner in fleet.owners
        if owner.kind is Team and any(len(said) > 1 for said in owner.members.values())
    ]


def _add(names: set[str], value: str | None) -> None:
    if value is not None:
        names.add(value)
