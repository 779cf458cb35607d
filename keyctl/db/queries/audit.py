"""Append events to the audit chain, walk it, and ask for them."""

import hashlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final, overload

from sqlalchemy import Connection, Result, func, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import jsontext
from keyctl.db import tolerant
from keyctl.db.failures import is_unreadable
from keyctl.db.queries.events import Conditions, conditions
from keyctl.db.tables import audit_events, audit_head
from keyctl.errors import BrokenChainError
from keyctl.portions import portions

_PORTION: Final = 500
_HASH_SIZE: Final = 32
GENESIS: Final = "0" * 64
_ALL: Final = Conditions()
# What `jsontext.canonical` makes of the columns that are hashed, in a third of the time: a chain has
# millions of events.
_COVERED: Final = (
    '{"action":%s,"actor":%s,"after":%s,"at":"%s","before":%s,"changed_by":%s,"object_id":%s,'
    '"object_type":%s,"prev_hash":%s,"reason":%s,"seq":%d}'
)
ADVICE: Final = "compare the database with a backup; keyctl audit export shows what is there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one change did: who, what, to which object, and how it looked before and after.

    `secrets` is what became of a key's secrets.  It is told in the chain only, not to hooks.
    """

    actor: str
    changed_by: str | None
    action: str
    object_type: str
    object_id: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    reason: str | None = None
    secrets: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The chain's last sequence number and hash."""

    seq: int
    hash: str


class Heads(Sequence[Head]):
    """Where successive events are in the chain, in 32 bytes each: they may be very many."""

    __slots__ = ("_hashes", "_next")

    def __init__(self, first: int) -> None:
        self._next = first
        self._hashes = bytearray()

    def add(self, head: Head) -> None:
        """Add the next one."""
        self._next += 1
        self._hashes += bytes.fromhex(head.hash)

    def __len__(self) -> int:
        return len(self._hashes) // _HASH_SIZE

    @overload
    def __getitem__(self, place: int) -> Head: ...

    @overload
    def __getitem__(self, place: slice) -> list[Head]: ...

    def __getitem__(self, place: int | slice) -> Head | list[Head]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        at = number * _HASH_SIZE
        digest = self._hashes[at : at + _HASH_SIZE]
        return Head(self._next - len(self) + number, digest.hex())


def event_hash(row: dict[str, Any]) -> str:
    """Return the SHA-256 over the canonical form of every column of *row* but `hash` itself.

    `before` and `after` go in as the text that is stored, so that nothing which reorders or
    re-reads them can change the sum.
    """
    try:
        text = _canonical(row)
    except TypeError:  # a value of a kind that keyctl never writes
        text = jsontext.canonical(
            {column.name: row[column.name] for column in audit_events.c if column.name != "hash"}
        )
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(row: dict[str, Any]) -> str:
    if type(row["seq"]) is not int or not isinstance(row["at"], datetime):
        raise TypeError
    after, before = row["after"], row["before"]
    changed_by, reason = row["changed_by"], row["reason"]
    return _COVERED % (
        quoted(row["action"]),
        quoted(row["actor"]),
        "null" if after is None else quoted(after),
        jsontext.instant(row["at"]),
        "null" if before is None else quoted(before),
        "null" if changed_by is None else quoted(changed_by),
        quoted(row["object_id"]),
        quoted(row["object_type"]),
        quoted(row["prev_hash"]),
        "null" if reason is None else quoted(reason),
        row["seq"],
    )


def append(connection: Connection, events: Iterable[Event], *, at: datetime) -> Heads:
    """Append *events* to the chain and return where each one is; the last is the new head.

    Takes the head row's lock, the last one in keyctl's order: call it right before commit.

    Raises:
        BrokenChainError: The head is not where the chain ends.
    """
    head = lock_head(connection)
    heads = Heads(head.seq + 1)
    rows: list[dict[str, Any]] = []
    try:
        for some in portions(events, _PORTION):
            if rows:
                connection.execute(insert(audit_events), rows)
            rows = list(_linked(some, head, at=at))
            for row in rows:
                head = Head(row["seq"], row["hash"])
                heads.add(head)
        _write(connection, rows, head)
    except ConstraintError as error:
        raise BrokenChainError(
            "the audit chain is broken: there are events behind its head", hint=ADVICE
        ) from error
    return heads


def _linked(events: Iterable[Event], head: Head, *, at: datetime) -> Iterator[dict[str, Any]]:
    """Yield the rows of *events*, each with the hash of the one before."""
    texts = jsontext.SharedTexts()
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
            "after": texts.of(_after(event)),
            "reason": event.reason,
            "prev_hash": head.hash,
        }
        row["hash"] = event_hash(row)
        head = Head(row["seq"], row["hash"])
        yield row


def _after(event: Event) -> dict[str, Any] | None:
    if event.secrets is None:
        return event.after
    return {**(event.after or {}), "secrets": event.secrets}


def _write(connection: Connection, rows: list[dict[str, Any]], head: Head) -> None:
    moved = update(audit_head).values(seq=head.seq, hash=head.hash)
    if len(rows) == 1 and connection.dialect.name == "postgresql":
        # In one statement: a rotation of many keys is bound by what it asks the server.
        connection.execute(moved.add_cte(insert(audit_events).values(rows[0]).cte("event")))
    else:
        connection.execute(insert(audit_events), rows)
        connection.execute(moved)


def lock_head(connection: Connection) -> Head:
    """Lock and return the head; its row is there since the first migration.

    Raises:
        BrokenChainError: It is not, or not alone.
    """
    return _only_head(connection.execute(select(audit_head).with_for_update()))


def find_head(connection: Connection) -> Head:
    """Return the head as it is now; sequence 0 in an empty chain.

    Raises:
        BrokenChainError: There is not exactly one.
    """
    return _only_head(connection.execute(select(audit_head)))


def _only_head(rows: Result[Any]) -> Head:
    found = [(row.seq, row.hash) for row in rows]
    if [tuple(map(type, head)) for head in found] == [(int, str)]:
        return Head(*found[0])
    raise BrokenChainError("the audit chain is broken: it has no head, or several", hint=ADVICE)


def count_events(connection: Connection, wanted: Conditions = _ALL) -> int:
    """Return how many events there are that *wanted* fits, whatever the head says."""
    query = select(func.count()).select_from(audit_events).where(*conditions(wanted))
    return connection.execute(query).scalar_one()


def find_events(
    connection: Connection,
    wanted: Conditions,
    *,
    before_seq: int | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return the newest events first, at most *limit*, older than *before_seq*.

    What was tampered with is returned as text where keyctl cannot read it.
    """
    table = audit_events
    query = select(*tolerant.columns(table, connection))
    query = query.where(*conditions(wanted))
    query = query.order_by(table.c.seq.desc()).limit(limit)
    if before_seq is not None:
        query = query.where(table.c.seq < before_seq)
    with tolerant.any_text(connection):
        return [tolerant.plain(row) for row in connection.execute(query).mappings()]


def events_by_seq(connection: Connection, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return the events with these sequence numbers, in order, as dictionaries."""
    query = select(audit_events).where(audit_events.c.seq.in_(numbers)).order_by(audit_events.c.seq)
    return [dict(row) for row in connection.execute(query).mappings()]


def export(
    connection: Connection,
    wanted: Conditions,
    *,
    batch: int = 1000,
) -> Generator[dict[str, Any]]:
    """Yield events in order, the oldest first, without holding more than *batch* of them.

    As `find_events`, with what was tampered with.
    """
    query = select(*tolerant.columns(audit_events, connection)).order_by(audit_events.c.seq)
    query = query.where(*conditions(wanted))
    with tolerant.any_text(connection):
        rows = connection.execute(query.execution_options(yield_per=batch))
        for row in rows.mappings():
            yield tolerant.plain(row)


def check_chain(
    connection: Connection,
    *,
    batch: int = 1000,
    heard: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> Generator[Head]:
    """Walk the whole chain and yield where each event is, if it fits; hold *batch* of them at most.

    *heard* gets each event that fits.

    Every event must have the number after the one before, that one's hash, and its own; the head
    must be the last one.  The connection must see one snapshot: others go on writing.

    Raises:
        BrokenLinkError: Something does not fit.  It names the first event that does not.
    """
    last = Head(0, GENESIS)
    # What the driver cannot read loses the whole batch: then one by one, up to that event.
    for size in (batch, 1):
        try:
            for head in _links(connection, last, batch=size, heard=heard):
                yield (last := head)
            break
        except DBAPIError as error:
            if not is_unreadable(error):
                raise
    else:
        raise BrokenLinkError(last.seq + 1, f"event {last.seq + 1} is not what was written")
    heads = [Head(row.seq, row.hash) for row in connection.execute(select(audit_head))]
    if heads != [last]:
        raise BrokenLinkError(
            last.seq + 1, f"the chain ends at event {last.seq}, the head says otherwise"
        )


class BrokenLinkError(Exception):
    """The audit chain does not hold; `seq` is the first event that does not fit."""

    def __init__(self, seq: object, why: str) -> None:
        super().__init__(why)
        self.seq = seq


def _links(
    connection: Connection,
    last: Head,
    *,
    batch: int,
    heard: Callable[[Mapping[str, Any]], None],
) -> Generator[Head]:
    """Yield where each event behind *last* is, as long as they fit."""
    names = audit_events.c.keys()
    query = select(*tolerant.columns(audit_events, connection)).order_by(audit_events.c.seq)
    if last.seq:  # not from the start: there a number below 1 is to be found
        query = query.where(audit_events.c.seq > last.seq)
    with connection.execute(query.execution_options(yield_per=batch)) as rows:
        for values in rows:
            row = dict(zip(names, values, strict=True))
            last = _next_link(row, last)
            heard(row)
            yield last


def _next_link(row: dict[str, Any], last: Head) -> Head:
    seq = row["seq"]
    if seq != last.seq + 1 or not isinstance(seq, int):
        raise BrokenLinkError(
            last.seq + 1, f"event {last.seq + 1} is missing: event {seq!r} is next"
        )
    if row["prev_hash"] != last.hash:
        raise BrokenLinkError(seq, f"event {seq} does not follow the event before it")
    try:
        # A text there can have the form in which an instant is hashed.
        fits = isinstance(row["at"], datetime) and event_hash(row) == row["hash"]
    except (TypeError, ValueError):
        fits = False  # a value of a kind that keyctl never writes
    if not fits:
        raise BrokenLinkError(seq, f"event {seq} is not what was written")
    return Head(seq, row["hash"])


def has_events(connection: Connection, wanted: Conditions) -> bool:
    """Tell whether there is an event that *wanted* fits."""
    query = select(audit_events.c.seq).where(*conditions(wanted)).limit(1)
    return connection.execute(query).first() is not None


def actors(connection: Connection, *, limit: int) -> list[str]:
    """Return who did something that is on record."""
    query = select(audit_events.c.actor).distinct().limit(limit)
    return list(connection.execute(query).scalars())


def removed_members(
    connection: Connection, word: str, object_ids: Collection[str]
) -> set[tuple[str, str]]:
    """Return whose membership of these teams or organizations was ended on record: team and user."""
    query = select(audit_events.c.object_id, audit_events.c.before).where(
        audit_events.c.action == f"{word}_member_removed",
        audit_events.c.object_type == word,
        audit_events.c.object_id.in_(object_ids),
    )
    ended = set()
    for row in connection.execute(query):
        before = jsontext.load_value(row.before or "null", what="before")
        if isinstance(before, dict):
            ended.add((row.object_id, str(before.get("user_id"))))
    return ended


def imported_objects(connection: Connection, word: str, object_ids: Collection[str]) -> set[str]:
    """Return which of these teams, users or organizations came by an import."""
    query = select(audit_events.c.object_id).where(
        audit_events.c.action == f"{word}_imported",
        audit_events.c.object_type == word,
        audit_events.c.object_id.in_(object_ids),
    )
    return set(connection.execute(query).scalars())
