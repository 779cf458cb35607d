"""Ask what is spent of budgets that are not their owner's only one: a window's, a model's, a member's, a tier's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, or_, select

from keyctl import purses
from keyctl.db import rows
from keyctl.db.tables import budgets, keys, meters, team_members, teams, users
from keyctl.portions import portions
from keyctl.purses import Budget
from keyctl.records import ForeignValueError, Key, Member, Team, Tier, User

_BATCH: Final = 500
_Holder = Key | Team | User | Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """A budget of which something is spent in a period that is not over, and whose it is."""

    object_type: str
    object_id: str
    alias: str | None
    budget: Budget


def metered(connection: Connection, *, now: datetime) -> Iterator[Metered]:
    """Yield every budget in dollars that has a meter, of keys, teams, users and members that live.

    A period that is over counts as new, and what cannot be read is passed over: `db check` lists it.
    """
    spent = _spent(connection, now)
    tiers = {
        tier.id: tier
        for tier in rows.each(connection, _live(budgets), budgets, Tier.of)
        if isinstance(tier, Tier)
    }
    for table, word in ((keys, "key"), (teams, "team"), (users, "user"), (team_members, "team")):
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


def _records(connection: Connection, table: Table, owners: list[str]) -> Iterator[_Holder]:
    if table is team_members:
        query = select(table).where(table.c.team_id.in_(owners))
        of: Any = Member.of
    else:
        query = _live(table).where(table.c.id.in_(owners))
        of = {"keys": Key.of, "teams": Team.of, "users": User.of}[table.name]
    for record in rows.each(connection, query.order_by(*table.primary_key.columns), table, of):
        if isinstance(record, _Holder):
            yield record


def _budgets_of(record: _Holder, tiers: Mapping[str, Tier]) -> list[Budget]:
    try:
        return list(purses.metered(record, tiers))
    except ForeignValueError:
        return []


def _live(table: Table) -> Any:
    return select(table).where(table.c.deleted_at.is_(None))
