"""The audit chain: append events to it, walk it, ask for them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from keyctl import jsontext
from keyctl.db.tables import audit_events, audit_head

GENESIS: Final = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one change did: who, what, to which object, and how it looked before and after."""

    actor: str
    changed_by: str | None
    action: str
    object_type: str
    object_id: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The chain's last sequence number and hash."""

    seq: int
    hash: str


def event_hash(row: dict[str, Any]) -> str:
    """Return the SHA-256 over the canonical form of every column of *row* but `hash` itself.

    `before` and `after` go in as the text that is stored, so that nothing which reorders or
    re-reads them can change the sum.
    """
    covered = {name: row[name] for name in audit_events.c.keys() if name != "hash"}  # noqa: SIM118
    return hashlib.sha256(jsontext.canonical(covered).encode()).hexdigest()


def append(connection: Connection, events: Iterable[Event], *, at: datetime) -> list[Head]:
    """Append *events* to the chain and return where each one is; the last is the new head.

    Takes the head row's lock, the last one in keyctl's order: call it right before commit.
    """
    head = lock_head(connection)
    texts = _Texts()
    heads, rows = [], []
    for event in events:
        row: dict[str, Any] = {
            "seq": head.seq + 1,
            "at": at,
            "actor": event.actor,
            "changed_by": event.changed_by,
            "action": event.action,
            "object_type": event.object_type,
            "object_id": event.object_id,
            "before": texts.of(event.before),
            "after": texts.of(event.after),
            "reason": event.reason,
            "prev_hash": head.hash,
        }
        row["hash"] = event_hash(row)
        head = Head(row["seq"], row["hash"])
        heads.append(head)
        rows.append(row)
    connection.execute(insert(audit_events), rows)
    connection.execute(update(audit_head).values(seq=head.seq, hash=head.hash))
    return heads


class _Texts:
    """Canonical texts of documents that many events share, made once for each."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[dict[str, Any], str]] = {}

    def of(self, document: dict[str, Any] | None) -> str | None:
        """Return the canonical form of *document*, by identity: it must not change meanwhile."""
        if document is None:
            return None
        if (known := self._known.get(id(document))) is None:
            # The document is kept, so that no other can get its address.
            known = self._known[id(document)] = document, jsontext.canonical(document)
        return known[1]


def lock_head(connection: Connection) -> Head:
    """Lock and return the head; its row is there since the first migration."""
    row = connection.execute(select(audit_head).with_for_update()).one()
    return Head(row.seq, row.hash)


def find_head(connection: Connection) -> Head:
    """Return the head as it is now; sequence 0 in an empty chain."""
    row = connection.execute(select(audit_head)).one()
    return Head(row.seq, row.hash)


def find_events(
    connection: Connection,
    *,
    key_ids: Sequence[str] | None = None,
    actor: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before_seq: int | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return the newest events first, at most *limit*, older than *before_seq*."""
    table = audit_events
    query = select(table).order_by(table.c.seq.desc()).limit(limit)
    if key_ids is not None:
        query = query.where(table.c.object_type == "key", table.c.object_id.in_(key_ids))
    if actor is not None:
        query = query.where(table.c.actor == actor)
    if action is not None:
        query = query.where(table.c.action == action)
    if since is not None:
        query = query.where(table.c.at >= since)
    if until is not None:
        query = query.where(table.c.at < until)
    if before_seq is not None:
        query = query.where(table.c.seq < before_seq)
    return [dict(row) for row in connection.execute(query).mappings()]


def events_by_seq(connection: Connection, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return the events with these sequence numbers, in order, as dictionaries."""
    query = select(audit_events).where(audit_events.c.seq.in_(numbers)).order_by(audit_events.c.seq)
    return [dict(row) for row in connection.execute(query).mappings()]


def walk(connection: Connection, *, batch: int = 1000) -> Iterator[dict[str, Any]]:
    """Yield every event in order without holding more than *batch* of them."""
    rows = connection.execution_options(yield_per=batch).execute(
        select(audit_events).order_by(audit_events.c.seq)
    )
    for row in rows.mappings():
        yield dict(row)
