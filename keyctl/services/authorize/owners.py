"""Read and lock the owners that a batch of keys names, all at once, in keyctl's order."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from keyctl.db.queries import directory
from keyctl.db.queries.tiers import find_tier
from keyctl.errors import BusyError
from keyctl.records import Key, Organization, Principal, Team, User

P = TypeVar("P", bound=Principal)


@dataclass(slots=True)
class Roster:
    """A `Lookup` that knows a batch's owners, and asks the database for any other.

    Locked owners do not change before the transaction ends, so reading them once is enough.
    """

    owners: dict[type[Principal], dict[str, Any]] = field(default_factory=dict)
    roles: dict[type[Principal], dict[tuple[str, str], str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        connection: Connection,
        *,
        team_ids: Collection[str],
        user_ids: Collection[str],
        organization_ids: Collection[str],
        lock: bool = True,
    ) -> "Roster":
        """Return the roster of these owners; organizations are locked first, then teams, then users.

        Raises:
            BusyError: A team moved to another organization meanwhile.
        """
        before = directory.find_all(connection, Team, team_ids)
        own = {team.organization_id for team in before.values() if team.organization_id}
        organizations = directory.find_all(
            connection, Organization, {*organization_ids, *own}, lock=lock
        )
        teams = directory.find_all(connection, Team, team_ids, lock=lock)
        moved = [
            team
            for team in teams.values()
            if team.id not in before or team.organization_id != before[team.id].organization_id
        ]
        if moved:
            raise BusyError("a team is being moved", hint="try again")
        users = directory.find_all(connection, User, user_ids, lock=lock)
        return cls(
            owners={Organization: organizations, Team: teams, User: users},
            roles={
                kind: directory.member_roles(connection, kind, found.keys(), users.keys())
                for kind, found in ((Team, teams), (Organization, organizations))
            },
        )

    def find(
        self, connection: Connection, kind: type[P], object_id: str, *, lock: bool = False
    ) -> P | None:
        """Return the live organization, user or team with this id."""
        known: P | None = self.owners[kind].get(object_id)
        return known or directory.find(connection, kind, object_id, lock=lock)

    def member_role(
        self, connection: Connection, kind: type[Principal], object_id: str, user_id: str
    ) -> str | None:
        """Return the user's role in a team or organization, None for a stranger."""
        if object_id in self.owners[kind] and user_id in self.owners[User]:
            return self.roles[kind].get((object_id, user_id))
        return directory.member_role(connection, kind, object_id, user_id)


def around(
    connection: Connection, keys: Sequence[Key], patch: Mapping[str, Any], *, lock: bool = True
) -> Roster:
    """Return the owners of some keys as they are and as *patch* makes them.

    They are locked if asked for, and the budget tier that *patch* names behind them: so all is
    that comes before the keys in keyctl's order.

    Raises:
        BusyError: A team moved to another organization meanwhile.
    """

    def named(name: str) -> set[str]:
        given = patch.get(name)
        return {given} if isinstance(given, str) else set()

    def owners(name: str) -> set[str]:
        return named(name) | {value for key in keys if (value := getattr(key, name)) is not None}

    roster = Roster.of(
        connection,
        team_ids=owners("team_id"),
        user_ids=owners("user_id"),
        organization_ids=owners("organization_id"),
        lock=lock,
    )
    for tier_id in named("budget_id") if lock else ():
        find_tier(connection, tier_id, lock=True)
    return roster
