"""Lock budgets, begin their periods that are over, and charge them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Table,
    bindparam,
    case,
    insert,
    or_,
    select,
    text,
    update,
)

from keyctl import durations
from keyctl.db.queries.purse_rows import among, columns_of, in_chunks
from keyctl.db.tables import keys, meters, organizations, recorders, teams, users
from keyctl.money import MAX_NANO
from keyctl.purses import Meter, PurseName, Terms

# In the order that everybody takes locks in; meters come last.
_OWNERS: Final[Mapping[str, Table]] = {
    table.name: table for table in (organizations, teams, users, keys)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What a locked budget allows, what is spent of it in the period that is now, and when that ends."""

    limit: int | None
    spend: int
    end: datetime | None


def begin_meter(
    connection: Connection, name: PurseName, terms: Terms, *, spend: int, end: datetime | None
) -> None:
    """Create the row of a budget with a meter: what was spent of it in another gateway, and when its period ends."""
    connection.execute(
        insert(meters).values(
            **columns_of(name),
            spend=min(spend, MAX_NANO),
            budget_duration=terms.period,
            budget_anchor_at=terms.anchor,
            budget_reset_at=end,
        )
    )


def lock_purses(
    connection: Connection,
    purses: Mapping[PurseName, Terms | None],
    *,
    now: datetime,
    rollover: bool = False,
) -> dict[PurseName, Balance]:
    """Lock these budgets and return what they hold; those whose owner is gone are left out.

    A period that is over begins anew here: by a compare-and-set on its end.
    """
    found: dict[PurseName, Balance] = {}
    own = sorted(name for name in purses if not name.meter)
    for table_name, table in _OWNERS.items():
        names = [name for name in own if name.table == table_name]
        for chunk in in_chunks(names):
            found.update(_lock_owners(connection, table, chunk, now, rollover))
    metered = sorted(name for name in purses if name.meter)
    for chunk in in_chunks(metered):
        found.update(_lock_meters(connection, chunk, purses, now, rollover))
    return found


def find_meters(
    connection: Connection, names: Collection[PurseName], *, recorder: str | None = None
) -> tuple[dict[PurseName, Meter], int | None]:
    """Return what is spent of these metered budgets, of those that ever were charged.

    And, as of the same instant, the number of the last batch of usage that *recorder* has written.
    """
    found: dict[PurseName, Meter] = {}
    batches: list[int | None] = []
    for chunk in in_chunks(sorted(names)):
        query = select(meters).where(among(meters, chunk))
        if recorder is not None:
            mine = select(recorders.c.batch).where(recorders.c.id == recorder).scalar_subquery()
            query = query.add_columns(mine.label("recorded_batch"))
        for row in connection.execute(query):
            name = PurseName(row.object_table, row.object_id, row.meter)
            found[name] = Meter(
                spend=row.spend,
                budget_duration=row.budget_duration,
                budget_reset_at=row.budget_reset_at,
            )
            if recorder is not None:
                batches.append(row.recorded_batch)
    # The oldest of several: what is not surely in all that was read is told apart by it.
    return found, min((batch for batch in batches if batch is not None), default=None)


def spend_more(connection: Connection, amounts: Mapping[PurseName, int]) -> None:
    """Add to what was spent of budgets that are locked; negative amounts take back.

    Spend stops at zero and at the most that can be counted: a request that was served is no error.
    """
    ordered = sorted(amounts, key=lambda name: (bool(name.meter), name.table))
    for (metered, table_name), names in groupby(
        ordered, key=lambda name: (bool(name.meter), name.table)
    ):
        rows = [
            {
                "row_id": name.object_id,
                "row_meter": name.meter,
                "amount": max(-MAX_NANO, min(amounts[name], MAX_NANO)),
            }
            for name in names
            if amounts[name]
        ]
        if not rows:
            continue
        if metered:
            rows = [{**row, "row_table": table_name} for row in rows]
            connection.execute(_ADD_METERED, rows)
        else:
            connection.execute(_ADD[table_name], rows)


def _lock_owners(
    connection: Connection, table: Table, names: Sequence[PurseName], now: datetime, rollover: bool
) -> dict[PurseName, Balance]:
    ids = [name.object_id for name in names]
    found: dict[PurseName, Balance] = {}
    begun: list[dict[str, Any]] = []
    for row in connection.execute(_LOCK[table.name], {"ids": ids}).all():
        balance = Balance(limit=row.max_budget, spend=row.spend, end=row.budget_reset_at)
        if _is_over(row.budget_duration, row.budget_reset_at, now):
            anchor = row.budget_anchor_at or row.created_at
            balance = _begun(balance, rollover, _next(row.budget_duration, anchor, now))
            begun.append(
                {"row_id": row.id, "now": now, "kept": balance.spend, "following": balance.end}
            )
        found[PurseName(table.name, row.id)] = balance
    if begun:
        connection.execute(_BEGIN[table.name], begun)
    return found


def _lock_meters(
    connection: Connection,
    names: Sequence[PurseName],
    terms: Mapping[PurseName, Terms | None],
    now: datetime,
    rollover: bool,
) -> dict[PurseName, Balance]:
    asked = {"purses": list(map(tuple, names))}
    rows = connection.execute(_LOCK_METERS, asked).all()
    if len(rows) < len(names):
        there = {PurseName(row.object_table, row.object_id, row.meter) for row in rows}
        fresh = [{**columns_of(name), "anchor": now} for name in names if name not in there]
        connection.execute(_NEW_METER, fresh)
        rows = connection.execute(_LOCK_METERS, asked).all()
    found: dict[PurseName, Balance] = {}
    begun: list[dict[str, Any]] = []
    for row in rows:
        name = PurseName(row.object_table, row.object_id, row.meter)
        given = terms[name]
        if given is None:  # who charges it by name only knows no more than the meter does
            given = Terms(limit=None, period=row.budget_duration, anchor=row.budget_anchor_at)
        end = row.budget_reset_at
        balance = Balance(limit=given.limit, spend=row.spend, end=end)
        is_over = _is_over(row.budget_duration, end, now)
        # A period that is set for the first time, or to another length, begins with what is spent.
        if is_over or given.period != row.budget_duration:
            following = _next(given.period, given.anchor, now)
            balance = (
                _begun(balance, rollover, following) if is_over else replace(balance, end=following)
            )
            begun.append(
                {
                    "row_table": name.table,
                    "row_id": name.object_id,
                    "row_meter": name.meter,
                    "now": now,
                    "kept": balance.spend,
                    "following": following,
                    "period": given.period,
                    "anchor": given.anchor,
                }
            )
        found[name] = balance
    if begun:
        connection.execute(_BEGIN_METERED, begun)
    return found


def _is_over(period: str | None, end: datetime | None, now: datetime) -> bool:
    return period is not None and (end is None or end <= now)


def _next(period: str | None, anchor: datetime, now: datetime) -> datetime | None:
    return None if period is None else durations.next_reset(period, anchor=anchor, now=now)


def _begun(balance: Balance, rollover: bool, end: datetime | None) -> Balance:
    kept = balance.spend - balance.limit if rollover and balance.limit is not None else 0
    return replace(balance, spend=max(0, kept), end=end)


def _beginning(table: Table) -> Any:
    """Return the statement that begins a period, where the old one is still over: whoever is second leaves the new one."""
    column = table.c.budget_reset_at
    ended = or_(column.is_(None), column <= bindparam("now", type_=column.type))
    values = {
        "spend": bindparam("kept", type_=table.c.spend.type),
        "budget_reset_at": bindparam("following", type_=column.type),
    }
    if table is not meters:
        return update(table).where(table.c.id == bindparam("row_id"), ended).values(values)
    period = bindparam("period", type_=meters.c.budget_duration.type)
    anchor = bindparam("anchor", type_=meters.c.budget_anchor_at.type)
    return (
        update(meters)
        .where(_IS_OF_ROW, or_(meters.c.budget_duration.is_distinct_from(period), ended))
        .values({**values, "budget_duration": period, "budget_anchor_at": anchor})
    )


def _addition(table: Table) -> Any:
    amount = bindparam("amount", type_=table.c.spend.type)
    # Compared before it is added: SQLite turns an overflow into a float, silently.
    return update(table).values(
        spend=case(
            (table.c.spend > MAX_NANO - amount, MAX_NANO),
            (table.c.spend + amount < 0, 0),
            else_=table.c.spend + amount,
        )
    )


def _locking(table: Table) -> Any:
    query = select(
        table.c.id,
        table.c.max_budget,
        table.c.spend,
        table.c.budget_duration,
        table.c.budget_anchor_at,
        table.c.budget_reset_at,
        table.c.created_at,
    ).where(table.c.id.in_(bindparam("ids", expanding=True)))
    # Not so strongly that new keys of a team, which refer to it, would have to wait.
    return query.order_by(table.c.id).with_for_update(key_share=True)


# Made once: near a budget's limit they run with each request.
_LOCK: Final = {name: _locking(table) for name, table in _OWNERS.items()}
_LOCK_METERS: Final = (
    select(meters)
    .where(among(meters, bindparam("purses", expanding=True)))
    .order_by(meters.c.object_table, meters.c.object_id, meters.c.meter)
    .with_for_update()
)
_ADD: Final = {
    name: _addition(table).where(table.c.id == bindparam("row_id"))
    for name, table in _OWNERS.items()
}
_IS_OF_ROW: Final = (
    (meters.c.object_table == bindparam("row_table"))
    & (meters.c.object_id == bindparam("row_id"))
    & (meters.c.meter == bindparam("row_meter"))
)
_ADD_METERED: Final = _addition(meters).where(_IS_OF_ROW)
_BEGIN: Final = {name: _beginning(table) for name, table in _OWNERS.items()}
_BEGIN_METERED: Final = _beginning(meters)
# Two processes may meet a meter for the first time at once.
_NEW_METER: Final = text(
    "INSERT INTO meters (object_table, object_id, meter, spend, budget_anchor_at)"
    " VALUES (:object_table, :object_id, :meter, 0, :anchor) ON CONFLICT DO NOTHING"
).bindparams(bindparam("anchor", type_=meters.c.budget_anchor_at.type))
