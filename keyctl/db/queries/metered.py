"""Ask what is spent of budgets that are not their owner's only one: a window's, a model's, a member's, a tier's."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, func, or_, select, tuple_

from keyctl import purses
from keyctl.db import rows
from keyctl.db.tables import budgets, keys, meters, organizations, team_members, teams, users
from keyctl.portions import portions
from keyctl.purses import Budget, Holder, PurseName, Terms
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DueMeter:
    """A budget with a meter whose period is over: what is spent of it, and what it allows, if that can be read."""

    object_type: str
    name: PurseName
    spend: int
    terms: Terms | None


def metered(connection: Connection, *, now: datetime) -> Iterator[Metered]:
    """Yield every budget in dollars that has a meter, of keys, their owners and members that live.

    A period that is over counts as new, and what cannot be read is passed over: `db check` lists it.
    """
    spent = _by_owner(
        connection.execute(
            select(meters).where(
                *_DOLLARS,
                or_(meters.c.budget_reset_at.is_(None), meters.c.budget_reset_at > now),
            )
        )
    )
    for word, record, budget in _budgets(connection, spent):
        row = spent[budget.name.table, budget.name.object_id].get(budget.name.meter)
        if row is None or not budget.limit:
            continue
        now_spent = replace(budget, spend=row.spend, end=row.budget_reset_at)
        if not now_spent.is_over(now=now):
            yield Metered(
                object_type=word,
                object_id=budget.name.object_id,
                alias=getattr(record, "key_alias", None),
                budget=now_spent,
            )


def meters_due(
    connection: Connection, *, now: datetime, after: PurseName | None, limit: int
) -> list[DueMeter]:
    """Return meters of budgets in dollars whose period is over, locked, by their names from *after* on.

    What another run has is passed over.
    """
    named = tuple_(*meters.primary_key.columns)
    query = (
        select(meters)
        .where(*_is_due(now), *(() if after is None else (named > tuple(after),)))
        .order_by(*meters.primary_key.columns)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    spent = _by_owner(connection.execute(query))
    terms = {budget.name: budget.terms for _, _, budget in _budgets(connection, spent)}
    names = (PurseName(*owner, meter) for owner, found in spent.items() for meter in found)
    words = {table.name: word for table, word in _HOLDERS}
    return [
        DueMeter(
            object_type=words[name.table],
            name=name,
            spend=spent[name.table, name.object_id][name.meter].spend,
            terms=terms.get(name),
        )
        for name in names
    ]


def count_meters_due(connection: Connection, *, now: datetime) -> int:
    """Return how many `meters_due` would find without a limit."""
    query = select(func.count()).select_from(meters).where(*_is_due(now))
    return int(connection.execute(query).scalar_one())


def meters_of_tier(connection: Connection, meter: str) -> list[PurseName]:
    """Return the names of all meters that are called *meter*, or end with it behind a member's."""
    query = select(meters.c.object_table, meters.c.object_id, meters.c.meter).where(
        or_(meters.c.meter == meter, meters.c.meter.endswith(f"/{meter}", autoescape=True))
    )
    return [PurseName(*row) for row in connection.execute(query)]


_DOLLARS: Final = (meters.c.spend > 0, ~meters.c.meter.startswith("tokens:"))


def _is_due(now: datetime) -> list[ColumnElement[bool]]:
    """Return the conditions that a meter's period is over, and its owner lives."""
    lives = [
        and_(
            meters.c.object_table == table.name,
            select(table.c.id)
            .where(table.c.id == meters.c.object_id, table.c.deleted_at.is_(None))
            .exists(),
        )
        for table in (keys, teams, users, organizations)
    ]
    return [
        *_DOLLARS,
        meters.c.budget_duration.is_not(None),
        meters.c.budget_reset_at <= now,
        or_(*lives),
    ]


def _by_owner(found: Iterable[Row[Any]]) -> dict[tuple[str, str], dict[str, Row[Any]]]:
    """Return rows of meters by the table and id of their owner, and by the meter's name."""
    spent: dict[tuple[str, str], dict[str, Row[Any]]] = {}
    for row in found:
        spent.setdefault((row.object_table, row.object_id), {})[row.meter] = row
    return spent


def _budgets(
    connection: Connection, owners: Collection[tuple[str, str]]
) -> Iterator[tuple[str, Holder, Budget]]:
    """Yield each budget with a meter of these owners, and of a team's members, with whose it is."""
    tiers = {
        tier.id: tier
        for tier in rows.each(connection, _live(budgets), budgets, Tier.of)
        if isinstance(tier, Tier)
    }
    for table, word in _HOLDERS:
        name = "teams" if table is team_members else table.name
        ids = sorted(owner for kind, owner in owners if kind == name)
        for some in portions(ids, _BATCH):
            for record in _records(connection, table, some):
                for budget in _budgets_of(record, tiers):
                    yield word, record, budget


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
