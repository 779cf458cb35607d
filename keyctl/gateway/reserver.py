"""Reserve near the limit, where the database decides: one thread asks for all requests that wait."""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.db.schema import RESERVABLE
from keyctl.errors import BusyError, DatabaseError, DatabaseLostError, UnavailableError
from keyctl.gateway.accounts import Account, Amount, Hold, Purse
from keyctl.gateway.books import Books
from keyctl.gateway.clock import ticks
from keyctl.gateway.leasing import LeaseTerms, Stock, take_stock, write_leases
from keyctl.gateway.recorder import Recorder
from keyctl.purses import PurseName

_AT_ONCE: Final = 100
_ROOM: Final = 10_000

# What a request is told: what it holds, or None when a budget has nothing left.
Answer = Future[Hold | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A request that wants to hold an amount of each purse, and waits for its answer."""

    purses: Sequence[Purse]
    amount: Amount
    answer: Answer = field(default_factory=Future)


class Reserver:
    """Grants wishes in the order in which they came, as many as wait in one transaction."""

    def __init__(
        self, database: Database, books: Books, recorder: Recorder, terms: LeaseTerms
    ) -> None:
        self._database = database
        self._books = books
        self._recorder = recorder
        self._terms = terms
        self.begin()

    def begin(self) -> None:
        """Begin without wishes and without a thread; a child process starts its own."""
        self._changed = threading.Condition()
        self._waiting: deque[Wish] = deque()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def ask(self, wish: Wish) -> None:
        """Let a wish wait for its answer.

        Raises:
            UnavailableError: Too many wait already.
        """
        with self._changed:
            if self._is_closed:
                raise UnavailableError("the verifier is closed", hint="reserve before it is closed")
            if len(self._waiting) >= _ROOM:
                raise UnavailableError("too many requests wait for their budget", hint="try again")
            self._waiting.append(wish)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="keyctl-reserver", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Grant nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while wishes := self._next():
            try:
                holds = self._grant(wishes)
            except Exception as error:  # noqa: BLE001  # whatever it is, who waits must hear of it
                for wish in wishes:
                    wish.answer.set_exception(error)
            else:
                for wish, hold in zip(wishes, holds, strict=True):
                    wish.answer.set_result(hold)
        for wish in self._waiting:
            if wish.answer.set_running_or_notify_cancel():
                wish.answer.set_exception(UnavailableError("the verifier is closed"))

    def _next(self) -> list[Wish]:
        """Wait for wishes and return those to be granted together; none when closed."""
        with self._changed:
            while not self._is_closed:
                wishes: list[Wish] = []
                while self._waiting and len(wishes) < _AT_ONCE:
                    wish = self._waiting.popleft()
                    if wish.answer.set_running_or_notify_cancel():
                        wishes.append(wish)
                if wishes:
                    return wishes
                self._changed.wait()
        return []

    def _grant(self, wishes: Sequence[Wish]) -> list[Hold | None]:
        try:
            try:
                return self._grant_once(wishes)
            except DatabaseLostError:
                # A server that was restarted has cut the connections in the pool: try a new one.
                # What the lost commit may have leased is set anew.
                return self._grant_once(wishes)
        except (DatabaseError, BusyError) as error:
            raise UnavailableError(
                f"nothing can be reserved now: {error.message}", hint=error.hint
            ) from error

    def _grant_once(self, wishes: Sequence[Wish]) -> list[Hold | None]:
        books = self._books
        with books.writing:
            if (pending := books.pending) is not None:
                self._recorder.write(pending)  # first known what is spent, then what is left
            begun = ticks()
            kept_until = books.kept_until(least=begun + self._terms.fresh)
            known = [books.hold_known(wish.purses, wish.amount) for wish in wishes]
            holds: list[Hold | None] = [hold for hold, _ in known]
            short = [purses for _, purses in known]
            accounts = {purse.account.name: purse.account for purses in short for purse in purses}
            try:
                leased: dict[Account, int] = {}
                if accounts:
                    with self._database.recording(oldest=RESERVABLE) as connection:
                        books.has_begun()
                        holds, leased = self._decide(connection, wishes, known, accounts)
                        if kept_until is None:
                            self._keep(connection)
            except BaseException:
                for hold, _ in known:
                    books.release(hold)
                raise
            with books.lock:
                for account, amount in leased.items():
                    books.lease(account, amount)
                if leased:
                    # Said again: it may have lapsed while the database was slow.
                    books.keep_until(kept_until or begun + self._terms.kept)
        return holds

    def _decide(
        self,
        connection: Connection,
        wishes: Sequence[Wish],
        known: Sequence[tuple[Hold, Sequence[Purse]]],
        accounts: dict[PurseName, Account],
    ) -> tuple[list[Hold | None], dict[Account, int]]:
        """Hold what is left, in the order of the wishes, and lease it."""
        books, terms = self._books, self._terms
        now = self._database.began_at(connection)
        balances = queries.lock_purses(
            connection,
            {name: account.terms for name, account in accounts.items()},
            now=now,
            rollover=terms.budget_rollover,
        )
        stocks = take_stock(
            connection, balances, names=list(accounts), books=books, terms=terms, now=now
        )
        with books.lock:
            holds = [
                _hold(hold, short, wish.amount, stocks)
                for wish, (hold, short) in zip(wishes, known, strict=True)
            ]
            amounts: dict[PurseName, tuple[int, int]] = {}
            for name, stock in stocks.items():
                account = accounts[name]
                used = account.committed
                amount = max(account.leased, used + stock.spare(account, used))
                amounts[name] = (amount, used)
        write_leases(connection, amounts, stocks, books=books)
        return holds, {accounts[name]: amount for name, (amount, _) in amounts.items()}

    def _keep(self, connection: Connection) -> None:
        now = self._database.began_at(connection)
        queries.keep_leases(connection, self._books.id, until=now + self._terms.lease, now=now)


def _hold(
    hold: Hold, purses: Sequence[Purse], amount: Amount, stocks: dict[PurseName, Stock]
) -> Hold | None:
    """Hold as much of each purse as is left, or nothing of any; the lock of the books is held."""
    for purse in purses:
        stock = stocks.get(purse.account.name)
        # An owner that is gone has nothing left to give.
        left = 0 if stock is None else stock.left(purse.account)
        if left is not None and left <= 0:
            hold.give_back()
            return None
        asked = amount.of(purse.account.name)
        hold.take(purse.account, asked if left is None else min(asked, left))
    return hold
