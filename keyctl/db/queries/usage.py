"""Add usage to spend as a gateway records it, each batch once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, case, delete, insert, select, update

from keyctl.db.tables import keys, organizations, recorders, teams, users
from keyctl.money import MAX_NANO

# In the order that everybody takes locks in.
_TABLES: Final[Sequence[Table]] = (organizations, teams, users, keys)
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One batch: nano-dollars by id in each table, and when each key was last used."""

    spend: Mapping[str, Mapping[str, int]]
    used_at: Mapping[str, datetime] = field(default_factory=dict)


def record_usage(
    connection: Connection, usage: Usage, *, recorder: str, batch: int, at: datetime
) -> bool:
    """Add a recorder's batch to what was spent; False when that batch is written already.

    Spend stops at the most that can be counted: a request that was served is no error.
    """
    if not _advance(connection, recorder, batch, at):
        return False
    for table in _TABLES:
        spent = usage.spend.get(table.name, {})
        for ids in _chunks(sorted(spent)):
            _lock(connection, table, ids)
            rows = [{"row_id": row_id, "amount": min(spent[row_id], MAX_NANO)} for row_id in ids]
            connection.execute(_ADD[table.name], rows)
    for ids in _chunks(sorted(usage.used_at)):
        connection.execute(
            _USED, [{"row_id": row_id, "moment": usage.used_at[row_id]} for row_id in ids]
        )
    return True


def forget_recorders(connection: Connection, *, unused_since: datetime) -> None:
    """Remove recorders that wrote nothing since then; rows that others are removing are left to them."""
    old = (
        select(recorders.c.id)
        .where(recorders.c.flushed_at < unused_since)
        .limit(_CHUNK)
        .with_for_update(skip_locked=True)
    )
    connection.execute(delete(recorders).where(recorders.c.id.in_(old)))


def _advance(connection: Connection, recorder: str, batch: int, at: datetime) -> bool:
    """Note that *batch* is the recorder's last one; False when it was already."""
    query = select(recorders.c.batch).where(recorders.c.id == recorder).with_for_update()
    last = connection.execute(query).scalar()
    values = {"batch": batch, "flushed_at": at}
    if last is None:
        connection.execute(insert(recorders).values(id=recorder, **values))
    elif last < batch:
        connection.execute(update(recorders).where(recorders.c.id == recorder).values(**values))
    return last is None or last < batch


def _lock(connection: Connection, table: Table, ids: Sequence[str]) -> None:
    # Not so strongly that new keys of a team, which refer to it, would have to wait.
    query = select(table.c.id).where(table.c.id.in_(ids)).order_by(table.c.id)
    connection.execute(query.with_for_update(key_share=True))


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


def _addition(table: Table) -> Any:
    amount = bindparam("amount", type_=table.c.spend.type)
    # Compared before it is added: SQLite turns an overflow into a float, silently.
    room = table.c.spend <= MAX_NANO - amount
    return (
        update(table)
        .where(table.c.id == bindparam("row_id"))
        .values(spend=case((room, table.c.spend + amount), else_=MAX_NANO))
    )


_ADD: Final = {table.name: _addition(table) for table in _TABLES}
_USED: Final = (
    update(keys)
    .where(keys.c.id == bindparam("row_id"))
    .where(
        keys.c.last_used_at.is_(None)
        | (keys.c.last_used_at < bindparam("moment", type_=keys.c.last_used_at.type))
    )
    .values(last_used_at=bindparam("moment", type_=keys.c.last_used_at.type))
)
