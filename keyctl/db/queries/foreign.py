"""Look for what somebody wrote past keyctl and nobody can read."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Table, select, tuple_

from keyctl import hashing
from keyctl.db import rows
from keyctl.db.tables import (
    keys,
    organization_members,
    organizations,
    secrets,
    team_members,
    teams,
    users,
)
from keyctl.errors import UnreadableRowError
from keyctl.records import ForeignValueError, Key, Organization, Secret, Team, User

_BATCH: Final = 1000


def _secret(row: Mapping[Any, Any]) -> Secret:
    secret = Secret.of(row)
    if not hashing.is_hash(secret.hash):
        raise ForeignValueError("hash")
    return secret


_READ: Final[tuple[tuple[Table, Callable[[Mapping[Any, Any]], Any]], ...]] = (
    (organizations, Organization.of),
    (teams, Team.of),
    (users, User.of),
    (organization_members, dict),
    (team_members, dict),
    (keys, Key.of),
    (secrets, _secret),
)


def unreadable_rows(connection: Connection) -> Iterator[UnreadableRowError]:
    """Yield an error for each row of the directory, of keys and of secrets that cannot be read."""
    for table, make in _READ:
        after: tuple[Any, ...] | None = None
        own = list(table.primary_key.columns)
        while True:
            query = select(*own).order_by(*own).limit(_BATCH)
            if after is not None:
                query = query.where(tuple_(*own) > tuple_(*after))
            page = [tuple(row) for row in connection.execute(query)]
            if not page:
                break
            whole = select(table).where(tuple_(*own).in_(page))
            found = rows.each(connection, whole, table, make)
            yield from (item for item in found if isinstance(item, UnreadableRowError))
            after = page[-1]


def owners_with_policy(connection: Connection) -> Iterator[Team | Organization]:
    """Yield the live teams and organizations that have a policy and can be read."""
    owners: tuple[tuple[Table, type[Team | Organization]], ...] = (
        (organizations, Organization),
        (teams, Team),
    )
    for table, kind in owners:
        query = select(table).where(table.c.policy.is_not(None), table.c.deleted_at.is_(None))
        for item in rows.each(connection, query.order_by(table.c.id), table, kind.of):
            if isinstance(item, (Team, Organization)):
                yield item
