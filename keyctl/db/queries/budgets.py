"""Ask for budget periods and spend."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    func,
    or_,
    select,
    update,
)

from keyctl.db import rows
from keyctl.db.queries.metered import count_meters_due
from keyctl.db.tables import keys, organizations, teams, users
from keyctl.errors import UnreadableRowError
from keyctl.records import Key, Organization, Principal, Team, User

_BUDGETS: dict[type[Key] | type[Principal], Table] = {
    Key: keys,
    Team: teams,
    User: users,
    Organization: organizations,
}


def budgets_due(
    connection: Connection,
    *,
    now: datetime,
    limit: int,
    but: Collection[tuple[str, str]] = (),
) -> list[Key | Principal | UnreadableRowError]:
    """Return budgets whose period is over, locked; rows that another run has are passed over.

    A budget with a period but without a date is due.  In the place of a row that cannot be read
    stands its error; those in *but*, by object type and id, are not asked for again.
    """
    found: list[Key | Principal | UnreadableRowError] = []
    for kind, table in _BUDGETS.items():
        query = (
            select(table)
            .where(
                *_is_over(table, now),
                table.c.id.not_in([name for word, name in but if f"{word}s" == table.name]),
            )
            .limit(limit - len(found))
            .with_for_update(skip_locked=True)
        )
        found += rows.each(connection, query, table, kind.of)
        if len(found) >= limit:
            break
    return found


def count_budgets_due(connection: Connection, *, now: datetime) -> int:
    """Return how many budgets have a period that is over, those with a meter among them."""
    own = sum(
        connection.execute(
            select(func.count()).select_from(table).where(*_is_over(table, now))
        ).scalar_one()
        for table in _BUDGETS.values()
    )
    return own + count_meters_due(connection, now=now)


def add_spend(connection: Connection, record: Key | Principal, amount: int) -> None:
    """Add to what a key or an owner has spent, as it is in the database now."""
    table = _BUDGETS[type(record)]
    connection.execute(
        update(table).where(table.c.id == record.id).values(spend=table.c.spend + amount)
    )


def _is_over(table: Table, now: datetime) -> list[ColumnElement[bool]]:
    return [
        table.c.deleted_at.is_(None),
        table.c.budget_duration.is_not(None),
        or_(table.c.budget_reset_at.is_(None), table.c.budget_reset_at <= now),
    ]
