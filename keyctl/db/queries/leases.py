"""Read and write what each process has reserved of a budget, and settle what ended processes left reserved."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from keyctl.db.queries.purse_rows import among, columns_of, in_chunks, is_of
from keyctl.db.queries.purses import lock_purses, spend_more
from keyctl.db.tables import leases, recorders
from keyctl.money import MAX_NANO
from keyctl.purses import PurseName


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What one process has reserved of one budget, as of a database's clock."""

    purse: PurseName
    recorder: str
    amount: int
    held: int
    is_over: bool
    charged: int | None  # once it ended unsettled


def leases_of(
    connection: Connection, purses: Collection[PurseName], *, now: datetime
) -> dict[PurseName, list[Lease]]:
    """Return what is reserved of each of these locked budgets, and by whom."""
    found: dict[PurseName, list[Lease]] = {}
    for chunk in in_chunks(sorted(purses)):
        for row in connection.execute(_LEASES, {"purses": list(map(tuple, chunk))}):
            lease = _lease(row, now)
            found.setdefault(lease.purse, []).append(lease)
    return found


def leases_that_are_over(connection: Connection, *, now: datetime, limit: int) -> list[PurseName]:
    """Return the budgets of which an ended process still holds a reservation."""
    query = (
        select(leases.c.object_table, leases.c.object_id, leases.c.meter)
        .outerjoin(recorders, recorders.c.id == leases.c.recorder_id)
        .where(
            leases.c.unsettled_at.is_(None),
            or_(recorders.c.leased_until.is_(None), recorders.c.leased_until <= now),
        )
        .distinct()
        .limit(limit)
    )
    return [PurseName(*row) for row in connection.execute(query)]


def settle_leases_that_are_over(
    connection: Connection, *, now: datetime, limit: int, charges: bool
) -> list[Lease]:
    """Charge what ended processes had reserved, or give it back.  Return their leases."""
    names = leases_that_are_over(connection, now=now, limit=limit)
    lock_purses(connection, dict.fromkeys(names), now=now)
    found = leases_of(connection, names, now=now)
    over = [
        lease
        for leases_ in found.values()
        for lease in leases_
        if lease.is_over and lease.charged is None
    ]
    amounts: dict[PurseName, int] = {}
    for lease in over:
        charged = lease.held if charges else 0
        amounts[lease.purse] = amounts.get(lease.purse, 0) + charged
        mark_unsettled(connection, lease, charged=charged, now=now)
    spend_more(connection, amounts)
    return over


def mark_unsettled(connection: Connection, lease: Lease, *, charged: int, now: datetime) -> None:
    """Note that a lease ended without being settled, and what was charged for it."""
    connection.execute(update(leases).where(_is(lease)).values(unsettled_at=now, charged=charged))


def write_leases(
    connection: Connection,
    recorder: str,
    amounts: Mapping[PurseName, tuple[int, int]],
    *,
    there: Collection[PurseName] = (),
) -> None:
    """Set what a process has reserved of locked budgets, and how much of that is in use; nothing is no row.

    *there* are those of which the process has a row.
    """
    gone, changed, fresh = [], [], []
    for name, (amount, held) in amounts.items():
        mine = {"row_table": name.table, "row_id": name.object_id, "row_meter": name.meter}
        values = {"amount": min(amount, MAX_NANO), "held": min(held, MAX_NANO)}
        if not amount and not held:
            if name in there:
                gone.append({**mine, "row_recorder": recorder})
        elif name in there:
            settled = {"unsettled_at": None, "charged": None}
            changed.append({**mine, "row_recorder": recorder, **values, **settled})
        else:
            fresh.append({**columns_of(name), "recorder_id": recorder, **values})
    for statement, rows in ((_END, gone), (_CHANGE, changed), (_BEGIN, fresh)):
        if rows:
            connection.execute(statement, rows)


def keep_leases(connection: Connection, recorder: str, *, until: datetime, now: datetime) -> None:
    """Let a process keep what it has reserved until then."""
    renewed = connection.execute(_KEEP, {"row_id": recorder, "leased_until": until})
    if not renewed.rowcount:
        connection.execute(
            insert(recorders).values(id=recorder, batch=0, flushed_at=now, leased_until=until)
        )


def forget_leases(connection: Connection, *, unsettled_since: datetime) -> None:
    """Remove leases that ended unsettled before then: nobody comes back for them."""
    connection.execute(delete(leases).where(leases.c.unsettled_at < unsettled_since))


def _lease(row: Any, now: datetime) -> Lease:
    return Lease(
        purse=PurseName(row.object_table, row.object_id, row.meter),
        recorder=row.recorder_id,
        amount=row.amount,
        held=row.held,
        # A process without a row is one that was forgotten.
        is_over=row.leased_until is None or row.leased_until <= now,
        charged=None if row.unsettled_at is None else row.charged or 0,
    )


def _is(lease: Lease) -> ColumnElement[bool]:
    return is_of(leases, lease.purse) & (leases.c.recorder_id == lease.recorder)


# Made once: near a budget's limit these run with each request, and making one costs more than the
# database takes to answer it.
_LEASES: Final = (
    select(leases, recorders.c.leased_until)
    .outerjoin(recorders, recorders.c.id == leases.c.recorder_id)
    .where(among(leases, bindparam("purses", expanding=True)))
)
_MINE: Final = (
    (leases.c.object_table == bindparam("row_table"))
    & (leases.c.object_id == bindparam("row_id"))
    & (leases.c.meter == bindparam("row_meter"))
    & (leases.c.recorder_id == bindparam("row_recorder"))
)
_END: Final = delete(leases).where(_MINE)
_CHANGE: Final = update(leases).where(_MINE)
_BEGIN: Final = insert(leases)
_KEEP: Final = update(recorders).where(recorders.c.id == bindparam("row_id"))
