"""Record usage: add what a gateway's batch spent, each batch once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from keyctl.db.queries.purses import spend_more
from keyctl.db.tables import keys, recorders
from keyctl.portions import portions
from keyctl.purses import PurseName

_CHUNK: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One batch: nano-dollars by budget, and when each key was last used."""

    spend: Mapping[PurseName, int]
    used_at: Mapping[str, datetime] = field(default_factory=dict)


def record_usage(
    connection: Connection, usage: Usage, *, recorder: str, batch: int, at: datetime
) -> bool:
    """Add a recorder's batch to what was spent of budgets that are locked; False when that batch is written already."""
    if not _advance(connection, recorder, batch, at):
        return False
    spend_more(connection, usage.spend)
    moments = sorted(usage.used_at.items())
    for some in portions(moments, _CHUNK):
        connection.execute(_USED, [{"row_id": row_id, "moment": moment} for row_id, moment in some])
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
    last = connection.execute(_LAST, {"row_id": recorder}).scalar()
    values = {"batch": batch, "flushed_at": at}
    if last is None:
        connection.execute(insert(recorders), {"id": recorder, **values})
    elif last < batch:
        connection.execute(_NEXT, {"row_id": recorder, **values})
    return last is None or last < batch


_LAST: Final = (
    select(recorders.c.batch).where(recorders.c.id == bindparam("row_id")).with_for_update()
)
_NEXT: Final = update(recorders).where(recorders.c.id == bindparam("row_id"))
_USED: Final = (
    update(keys)
    .where(keys.c.id == bindparam("row_id"))
    .where(
        keys.c.last_used_at.is_(None)
        | (keys.c.last_used_at < bindparam("moment", type_=keys.c.last_used_at.type))
    )
    .values(last_used_at=bindparam("moment", type_=keys.c.last_used_at.type))
)
