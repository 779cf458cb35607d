"""Record usage: keep it in memory, and write it every so often, each batch exactly once."""

import logging
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import uuid4
from weakref import WeakValueDictionary

from keyctl import money
from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.db.queries import Presented, Usage
from keyctl.errors import (
    BusyError,
    DatabaseError,
    DatabaseLostError,
    InvalidMoneyError,
    UnavailableError,
)
from keyctl.gateway.clock import Clock
from keyctl.gateway.usage import Account, Purse, objects_of

log = logging.getLogger("keyctl.gateway")

_UNUSED: Final = timedelta(days=30)
_PRUNE_EVERY: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What is being written; kept until the database has surely taken it."""

    number: int
    usage: Usage
    accounts: Collection[Account]


class Recorder:
    """Buffers what keys are used for, and writes it from a thread of its own.

    Exactly once, although the answer to a commit may be lost: the number of the batch is written in
    the same transaction, under an id that only this process has.
    """

    def __init__(self, database: Database, clock: Clock, *, interval: float) -> None:
        self._database = database
        self._clock = clock
        self._interval = interval
        self.begin()

    def begin(self) -> None:
        """Begin with nothing recorded, under a new id; what a parent process buffered is the parent's."""
        self._id = uuid4().hex
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Weak: an account lives as long as a cached budget, the buffer, or a batch that may not be
        # in what was just read refers to it.
        self._accounts: WeakValueDictionary[tuple[str, str], Account] = WeakValueDictionary()
        self._unsent: dict[Account, None] = {}
        self._batch: _Batch | None = None
        self._written: _Batch | None = None
        self._sent = 0
        self._confirmed = 0
        self._has_begun = False

    def add(self, charged: Sequence[tuple[str, str]], cost: Decimal | float) -> None:
        """Add *cost* dollars, rounded up to a nano-dollar, to these objects: tables and ids, the key first.

        By name: a verdict from before a fork charges the accounts of the process that it is used in.

        Raises:
            ValueError: It is no amount of money.
            UnavailableError: The recorder is closed.
        """
        nano = _nano(cost)
        now = self._clock.now()
        with self._lock:
            if self._stop.is_set():
                raise UnavailableError("the verifier is closed", hint="record before it is closed")
            for table, name in charged:
                account = self._account(table, name)
                account.add(nano)
                self._unsent[account] = None
            self._account(*charged[0]).used_at = now
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="keyctl-recorder", daemon=True
                )
                self._thread.start()

    def position(self) -> tuple[str | None, int]:
        """Return the id to ask the database for the last batch of, and the last one known to be written.

        None as long as nothing was ever written: the database may be too old to be asked.
        """
        with self._lock:
            return (self._id if self._has_begun else None), self._confirmed

    def purses(
        self, found: Presented, *, asked: tuple[str | None, int], batch: int | None
    ) -> tuple[Purse, ...] | None:
        """Return the budgets of a key and its owners, as read together with the number of the *batch*.

        None if what was read cannot be told from what was written meanwhile: read again.
        """
        asked_for, confirmed = asked
        included = confirmed if batch is None else batch
        with self._lock:
            if asked_for is None and self._has_begun:
                return None
            purses = []
            for table, name, limit, spend in objects_of(found):
                if limit is None:
                    continue
                account = self._account(table, name)
                recorded = account.recorded_until(included)
                if recorded is None:
                    return None
                purses.append(Purse(account, limit=limit, base=spend - recorded))
            return tuple(purses)

    def is_written(self) -> bool:
        """Return whether the database has all that was recorded."""
        with self._lock:
            return self._batch is None and not self._unsent

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            UnavailableError: The database cannot take it; it stays buffered.
        """
        with self._writing:
            # One that could not be written before, and what has come since.
            for _ in range(2):
                batch = self._next()
                if batch is None:
                    return
                self._write(batch)
                with self._lock:
                    self._batch, self._written = None, batch
                    self._confirmed = batch.number

    def close(self) -> None:
        """Write what is buffered, and take no more.

        Raises:
            UnavailableError: The database cannot take it; closing again tries again.
        """
        with self._lock:
            self._stop.set()
            thread = self._thread
        if thread is not None:
            thread.join()
        self.flush()

    def _account(self, table: str, name: str) -> Account:
        account = self._accounts.get((table, name))
        if account is None:
            account = self._accounts[table, name] = Account(table, name)
        return account

    def _next(self) -> _Batch | None:
        with self._lock:
            if self._batch is not None or not self._unsent:
                return self._batch
            self._sent += 1
            spend: dict[str, dict[str, int]] = {}
            used_at: dict[str, datetime] = {}
            for account in self._unsent:
                spend.setdefault(account.table, {})[account.id] = account.send(self._sent)
                if account.used_at is not None:
                    used_at[account.id] = account.used_at
            usage = Usage(spend=spend, used_at=used_at)
            self._batch = _Batch(number=self._sent, usage=usage, accounts=self._unsent)
            self._unsent = {}
            return self._batch

    def _write(self, batch: _Batch) -> None:
        try:
            with suppress(DatabaseLostError):
                self._write_once(batch)
                return
            # The server was restarted, or its answer was lost: a new connection knows which.
            self._write_once(batch)
        except (DatabaseError, BusyError) as error:
            raise UnavailableError(
                f"usage cannot be written, and is kept: {error.message}", hint=error.hint
            ) from error

    def _write_once(self, batch: _Batch) -> None:
        with self._database.recording() as connection:
            with self._lock:
                self._has_begun = True
            now = self._database.now(connection)
            if batch.number % _PRUNE_EVERY == 1:
                queries.forget_recorders(connection, unused_since=now - _UNUSED)
            usage = batch.usage
            if not self._clock.is_set:  # nothing was verified here yet: by names only
                usage = replace(usage, used_at=dict.fromkeys(usage.used_at, now))
            queries.record_usage(connection, usage, recorder=self._id, batch=batch.number, at=now)

    def _run(self, stop: threading.Event) -> None:
        is_failing = False
        while not stop.wait(self._interval):
            try:
                self.flush()
            except UnavailableError as error:
                if not is_failing:
                    log.warning("%s", error)
                is_failing = True
            except Exception:
                log.exception("usage could not be written")
            else:
                is_failing = False


def _nano(cost: Decimal | float) -> int:
    if isinstance(cost, bool) or not isinstance(cost, (int, float, Decimal)):
        raise ValueError("a cost is a number of dollars")  # noqa: TRY004  # one error for all
    try:
        # The shortest text of a float is what was meant: 0.1 is not a bit more than 0.1.
        return money.round_up(Decimal(repr(cost)) if isinstance(cost, float) else Decimal(cost))
    except InvalidMoneyError as error:
        raise ValueError(error.message) from None
