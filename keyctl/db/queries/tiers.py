"""Ask for budget tiers, and for who names them."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from keyctl.db import rows
from keyctl.db.tables import budgets, keys, team_members, users
from keyctl.records import Tier


def find_tier(connection: Connection, tier_id: str, *, lock: bool = False) -> Tier | None:
    """Return the tier with this id, unless it is archived."""
    query = select(budgets).where(budgets.c.id == tier_id, budgets.c.deleted_at.is_(None))
    return rows.one(connection, query.with_for_update() if lock else query, budgets, Tier.of)


def list_tiers(connection: Connection, *, after: str | None, limit: int) -> list[Tier]:
    """Return a page of them by id."""
    query = select(budgets).where(budgets.c.deleted_at.is_(None))
    if after is not None:
        query = query.where(budgets.c.id > after)
    return rows.every(connection, query.order_by(budgets.c.id).limit(limit), budgets, Tier.of)


def tier_ids(connection: Connection) -> list[str]:
    """Return the ids of all tiers that are not archived."""
    query = select(budgets.c.id).where(budgets.c.deleted_at.is_(None)).order_by(budgets.c.id)
    return list(connection.execute(query).scalars())


def managed_tiers(connection: Connection, fleets: Collection[str]) -> list[Tier]:
    """Return the live tiers that files of these fleets described, by id."""
    query = select(budgets).where(budgets.c.managed_by.in_(fleets), budgets.c.deleted_at.is_(None))
    return rows.every(connection, query.order_by(budgets.c.id), budgets, Tier.of)


def write_tier(connection: Connection, tier: Tier) -> None:
    """Write a new tier, in the place of an archived one of that id if there is."""
    columns = tier.columns()
    revived = connection.execute(
        update(budgets)
        .where(budgets.c.id == tier.id, budgets.c.deleted_at.is_not(None))
        .values(**columns)
    )
    if not revived.rowcount:
        connection.execute(insert(budgets), columns)


def change_tier(connection: Connection, tier_id: str, values: Mapping[str, Any]) -> None:
    """Set columns."""
    connection.execute(update(budgets).where(budgets.c.id == tier_id).values(**values))


def holders_of_tier(connection: Connection, tier_id: str, *, limit: int) -> list[str]:
    """Return some of those who name the tier: `key …`, `user …`, `member … of team …`."""
    of_keys = select(keys.c.id).where(keys.c.budget_id == tier_id, keys.c.deleted_at.is_(None))
    of_users = select(users.c.id).where(users.c.budget_id == tier_id, users.c.deleted_at.is_(None))
    of_members = select(team_members.c.user_id, team_members.c.team_id).where(
        team_members.c.budget_id == tier_id
    )
    found = [f"key {row.id}" for row in connection.execute(of_keys.limit(limit))]
    found += [f"user {row.id}" for row in connection.execute(of_users.limit(limit))]
    found += [
        f"member {row.user_id} of team {row.team_id}"
        for row in connection.execute(of_members.limit(limit))
    ]
    return found[:limit]
