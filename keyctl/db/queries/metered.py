"""Ask what is spent of budgets that are not their owner's only one: a window's, a model's, a member's, a tier's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, or_, select

from keyctl import purses
from keyctl.db import rows
from keyctl.db.tables import budgets, keys, meters, organizations, team_members, teams, users
from keyctl.portions import portions
from keyctl.purses import Budget, Holder
from keyctl.records import ForeignValueError, Key, Member, Organization, Team, Tier, User

_BATCH: Final = 500
_RECORDS: Final[Mapping[str, Any]] = {
    "keys": Key,
    "teams": Team,
    "users": User,
    "organizations": Organization,
}
# Whose row limits, and what of whom that is.
_HOLDERS: Final = (
    (keys, "key"),
    (teams, "team"),
    (users, "user"),
    (organizations, "organization"),
    (team_members, "team"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """A budget of which something is spent in a period that is not over, and whose it is."""

    object_type: str
    object_id: str
    alias: str | None
    budget: Budget


def metered(connection: Connection, *, now: datetime) -> Iterator[Metered]:
    """Yield every budget in dollars that has a meter, of keys, their owners and members that live.

    A period that is over counts as new, and what cannot be read is passed over: `db check` lists it.
    """
    spent = _spent(connection, now)
    tiers = {
        tier.id: tier
        for tier in rows.each(connection, _live(budgets), budgets, Tier.of)
        if isinstance(tier, Tier)
    }
    for table, word in _HOLDERS:
        name = "teams" if table is team_members else table.name
        owners = sorted(owner for kind, owner in spent if kind == name)
        for some in portions(owners, _BATCH):
            for record in _records(connection, table, some):
                for budget in _budgets_of(record, tiers):
                    row = spent.get((name, budget.name.object_id), {}).get(budget.name.meter)
                    if row is None or row.budget_duration != budget.period or not budget.limit:
                        continue
                    yield Metered(
                        object_type=word,
                        object_id=budget.name.object_id,
                        alias=getattr(record, "key_alias", None),
                        budget=replace(budget, spend=row.spend, end=row.budget_reset_at),
                    )


def _spent(connection: Connection, now: datetime) -> dict[tuple[str, str], dict[str, Any]]:
    query = select(meters).where(
        meters.c.spend > 0,
        ~meters.c.meter.startswith("tokens:"),
        or_(meters.c.budget_reset_at.is_(None), meters.c.budget_reset_at > now),
    )
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in connection.execute(query):
        found.setdefault((row.object_table, row.object_id), {})[row.meter] = row
    return found


def _records(connection: Connection, table: Table, owners: list[str]) -> Iterator[Holder]:
    if table is team_members:
        query = select(table).where(table.c.team_id.in_(owners))
        of: Any = Member.of
    else:
        query = _live(table).where(table.c.id.in_(owners))
        of = _RECORDS[table.name].of
    for record in rows.each(connection, query.order_by(*table.primary_key.columns), table, of):
        if isinstance(record, Holder):
            yield record


def _budgets_of(record: Holder, tiers: Mapping[str, Tier]) -> list[Budget]:
    try:
        return list(purses.metered(record, tiers))
    except ForeignValueError:
        return []


def _live(table: Table) -> Any:
    return select(table).where(table.c.deleted_at.is_(None))
