"""Ask for the outbox: what is to be sent, who is sending it, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from keyctl import jsontext
from keyctl.db import tolerant
from keyctl.db.tables import audit_events, outbox
from keyctl.portions import portions

Standing = Literal["open", "failed", "delivered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One event on its way to one hook.

    Of a row that somebody has tampered with an instant may be the text that is there instead: it must
    not hold up the others.
    """

    event_id: str
    hook: str
    event: str
    seq: int
    payload: str
    created_at: datetime
    attempts: int = 0
    next_at: datetime
    run_id: str | None = None
    claimed_until: datetime | None = None
    last_error: str | None = None
    delivered_at: datetime | None = None


def insert_outgoing(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put events into the outbox."""
    connection.execute(insert(outbox), list(rows))


def outgoing_due(
    connection: Connection,
    *,
    hooks: Sequence[str],
    now: datetime,
    limit: int,
    only: Sequence[str] | None = None,
) -> list[Outgoing]:
    """Return events for *hooks* that are due and nobody's, the longest due first, locked."""
    query = (
        _selected(connection)
        .where(
            outbox.c.delivered_at.is_(None),
            outbox.c.next_at <= now,
            outbox.c.hook.in_(hooks),
            or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= now),
        )
        .order_by(outbox.c.next_at, outbox.c.seq)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if only is not None:
        query = query.where(outbox.c.event_id.in_(only))
    return _found(connection, query)


def claim_outgoing(
    connection: Connection, rows: Sequence[Outgoing], *, run_id: str, until: datetime
) -> None:
    """Make the run the only one that may send these, until then."""
    connection.execute(
        update(outbox)
        .where(tuple_(outbox.c.event_id, outbox.c.hook).in_(_names(rows)))
        .values(run_id=run_id, claimed_until=until)
    )


def outgoing_runs(connection: Connection, *, now: datetime) -> list[tuple[str, datetime]]:
    """Return the runs that are sending something, and until when at the latest."""
    query = (
        select(outbox.c.run_id, func.max(outbox.c.claimed_until))
        .where(outbox.c.delivered_at.is_(None), outbox.c.claimed_until > now)
        .group_by(outbox.c.run_id)
    )
    return [(row[0], row[1]) for row in connection.execute(query)]


def release_outgoing(
    connection: Connection, run_id: str, rows: Sequence[Outgoing] | None = None
) -> None:
    """End the run's claims on *rows*, by default on all."""
    query = update(outbox).where(outbox.c.run_id == run_id, outbox.c.delivered_at.is_(None))
    if rows is not None:
        query = query.where(tuple_(outbox.c.event_id, outbox.c.hook).in_(_names(rows)))
    connection.execute(query.values(run_id=None, claimed_until=None))


def settle_outgoing(connection: Connection, row: Outgoing, *, run_id: str, **values: Any) -> None:
    """Write what came of the run's attempt; nothing if the claim is somebody else's by now."""
    connection.execute(
        update(outbox)
        .where(_is(row), outbox.c.run_id == run_id, outbox.c.delivered_at.is_(None))
        .values(run_id=None, claimed_until=None, attempts=outbox.c.attempts + 1, **values)
    )


def list_outgoing(
    connection: Connection,
    *,
    standing: Standing,
    hook: str | None = None,
    event_id: str | None = None,
    after: tuple[int, str] | None = None,
    limit: int,
) -> list[Outgoing]:
    """Return what is in the outbox in the order in which it happened, behind *after*."""
    query = _selected(connection).order_by(outbox.c.seq, outbox.c.hook).limit(limit)
    if standing == "delivered":
        query = query.where(outbox.c.delivered_at.is_not(None))
    else:
        query = query.where(outbox.c.delivered_at.is_(None))
    if standing == "failed":
        query = query.where(outbox.c.attempts > 0)
    if hook is not None:
        query = query.where(outbox.c.hook == hook)
    if event_id is not None:
        query = query.where(outbox.c.event_id == event_id)
    if after is not None:
        query = query.where(tuple_(outbox.c.seq, outbox.c.hook) > after)
    return _found(connection, query)


def find_outgoing(connection: Connection, event_id: str, *, lock: bool = False) -> list[Outgoing]:
    """Return an event's rows, one for each hook."""
    query = _selected(connection).where(outbox.c.event_id == event_id).order_by(outbox.c.hook)
    return _found(connection, query.with_for_update() if lock else query)


def hasten_outgoing(
    connection: Connection, *, now: datetime, event_ids: Sequence[str] | None
) -> int:
    """Make failed events due now, all or these; return how many."""
    query = update(outbox).where(outbox.c.delivered_at.is_(None), outbox.c.attempts > 0)
    if event_ids is not None:
        query = query.where(outbox.c.event_id.in_(event_ids))
    return connection.execute(query.values(next_at=now)).rowcount


def delete_outgoing(connection: Connection, row: Outgoing) -> None:
    """Remove one event for one hook."""
    connection.execute(delete(outbox).where(_is(row)))


def forget_delivered(connection: Connection, *, before: datetime) -> None:
    """Remove what was delivered before then."""
    connection.execute(delete(outbox).where(outbox.c.delivered_at < before))


def sinks_of_rotations(
    connection: Connection, key_ids: Sequence[str], *, batch: int = 500
) -> dict[str, set[str]]:
    """Return the sinks that these keys' new secrets were meant for, by key, as the audit trail tells."""
    found: dict[str, set[str]] = {}
    for some in portions(key_ids, batch):
        for key_id, after in connection.execute(_rotations(some)):
            found.setdefault(key_id, set()).add(jsontext.loads(after).get("sink"))
    return found


def sink_of_last_rotation(connection: Connection, key_id: str) -> str | None:
    """Return the sink that a key's newest secret was meant for; None if it was shown."""
    query = _rotations([key_id]).order_by(audit_events.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else jsontext.loads(row.after).get("sink")


def count_outgoing(connection: Connection) -> dict[str, int]:
    """Return how many events wait for each hook."""
    query = (
        select(outbox.c.hook, func.count())
        .where(outbox.c.delivered_at.is_(None))
        .group_by(outbox.c.hook)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _rotations(key_ids: Sequence[str]) -> Select[Any]:
    return select(audit_events.c.object_id, audit_events.c.after).where(
        audit_events.c.object_type == "key",
        audit_events.c.object_id.in_(key_ids),
        audit_events.c.action == "key_rotation_staged",
    )


def _selected(connection: Connection) -> Select[Any]:
    return select(*tolerant.columns(outbox, connection))


def _found(connection: Connection, query: Any) -> list[Outgoing]:
    return [Outgoing(**row) for row in connection.execute(query).mappings()]


def _is(row: Outgoing) -> ColumnElement[bool]:
    return and_(outbox.c.event_id == row.event_id, outbox.c.hook == row.hook)


def _names(rows: Sequence[Outgoing]) -> list[tuple[str, str]]:
    return [(row.event_id, row.hook) for row in rows]
