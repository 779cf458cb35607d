"""The audit chain: nobody changes what is on record unseen."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from clock import Clock
from sqlalchemy import Connection, delete, insert, select, text, update

from keyctl import jsontext
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.audit import GENESIS, Event, Head
from keyctl.db.queries.events import Conditions
from keyctl.db.tables import audit_events, audit_head
from keyctl.errors import BrokenChainError
from keyctl.services.audit import AuditService
from keyctl.services.workspace import Workspace

EVENTS = 1000
COLUMNS = [column.name for column in audit_events.c]
# What each column is changed to: something of its kind, and for text also nothing or something.
CHANGES: dict[str, list[Any]] = {
    "seq": [5000],
    "at": [
        "2031-01-01 00:00:00.000001",
        "2030-01-31 12:00:00.000000+09:00",
        "2030-01-31 12:00:00 BC",
        "20000-01-01 00:00:00",
        "infinity",
        "-infinity",
    ],
    "actor": ["local:mallory@host", ""],
    "changed_by": ["mallory", None, ""],
    "action": ["key_updated"],
    "object_type": ["team"],
    "object_id": ["key_another"],
    "before": ['{"max_budget":"1"}', None, ""],
    "after": ['{"max_budget":"1"}', None, ""],
    "reason": ["because", None, ""],
    "prev_hash": ["f" * 64],
    "hash": ["f" * 64],
}
# Other texts that read as the instant of the events in these tests.
SAME_INSTANT = (
    "2030-01-31T12:00:00.000000",
    "2030-01-31T12:00:00.000000Z",
    "2030-01-31 12:00:00.000000+00:00",
    "2030-01-31 12:00:00",
    "20300131T120000",
)


@pytest.fixture(name="log")
def _log(workspace: Workspace, clock: Clock) -> Database:
    """A chain of a thousand events with every column filled or empty."""
    database = workspace.database
    events = [
        Event(
            actor="local:tester@host",
            changed_by="alice" if number % 2 else None,
            action="key_generated",
            object_type="key",
            object_id=f"key_{number}",
            before={"number": number} if number % 3 else None,
            after={"number": number + 1} if number % 5 else None,
            reason="why" if number % 7 else None,
        )
        for number in range(1, EVENTS + 1)
    ]
    with database.write() as connection:
        audit.append(connection, events, at=clock.now)
    return database


def service(workspace: Workspace) -> AuditService:
    """Return what reads the trail."""
    return AuditService(workspace)


def verified(workspace: Workspace, expected: Head | None = None) -> Head:
    """Return the head of a chain that holds."""
    return service(workspace).verify(expected=expected, step=lambda: None)


def broken(workspace: Workspace, expected: Head | None = None) -> str:
    """Return what is said of a chain that does not hold."""
    with pytest.raises(BrokenChainError) as caught:
        verified(workspace, expected)
    return caught.value.message


def tampered(workspace: Workspace, change: Callable[[Connection], object]) -> str:
    """Change the log behind keyctl's back, return what verify says, and take the change back."""
    database = workspace.database
    with database.engine.connect() as connection, connection.begin() as transaction:
        change(connection)
        said = chain_says(connection)
        transaction.rollback()
    return said


def chain_says(connection: Connection) -> str:
    """Return why the chain that *connection* sees does not hold, "" if it does."""
    try:
        for _ in audit.check_chain(connection):
            pass
    except audit.BrokenLinkError as error:
        return str(error)
    return ""


class TestMutations:
    def test_an_untouched_log_holds(self, workspace: Workspace, log: Database) -> None:
        """A thousand events verify, and the head is the last of them."""
        head = verified(workspace)

        with log.read() as connection:
            assert head == audit.find_head(connection) == Head(EVENTS, head.hash)

    def test_every_change_of_a_field_is_found(self, workspace: Workspace, log: Database) -> None:
        """Each column of the first, a middle and the last event is changed in turn; each is named."""
        missed = []
        for seq in (1, 2, 500, 501, EVENTS):
            for name in COLUMNS:
                for value in CHANGES[name]:
                    said = tampered(workspace, changing(seq, name, value))
                    if f"event {seq}" not in said and not is_no_change(log, seq, name, value):
                        missed.append((seq, name, value, said))

        assert missed == []

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_an_instant_kept_as_text_has_one_form(
        self, workspace: Workspace, log: Database
    ) -> None:
        """Where the database takes any text, no other one that means the same instant passes."""
        assert log.is_sqlite
        for form in SAME_INSTANT:
            said = tampered(workspace, changing(500, "at", form))
            assert said == "event 500 is not what was written", form

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_bytes_that_are_no_text_are_found(self, workspace: Workspace, log: Database) -> None:
        """What the driver cannot read is named as well, wherever in a batch it is."""
        assert log.is_sqlite
        for seq in (1, 500, EVENTS):
            statement = f"UPDATE audit_events SET actor = CAST(x'ff' AS TEXT) WHERE seq = {seq}"
            said = tampered(workspace, running(statement))
            assert said == f"event {seq} is not what was written"

    def test_every_deletion_is_found(self, workspace: Workspace, log: Database) -> None:
        """Whichever event is deleted, it is the first that does not fit; the last is missed by the head."""
        for seq in (1, 2, 499, 500, EVENTS - 1):
            said = tampered(workspace, partial(remove, seq=seq))
            assert said == f"event {seq} is missing: event {seq + 1} is next"
        said = tampered(workspace, partial(remove, seq=EVENTS))
        assert said == f"the chain ends at event {EVENTS - 1}, the head says otherwise"

    def test_every_swap_is_found(self, workspace: Workspace, log: Database) -> None:
        """Two events that change places are found at the first of them."""
        for first, second in ((1, 2), (1, EVENTS), (500, 501), (EVENTS - 1, EVENTS)):
            said = tampered(workspace, partial(swap, first=first, second=second))
            assert said == f"event {first} does not follow the event before it"

    def test_every_insertion_is_found(self, workspace: Workspace, log: Database) -> None:
        """An event put in between or behind is found, whatever it claims to follow."""
        for after in (0, 1, 500, EVENTS - 1):
            said = tampered(workspace, partial(squeeze_in, after=after))
            # The one put in may fit what is before it; what is behind it does not fit any more.
            assert said == f"event {after + 2} does not follow the event before it"
        said = tampered(workspace, partial(squeeze_in, after=EVENTS))
        assert said == f"the chain ends at event {EVENTS + 1}, the head says otherwise"

    def test_every_truncation_is_found(self, workspace: Workspace, log: Database) -> None:
        """Whatever is cut off at the end, the head tells; cutting everything, too."""
        for left in (EVENTS - 1, 500, 1, 0):
            said = tampered(workspace, partial(cut, seq=left))
            assert said == f"the chain ends at event {left}, the head says otherwise"

    def test_a_missing_head_is_found(self, workspace: Workspace, log: Database) -> None:
        """Without its head the chain does not hold."""
        assert "the head says otherwise" in tampered(
            workspace, lambda c: c.execute(delete(audit_head))
        )


class TestKeptHeads:
    def test_a_truncated_tail_with_a_rewritten_head_is_found(
        self, workspace: Workspace, log: Database
    ) -> None:
        """Who cuts the end off and moves the head is caught by a head that was kept elsewhere."""
        kept = verified(workspace)
        cut_at(log, EVENTS - 10)

        assert verified(workspace).seq == EVENTS - 10
        assert broken(workspace, kept) == (
            f"the audit chain ends at event {EVENTS - 10}: event {EVENTS} is missing"
        )

    def test_a_chain_that_was_computed_anew_is_found(
        self, workspace: Workspace, log: Database, clock: Clock
    ) -> None:
        """Who replaces the tail by events that fit is caught by a head from the middle of it."""
        kept = verified(workspace)
        cut_at(log, EVENTS - 10)
        other = Event(
            actor="local:mallory@host",
            changed_by=None,
            action="key_deleted",
            object_type="key",
            object_id="key_1",
        )
        with log.write() as connection:
            audit.append(connection, [other] * 10, at=clock.now)

        assert verified(workspace).seq == EVENTS
        assert broken(workspace, kept) == (
            f"event {EVENTS} has another hash than the head that was kept"
        )

    def test_an_older_head_that_was_kept_still_fits(
        self, workspace: Workspace, log: Database, clock: Clock
    ) -> None:
        """Events that came later do not hurt."""
        kept = verified(workspace)
        with log.write() as connection:
            audit.append(
                connection,
                [replace(_some_event(), object_id=str(number)) for number in range(5)],
                at=clock.now + timedelta(seconds=1),
            )

        assert verified(workspace, kept).seq == EVENTS + 5


def changing(seq: int, name: str, value: Any) -> Callable[[Connection], object]:
    """Return what sets one column of one event, past every type that keyctl's own tables have."""
    statement = text(f"UPDATE audit_events SET {name} = :value WHERE seq = :seq")
    return lambda connection: connection.execute(statement, {"value": value, "seq": seq})


def running(statement: str) -> Callable[[Connection], object]:
    """Return what runs one statement."""
    return lambda connection: connection.execute(text(statement))


def test_an_event_is_hashed_over_its_canonical_form(log: Database) -> None:
    """What the quick form says of strings, numbers, instants and nothing is what the slow one says."""
    with log.read() as connection:
        rows = [dict(row) for row in connection.execute(select(audit_events)).mappings()]
    odd = [
        {**rows[0], "actor": '"\\\u2028é\x7f\n%s', "reason": "{}", "before": "", "after": None},
        {**rows[0], "seq": "7", "object_id": True},
    ]

    for row in [*rows[:3], *odd]:
        covered = {name: value for name, value in row.items() if name != "hash"}
        expected = hashlib.sha256(jsontext.canonical(covered).encode()).hexdigest()
        assert audit.event_hash(row) == expected


def is_no_change(log: Database, seq: int, name: str, value: Any) -> bool:
    """Tell whether the column holds *value* already."""
    with log.read() as connection:
        query = text(f"SELECT {name} FROM audit_events WHERE seq = :seq")
        return bool(connection.execute(query, {"seq": seq}).scalar_one() == value)


def remove(connection: Connection, seq: int) -> None:
    """Delete one event."""
    connection.execute(delete(audit_events).where(audit_events.c.seq == seq))


def cut(connection: Connection, seq: int) -> None:
    """Delete every event behind number *seq*."""
    connection.execute(delete(audit_events).where(audit_events.c.seq > seq))


def swap(connection: Connection, first: int, second: int) -> None:
    """Let two events change their numbers."""
    for old, new in ((first, -1), (second, first), (-1, second)):
        connection.execute(update(audit_events).where(audit_events.c.seq == old).values(seq=new))


def squeeze_in(connection: Connection, after: int) -> None:
    """Put a copy of an event behind number *after* and renumber what follows."""
    row = dict(connection.execute(select(audit_events).limit(1)).mappings().one())
    connection.execute(
        text("UPDATE audit_events SET seq = -(seq + 1) WHERE seq > :after"), {"after": after}
    )
    connection.execute(text("UPDATE audit_events SET seq = -seq WHERE seq < 0"))
    previous = connection.execute(
        select(audit_events.c.hash).where(audit_events.c.seq == after)
    ).scalar()
    row.update(seq=after + 1, prev_hash=previous or GENESIS)
    row["hash"] = audit.event_hash(row)
    connection.execute(insert(audit_events), row)


def cut_at(log: Database, seq: int) -> None:
    """Cut the chain off behind an event and move the head there, as somebody with SQL can."""
    with log.engine.begin() as connection:
        cut(connection, seq)
        last = select(audit_events.c.hash).where(audit_events.c.seq == seq).scalar_subquery()
        connection.execute(update(audit_head).values(seq=seq, hash=last))


def _some_event() -> Event:
    return Event(
        actor="local:tester@host",
        changed_by=None,
        action="key_blocked",
        object_type="key",
        object_id="key_1",
    )


def test_an_export_leaves_the_connection_as_it_was(workspace: Workspace) -> None:
    """Only its own statement streams: what is asked on the same connection afterwards does not."""
    with workspace.database.read() as connection:
        before = dict(connection.get_execution_options())
        list(audit.export(connection, Conditions()))

        assert dict(connection.get_execution_options()) == before
