"""Confirm a delivered key: retry through an outage, read it back, hold off signals.

Staged is written but not known to be delivered; nothing is active before the sink has it.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Head
from keyctl.errors import (
    BusyError,
    CorruptedError,
    DatabaseError,
    SchemaError,
    UnconfirmedError,
)
from keyctl.records import Secret
from keyctl.services.delivery.run_lock import Run

RETRY_SECONDS: Final = 10.0
_PAUSE: Final = 0.2
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a committed unit put on record, to be read back: secrets, and events by number."""

    secrets: Sequence[Secret] = ()
    events: Sequence[Head] = ()


def persist(step: Callable[[], T], *, delivered: str, left: str = "not confirmed") -> T:
    """Run the confirming *step*, again and again for ten seconds while the database is away.

    Raises:
        UnconfirmedError: It stayed away; *delivered* says what is where, *left* what is undone.
    """
    end = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            return step()
        except SchemaError:
            raise
        except (DatabaseError, BusyError) as error:
            if time.monotonic() >= end:
                raise UnconfirmedError(
                    f"{delivered}, but {left}: {error.message}",
                    hint="run the same command again",
                ) from error
            time.sleep(_PAUSE)


def check_written(database: Database, written: Sequence[Written]) -> None:
    """Read back on a new connection what was committed, and compare it.

    What others may have changed meanwhile (spend, limits, a later rotation) is not compared.

    Raises:
        CorruptedError: Something is not what was written.
        DatabaseError: The database cannot be asked.
    """
    events = [event for item in written for event in item.events]
    secrets = [secret for item in written for secret in item.secrets]
    with database.read(fresh=True) as connection:
        present = queries.secrets_by_id(connection, [secret.id for secret in secrets])
        for wanted in secrets:
            found = present.get(wanted.id)
            if (
                found is None
                or (found.key_id, found.lookup, found.hash)
                != (wanted.key_id, wanted.lookup, wanted.hash)
                or found.state == "staged"
            ):
                raise CorruptedError(
                    f"secret {wanted.id} of key {wanted.key_id} is not stored as it was written",
                    hint="do not use it; check the database, then rotate the key",
                )
        stored = audit.events_by_seq(connection, [event.seq for event in events])
    hashes = {row["seq"]: row["hash"] for row in stored if row["hash"] == audit.event_hash(row)}
    for event in events:
        if hashes.get(event.seq) != event.hash:
            raise CorruptedError(
                f"audit event {event.seq} is not stored as it was written",
                hint="somebody else writes to this database; keyctl audit list shows what is there",
            )


def was_confirmed(secret: Secret | None, run: Run) -> bool:
    """Tell whether an earlier try of *run* confirmed the secret that it staged.

    A retiring one may also have been abandoned, and retired by its successor, whose it is then.
    """
    if secret is None:
        return False
    return secret.state == "active" or (secret.state == "retiring" and secret.run_id == run.id)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put SIGINT and SIGTERM off in the block: a delivered key is to be confirmed.

    After it, who asked to be told of one is; where it would only end the process it is dropped,
    because what the process was begun for is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _frame: caught.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
            if number in caught and callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)
