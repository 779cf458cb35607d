"""Count what a monitoring system watches."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Table, and_, case, exists, func, or_, select

from keyctl.db.queries.reminders import is_overdue
from keyctl.db.queries.standing import state_of
from keyctl.db.tables import claims, keys, organizations, outbox, secrets, teams, users

_BUDGETS: Final[dict[str, Table]] = {
    "key": keys,
    "team": teams,
    "user": users,
    "organization": organizations,
}


@dataclass(frozen=True, slots=True)
class Used:
    """How much of its budget an object has spent, both in nano-dollars."""

    object_type: str
    object_id: str
    spend: int
    max_budget: int


def count_keys(connection: Connection, *, now: datetime) -> dict[tuple[str, str], int]:
    """Return how many keys there are by state and by team.

    A key without a team counts under the empty name.
    """
    state = state_of(now).label("state")
    team = func.coalesce(keys.c.team_id, "").label("team")
    query = select(state, team, func.count()).group_by(state, team)
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def count_expiring(connection: Connection, *, now: datetime, until: datetime) -> int:
    """Return how many live keys expire after *now* and up to *until*."""
    query = (
        select(func.count())
        .select_from(keys)
        .where(
            keys.c.deleted_at.is_(None),
            keys.c.confirmed_at.is_not(None),
            keys.c.expires > now,
            keys.c.expires <= until,
        )
    )
    return connection.execute(query).scalar_one()


def count_overdue(connection: Connection, *, now: datetime) -> int:
    """Return how many keys have a rotation that is due and possible."""
    query = select(func.count()).select_from(keys).where(*is_overdue(now))
    return connection.execute(query).scalar_one()


def count_failed_rotations(connection: Connection, *, now: datetime) -> int:
    """Return how many live keys have a secret that a rotation left behind, or a sink that may be wrong."""
    left = exists().where(
        secrets.c.key_id == keys.c.id,
        secrets.c.state == "staged",
        or_(secrets.c.not_after.is_(None), secrets.c.not_after > now),
    )
    claimed = exists().where(claims.c.key_id == keys.c.id, claims.c.deadline_at > now)
    query = (
        select(func.count())
        .select_from(keys)
        .where(
            keys.c.deleted_at.is_(None),
            keys.c.confirmed_at.is_not(None),
            or_(keys.c.sink_suspect_at.is_not(None), and_(left, ~claimed)),
        )
    )
    return connection.execute(query).scalar_one()


def budgets_used(connection: Connection, *, now: datetime) -> Iterator[Used]:
    """Yield every budget that is more than nothing; a period that is over counts as new."""
    for object_type, table in _BUDGETS.items():
        spend = case((table.c.budget_reset_at <= now, 0), else_=table.c.spend)
        query = (
            select(table.c.id, spend, table.c.max_budget)
            .where(table.c.deleted_at.is_(None), table.c.max_budget > 0)
            .order_by(table.c.id)
        )
        for row in connection.execute(query):
            yield Used(object_type, *row)


def count_outbox(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many events there are by hook and by state: open, failed, delivered."""
    state = case(
        (outbox.c.delivered_at.is_not(None), "delivered"),
        (outbox.c.attempts > 0, "failed"),
        else_="open",
    ).label("state")
    query = select(outbox.c.hook, state, func.count()).group_by(outbox.c.hook, state)
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}
