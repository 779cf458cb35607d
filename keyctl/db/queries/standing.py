"""Ask how everything stands: how many keys, what ends soon, which budgets are nearly spent."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, literal, or_, select

from keyctl.db.queries.visible import Visible, is_visible
from keyctl.db.tables import keys, organizations, outbox, teams, users

_BUDGETS: Final[tuple[tuple[str, Table, str], ...]] = (
    ("organization", organizations, "id"),
    ("team", teams, "id"),
    ("user", users, "id"),
    ("key", keys, "id"),
)


def state_of(now: datetime) -> ColumnElement[str]:
    """Return the expression for a key's state, as `lifecycle.key_state` tells it of a record."""
    return case(
        (keys.c.deleted_at.is_not(None), "deleted"),
        (keys.c.confirmed_at.is_(None), "pending"),
        (keys.c.blocked, "blocked"),
        (keys.c.expires <= now, "expired"),
        else_="active",
    )


def count_keys(connection: Connection, *, now: datetime) -> dict[str, int]:
    """Return how many keys are in each state."""
    state = state_of(now)
    query = select(state, func.count()).select_from(keys).group_by(state)
    return {row[0]: row[1] for row in connection.execute(query)}


def keys_ending(
    connection: Connection, *, now: datetime, before: datetime, limit: int
) -> list[dict[str, Any]]:
    """Return the live keys that end between *now* and *before*, the soonest first."""
    query = (
        select(keys.c.id.label("key_id"), keys.c.key_alias, keys.c.expires)
        .where(keys.c.deleted_at.is_(None), keys.c.expires > now, keys.c.expires <= before)
        .order_by(keys.c.expires, keys.c.id)
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def budgets_nearly_spent(
    connection: Connection, *, now: datetime, percent: int, limit: int
) -> list[dict[str, Any]]:
    """Return whose budgets are spent to *percent* or more, organizations first; money is nano-dollars.

    A period that is over counts as new.
    """
    found: list[dict[str, Any]] = []
    for kind, table, own_id in _BUDGETS:
        query = (
            select(
                literal(kind).label("object_type"),
                table.c[own_id].label("object_id"),
                table.c.spend,
                table.c.max_budget,
            )
            .where(
                table.c.deleted_at.is_(None),
                table.c.max_budget.is_not(None),
                or_(table.c.budget_duration.is_(None), table.c.budget_reset_at > now),
                # Divided first: 19 digits times a hundred do not fit into 64 bits.
                table.c.spend >= table.c.max_budget // 100 * percent,
            )
            .order_by(table.c.spend.desc(), table.c[own_id])
            .limit(limit)
        )
        found += [dict(row) for row in connection.execute(query).mappings()]
    return found[:limit]


def outbox_standing(connection: Connection) -> list[dict[str, Any]]:
    """Return for each hook how many events wait, and how many of them were tried in vain."""
    query = (
        select(
            outbox.c.hook,
            func.count().label("waiting"),
            func.sum(case((outbox.c.attempts > 0, 1), else_=0)).label("failed"),
        )
        .where(outbox.c.delivered_at.is_(None))
        .group_by(outbox.c.hook)
        .order_by(outbox.c.hook)
    )
    return [
        {"hook": row.hook, "waiting": int(row.waiting), "failed": int(row.failed)}
        for row in connection.execute(query)
    ]


def count_rotations_due(connection: Connection, *, now: datetime) -> int:
    """Return how many live keys `rotate --due` would take up."""
    due = or_(
        keys.c.key_rotation_at <= now,
        and_(keys.c.sink_suspect_at.is_not(None), keys.c.auto_rotate.is_(True)),
    )
    query = select(func.count()).select_from(keys).where(keys.c.deleted_at.is_(None), due)
    return int(connection.execute(query).scalar_one())


def spend_by_key(
    connection: Connection,
    visible: Visible | None,
    *,
    column: str,
    value: str,
    limit: int,
) -> tuple[list[dict[str, Any]], int, int]:
    """Return an owner's live keys, the dearest first, how many there are, and what all spent.

    Only *visible* ones count, None for all.  Money is nano-dollars.
    """
    belongs = [keys.c[column] == value, keys.c.deleted_at.is_(None)]
    if visible is not None:
        belongs.append(is_visible(visible))
    query = (
        select(keys.c.id.label("key_id"), keys.c.key_alias, keys.c.spend, keys.c.max_budget)
        .where(*belongs)
        .order_by(keys.c.spend.desc(), keys.c.id)
        .limit(limit)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    totals = select(func.count(), func.coalesce(func.sum(keys.c.spend), 0)).where(*belongs)
    count, spent = connection.execute(totals).one()
    return found, int(count), int(spent)
