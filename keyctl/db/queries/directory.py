"""Ask for organizations, users, teams and their members."""

from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table, delete, insert, or_, select, update

from keyctl.db import rows
from keyctl.db.queries.patterns import matches
from keyctl.db.tables import (
    budgets,
    keys,
    meters,
    organization_members,
    organizations,
    team_members,
    teams,
    users,
)
from keyctl.errors import UnreadableRowError
from keyctl.portions import portions
from keyctl.records import Member, Organization, Principal, Team, User

P = TypeVar("P", bound=Principal)

# A database takes only so many values in one question.
_ASKED: Final = 500
_TABLES: Final[dict[type[Principal], Table]] = {
    Organization: organizations,
    User: users,
    Team: teams,
}


def find(connection: Connection, kind: type[P], object_id: str, *, lock: bool = False) -> P | None:
    """Return the organization, user or team with this id, unless it is archived."""
    table = _TABLES[kind]
    query = select(table).where(table.c.id == object_id, table.c.deleted_at.is_(None))
    return rows.one(connection, query.with_for_update() if lock else query, table, kind.of)


def find_all(
    connection: Connection, kind: type[P], ids: Collection[str], *, lock: bool = False
) -> dict[str, P]:
    """Return those of *ids* that are not archived, by id; locked in that order."""
    table = _TABLES[kind]
    found: dict[str, P] = {}
    for part in portions(sorted(ids), _ASKED):
        query = select(table).where(table.c.id.in_(part), table.c.deleted_at.is_(None))
        query = query.order_by(table.c.id)
        read = rows.every(connection, query.with_for_update() if lock else query, table, kind.of)
        found.update({record.id: record for record in read})
    return found


def managed(connection: Connection, kind: type[P], fleets: Collection[str]) -> list[P]:
    """Return the live ones that files of these fleets described, by id."""
    table = _TABLES[kind]
    query = select(table).where(table.c.managed_by.in_(fleets), table.c.deleted_at.is_(None))
    return list(rows.every(connection, query.order_by(table.c.id), table, kind.of))


def known(connection: Connection, kind: type[Principal], ids: Collection[str]) -> set[str]:
    """Return those of *ids* that exist, archived or not."""
    table = _TABLES[kind]
    return set(connection.execute(select(table.c.id).where(table.c.id.in_(ids))).scalars())


def ids(connection: Connection, kind: type[Principal], *, limit: int) -> list[str]:
    """Return the ids of those that are not archived, at most *limit*."""
    table = _TABLES[kind]
    query = select(table.c.id).where(table.c.deleted_at.is_(None)).order_by(table.c.id)
    return list(connection.execute(query.limit(limit)).scalars())


def matching(connection: Connection, kind: type[P], pattern: str) -> list[P]:
    """Return those that *pattern* fits, archived or not; at most a hundred."""
    table = _TABLES[kind]
    query = select(table).where(matches(table.c.id, pattern)).order_by(table.c.id).limit(100)
    return rows.every(connection, query, table, kind.of)


def listed(
    connection: Connection, kind: type[P], *, after: str | None, limit: int
) -> list[P | UnreadableRowError]:
    """Return a page of them by id, in the place of one that cannot be read its error."""
    table = _TABLES[kind]
    query = select(table).where(table.c.deleted_at.is_(None)).order_by(table.c.id).limit(limit)
    if after is not None:
        query = query.where(table.c.id > after)
    return rows.each(connection, query, table, kind.of)


def create(connection: Connection, record: Principal) -> bool:
    """Write a new one, in the place of an archived one of that id if there is; False if a live one is there."""
    table = _TABLES[type(record)]
    columns = record.columns()
    revived = connection.execute(
        update(table)
        .where(table.c.id == record.id, table.c.deleted_at.is_not(None))
        .values(**columns)
    )
    if revived.rowcount:
        # As with its own spend: what the archived one spent of its windows is not the new one's.
        own = or_(
            meters.c.meter == "tokens:daily",
            *(meters.c.meter.startswith(kind) for kind in ("window:", "model:")),
        )
        mine = (meters.c.object_table == table.name) & (meters.c.object_id == record.id)
        connection.execute(delete(meters).where(mine, own))
        return True
    if find(connection, type(record), record.id) is not None:
        return False
    connection.execute(insert(table), columns)
    return True


def insert_all(connection: Connection, *records: Principal) -> None:
    """Write new ones of one kind."""
    rows = [record.columns() for record in records]
    connection.execute(insert(_TABLES[type(records[0])]), rows)


def change(
    connection: Connection, kind: type[Principal], object_id: str, values: Mapping[str, Any]
) -> None:
    """Set columns."""
    table = _TABLES[kind]
    connection.execute(update(table).where(table.c.id == object_id).values(**values))


def has_live_keys(connection: Connection, **where: str) -> bool:
    """Tell whether a key that is not archived belongs there."""
    query = select(keys.c.id).where(keys.c.deleted_at.is_(None)).limit(1)
    for name, value in where.items():
        query = query.where(keys.c[name] == value)
    return connection.execute(query).first() is not None


def live_keys_of(connection: Connection, column: str, object_id: str) -> set[str]:
    """Return the ids of the keys that are not archived and name this owner in *column*."""
    query = select(keys.c.id).where(keys.c.deleted_at.is_(None), keys.c[column] == object_id)
    return set(connection.execute(query).scalars())


def owners_of_keys(connection: Connection, team_ids: Collection[str], column: str) -> set[str]:
    """Return the owners that live keys of these teams name in *column*."""
    query = select(keys.c[column]).where(
        keys.c.team_id.in_(team_ids), keys.c.deleted_at.is_(None), keys.c[column].is_not(None)
    )
    return set(connection.execute(query.distinct()).scalars())


def fleets(connection: Connection) -> set[str]:
    """Return the names of the fleets that live objects belong to."""
    found: set[str] = set()
    for table in (*_TABLES.values(), budgets, keys):
        query = select(table.c.managed_by).where(
            table.c.managed_by.is_not(None), table.c.deleted_at.is_(None)
        )
        found |= set(connection.execute(query.distinct()).scalars())
    return found


def teams_of(connection: Connection, organization_id: str) -> set[str]:
    """Return the ids of the live teams of an organization."""
    query = select(teams.c.id).where(
        teams.c.organization_id == organization_id, teams.c.deleted_at.is_(None)
    )
    return set(connection.execute(query).scalars())


def has_teams(connection: Connection, organization_id: str) -> bool:
    """Tell whether a live team belongs to the organization."""
    query = select(teams.c.id).where(
        teams.c.organization_id == organization_id, teams.c.deleted_at.is_(None)
    )
    return connection.execute(query.limit(1)).first() is not None


_MEMBERS: Final[dict[type[Principal], tuple[Table, str]]] = {
    Team: (team_members, "team_id"),
    Organization: (organization_members, "organization_id"),
}


def member_role(
    connection: Connection, kind: type[Principal], object_id: str, user_id: str
) -> str | None:
    """Return the user's role in a team or organization, None for a stranger."""
    table, column = _MEMBERS[kind]
    return connection.execute(
        select(table.c.role).where(table.c[column] == object_id, table.c.user_id == user_id)
    ).scalar()


def member_roles(
    connection: Connection,
    kind: type[Principal],
    ids: Collection[str],
    user_ids: Collection[str],
) -> dict[tuple[str, str], str]:
    """Return the roles of these users in these teams or organizations, by both ids."""
    table, column = _MEMBERS[kind]
    query = select(table.c[column], table.c.user_id, table.c.role).where(
        table.c[column].in_(ids), table.c.user_id.in_(user_ids)
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def roles_in(
    connection: Connection, kind: type[Principal], ids: Collection[str]
) -> dict[tuple[str, str], str]:
    """Return the roles of all members of these teams or organizations, by both ids."""
    table, column = _MEMBERS[kind]
    found: dict[tuple[str, str], str] = {}
    for part in portions(sorted(ids), _ASKED):
        query = select(table.c[column], table.c.user_id, table.c.role)
        rows = connection.execute(query.where(table.c[column].in_(part)))
        found.update({(row[0], row[1]): row[2] for row in rows})
    return found


def members(connection: Connection, kind: type[Principal], object_id: str) -> dict[str, str]:
    """Return the members of a team or organization and their roles."""
    table, column = _MEMBERS[kind]
    query = select(table.c.user_id, table.c.role).where(table.c[column] == object_id)
    return {row.user_id: row.role for row in connection.execute(query.order_by(table.c.user_id))}


def memberships(connection: Connection, kind: type[Principal], user_id: str) -> dict[str, str]:
    """Return the teams or organizations a user belongs to, and the role in each."""
    table, column = _MEMBERS[kind]
    query = select(table.c[column], table.c.role).where(table.c.user_id == user_id)
    return {row[0]: row[1] for row in connection.execute(query.order_by(table.c[column]))}


def add_member(
    connection: Connection,
    kind: type[Principal],
    object_id: str,
    user_id: str,
    values: Mapping[str, Any],
) -> None:
    """Make a user a member."""
    table, column = _MEMBERS[kind]
    connection.execute(insert(table), {column: object_id, "user_id": user_id, **values})


def find_member(connection: Connection, team_id: str, user_id: str) -> Member | None:
    """Return the member of a team, with its limits."""
    query = select(team_members).where(
        team_members.c.team_id == team_id, team_members.c.user_id == user_id
    )
    return rows.one(connection, query, team_members, Member.of)


def team_members_of(connection: Connection, team_id: str) -> list[Member]:
    """Return the members of a team with their limits, by user."""
    query = select(team_members).where(team_members.c.team_id == team_id)
    return rows.every(connection, query.order_by(team_members.c.user_id), team_members, Member.of)


def team_members_in(connection: Connection, ids: Collection[str]) -> list[Member]:
    """Return the members of these teams with their limits."""
    found: list[Member] = []
    for part in portions(sorted(ids), _ASKED):
        query = select(team_members).where(team_members.c.team_id.in_(part))
        found += rows.every(connection, query, team_members, Member.of)
    return found


def change_member(connection: Connection, member: Member) -> None:
    """Set the role and the limits of a member."""
    connection.execute(
        update(team_members)
        .where(team_members.c.team_id == member.team_id, team_members.c.user_id == member.user_id)
        .values(
            role=member.role,
            max_budget=member.max_budget,
            budget_duration=member.budget_duration,
            budget_anchor_at=member.budget_anchor_at,
            tpm_limit=member.tpm_limit,
            rpm_limit=member.rpm_limit,
            budget_id=member.budget_id,
        )
    )


def change_role(
    connection: Connection, kind: type[Principal], object_id: str, user_id: str, role: str
) -> None:
    """Give a member another role."""
    table, column = _MEMBERS[kind]
    connection.execute(
        update(table)
        .where(table.c[column] == object_id, table.c.user_id == user_id)
        .values(role=role)
    )


def remove_member(
    connection: Connection, kind: type[Principal], object_id: str, user_id: str | None = None
) -> None:
    """Remove one member, or all of them."""
    table, column = _MEMBERS[kind]
    query = delete(table).where(table.c[column] == object_id)
    connection.execute(query if user_id is None else query.where(table.c.user_id == user_id))


def leave_all(connection: Connection, user_id: str) -> None:
    """End every membership of a user."""
    for table in (team_members, organization_members):
        connection.execute(delete(table).where(table.c.user_id == user_id))
