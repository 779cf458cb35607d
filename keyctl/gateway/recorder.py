"""Write usage every so often, each batch exactly once, and keep what is reserved."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.db.queries import Balance
from keyctl.db.schema import RECORDABLE, RESERVABLE
from keyctl.errors import BusyError, DatabaseError, DatabaseLostError, UnavailableError
from keyctl.gateway.accounts import Account
from keyctl.gateway.books import Batch, Books
from keyctl.gateway.clock import ticks
from keyctl.gateway.leasing import LeaseTerms, take_stock, write_leases
from keyctl.purses import PurseName

log = logging.getLogger("keyctl.gateway")

_UNUSED: Final = timedelta(days=30)
_PRUNE_EVERY: Final = 10_000
_ENDED_AT_ONCE: Final = 100


class Recorder:
    """Writes what the books buffer, from a thread of its own.

    Exactly once, although the answer to a commit may be lost: the number of the batch is written in
    the same transaction, under an id that only this process has.
    """

    def __init__(
        self, database: Database, books: Books, terms: LeaseTerms, *, interval: float
    ) -> None:
        self._database = database
        self._books = books
        self._terms = terms
        self._interval = interval
        self.begin()

    def begin(self) -> None:
        """Begin without a thread; a child process starts its own."""
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_started = False

    def start(self) -> None:
        """Begin to write, unless that has begun."""
        if self._is_started:
            return
        with self._starting:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="keyctl-recorder", daemon=True
                )
                self._thread.start()
            self._is_started = True

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            UnavailableError: The database cannot take it; it stays buffered.
        """
        with self._books.writing:
            # One that could not be written before, and what has come since.
            for _ in range(2):
                batch = self._books.next_batch()
                if batch is None:
                    return
                self.write(batch)

    def write(self, batch: Batch) -> None:
        """Write a batch; the lock of writing is held.

        Raises:
            UnavailableError: The database cannot take it; it stays buffered.
        """
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

    def close(self) -> None:
        """Write what is buffered, and take no more.

        Raises:
            UnavailableError: The database cannot take it; closing again tries again.
        """
        self._books.close()
        with self._starting:
            self._stop.set()
            thread = self._thread
        if thread is not None:
            thread.join()
        self.flush()

    def _write_once(self, batch: Batch) -> None:
        begun = ticks()
        oldest = RESERVABLE if batch.leasing else RECORDABLE
        with self._database.recording(oldest=oldest) as connection:
            self._books.has_begun()
            now = self._database.began_at(connection)
            if batch.number % _PRUNE_EVERY == 1:
                queries.forget_recorders(connection, unused_since=now - _UNUSED)
            usage = batch.usage
            if not self._books.clock.is_set:  # nothing was verified here yet: by names only
                usage = replace(usage, used_at=dict.fromkeys(usage.used_at, now))
            balances = queries.lock_purses(
                connection, batch.purses, now=now, rollover=self._terms.budget_rollover
            )
            is_new = queries.record_usage(
                connection, usage, recorder=self._books.id, batch=batch.number, at=now
            )
            leased: dict[Account, int] = {}
            if batch.leasing:
                spent = usage.spend if is_new else {}
                balances = {
                    name: replace(balance, spend=balance.spend + spent.get(name, 0))
                    for name, balance in balances.items()
                }
                leased = self._lease(connection, batch, balances, now)
        self._books.confirm(batch)
        if batch.leasing:
            with self._books.lock:
                for account, amount in leased.items():
                    self._books.lease(account, amount)
                self._books.keep_until(begun + self._terms.kept)

    def _lease(
        self,
        connection: Connection,
        batch: Batch,
        balances: Mapping[PurseName, Balance],
        now: datetime,
    ) -> dict[Account, int]:
        """Lease what requests under way hold and, far from the limit, what those that follow may need."""
        books, terms = self._books, self._terms
        names = [account.name for account in batch.leasing]
        stocks = take_stock(connection, balances, names=names, books=books, terms=terms, now=now)
        amounts: dict[PurseName, tuple[int, int]] = {}
        leased: dict[Account, int] = {}
        with books.lock:
            for account in batch.leasing:
                # What is in this batch is spent now, and not to be leased any more.
                used = account.committed - batch.sent.get(account, 0)
                stock = stocks.get(account.name)
                amount = used + (stock.spare(account, used) if stock else 0)
                # From now on: what is given back cannot be used while it is being written.
                account.leased = min(account.leased, amount)
                account.asked, account.has_moved = 0, False
                leased[account] = amount
                if stock is not None:
                    amounts[account.name] = (amount, used)
        write_leases(connection, amounts, stocks, books=books)
        queries.keep_leases(connection, books.id, until=now + terms.lease, now=now)
        return leased

    def _run(self, stop: threading.Event) -> None:
        is_failing = False
        lease = self._terms.lease.total_seconds()
        flushed_at = looked_at = ticks()
        while not stop.wait(min(self._interval, lease / 3)):
            try:
                if ticks() >= flushed_at + self._interval:
                    flushed_at = ticks()
                    self.flush()
                if self._books.must_renew(before=ticks() + lease / 2):
                    self._renew()
                if ticks() >= looked_at + lease:
                    looked_at = ticks()
                    self._end_others()
            except UnavailableError as error:
                if not is_failing:
                    log.warning("%s", error)
                is_failing = True
            except Exception:
                log.exception("usage could not be written")
            else:
                is_failing = False

    def _renew(self) -> None:
        """Keep what is leased, although nothing is to be written."""
        books, terms = self._books, self._terms
        with books.writing, self._reserving() as connection:
            begun = ticks()
            now = self._database.began_at(connection)
            queries.keep_leases(connection, books.id, until=now + terms.lease, now=now)
        with books.lock:
            books.keep_until(begun + terms.kept)

    def _end_others(self) -> None:
        """Settle what processes that are gone had reserved."""
        with self._books.writing, self._reserving() as connection:
            now = self._database.began_at(connection)
            queries.forget_leases(connection, unsettled_since=now - _UNUSED)
            over = queries.settle_leases_that_are_over(
                connection, now=now, limit=_ENDED_AT_ONCE, charges=self._terms.charges_unsettled
            )
        for lease in over:
            log.warning("a gateway ended without settling what it had reserved of %s", lease.purse)

    @contextmanager
    def _reserving(self) -> Iterator[Connection]:
        try:
            with self._database.recording(oldest=RESERVABLE) as connection:
                yield connection
        except (DatabaseError, BusyError) as error:
            raise UnavailableError(
                f"reservations cannot be written: {error.message}", hint=error.hint
            ) from error
