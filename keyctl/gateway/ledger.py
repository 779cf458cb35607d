"""Charge and reserve for requests: from memory while a budget is far from spent, else by asking the database."""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from keyctl.db.database import Database
from keyctl.errors import UnavailableError
from keyctl.gateway.accounts import Amount, Hold, Purse
from keyctl.gateway.books import Books, Charged
from keyctl.gateway.clock import Clock
from keyctl.gateway.leasing import LeaseTerms
from keyctl.gateway.rates import Rate, Rates, for_model
from keyctl.gateway.recorder import Recorder
from keyctl.gateway.reserver import Answer, Reserver, Wish
from keyctl.gateway.waiting import until_done
from keyctl.purses import is_of_model
from keyctl.services.spent import Spent, spent


class Ledger:
    """What requests are charged to: the books in memory, and the two threads that write them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        terms: LeaseTerms,
        *,
        interval: float,
        timeout: float,
    ) -> None:
        self.books = Books(clock)
        self.rates = Rates()
        self.recorder = Recorder(database, self.books, terms, interval=interval)
        self.timeout = timeout
        self._reserver = Reserver(database, self.books, self.recorder, terms)

    def begin(self) -> None:
        """Begin anew in a child process."""
        self.books.begin()
        self.rates.begin()
        self.recorder.begin()
        self._reserver.begin()

    def close(self) -> None:
        """Write what is recorded, and take nothing more.

        Raises:
            UnavailableError: The database cannot take it; closing again tries again.
        """
        self._reserver.close()
        self.recorder.close()

    def charge(self, charged: Iterable[Charged], cost: Amount, hold: Hold | None = None) -> None:
        """Add *cost* to what these objects have spent, and settle *hold*.

        Raises:
            UnavailableError: The verifier is closed.
        """
        self.books.add(charged, cost, hold)
        self.recorder.start()

    def hold(self, purses: Sequence[Purse], amount: Amount) -> Hold | Answer:
        """Return what a request holds of these budgets, or what will hold it once the database has decided.

        Raises:
            UnavailableError: Nobody can decide it.
        """
        purses = [purse for purse in purses if amount.of(purse.account.name)]
        if not purses:
            return Hold(self.books.id)
        hold, short = self.books.try_hold(purses, amount)
        if short:
            wish = Wish(purses=purses, amount=amount)
            self._reserver.ask(wish)
            return wish.answer
        self.recorder.start()
        return hold

    def wait(self, answer: Answer) -> Hold | None:
        """Wait for the database's decision: None when a budget has nothing left.

        Raises:
            UnavailableError: It cannot be had, or takes longer than a request has.
        """
        with suppress(TimeoutError, CancelledError):
            answer.exception(self.timeout)
        return self._concluded(answer)

    async def wait_on_loop(self, answer: Answer) -> Hold | None:
        """Do what `wait` does, on an event loop; who is cancelled meanwhile holds nothing.

        Raises:
            UnavailableError: It cannot be had, or takes longer than a request has.
        """
        try:
            await until_done(answer, self.timeout)
        except asyncio.CancelledError:
            self._abandon(answer)
            raise
        return self._concluded(answer)

    def _concluded(self, answer: Answer) -> Hold | None:
        if not answer.done():
            self._abandon(answer)
            raise UnavailableError("nothing could be reserved in time", hint="try again")
        self.recorder.start()
        return answer.result()

    def _abandon(self, answer: Answer) -> None:
        """Give back what is granted to a request that waits no more."""
        if not answer.cancel():
            answer.add_done_callback(self._give_back)

    def _give_back(self, answer: Answer) -> None:
        if answer.exception() is None and (hold := answer.result()) is not None:
            self.books.release(hold)


@dataclass(frozen=True, slots=True)
class Tab:
    """What requests with one key are charged to, and which budgets and rates they keep within."""

    ledger: Ledger
    charged: tuple[Charged, ...]
    purses: tuple[Purse, ...]
    rates: tuple[Rate, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Tell whether nothing limits these requests."""
        return not self.purses and not self.rates

    @property
    def is_per_model(self) -> bool:
        """Tell whether some limits are for single models."""
        return any(purse.budget.model is not None for purse in self.purses) or any(
            rate.model is not None for rate in self.rates
        )

    def spent(self, now: float) -> tuple[Spent, ...]:
        """Return the budgets of which nothing is left at *now*, in seconds since 1970."""
        moment = datetime.fromtimestamp(now, UTC)
        return spent((purse.as_it_stands(now) for purse in self.purses), now=moment)

    def of_model(self, *names: str | None) -> "Tab":
        """Return what a request for a model of one of these names is charged to."""
        others = {
            purse.budget.name
            for purse in self.purses
            if not any(is_of_model(purse.budget.model, name) for name in names)
        }
        return Tab(
            self.ledger,
            tuple(item for item in self.charged if item.name not in others),
            tuple(purse for purse in self.purses if purse.budget.name not in others),
            tuple(for_model(self.rates, *names)),
        )

    def joined(self, others: Iterable["Tab"]) -> "Tab":
        """Return what a request is charged to that any of several models may answer: all that these are charged to."""
        tabs = [self, *others]
        purses = {purse.budget.name: purse for tab in tabs for purse in tab.purses}
        charged = {item.name: item for tab in tabs for item in tab.charged}
        rates = dict.fromkeys(rate for tab in tabs for rate in tab.rates)
        return Tab(self.ledger, tuple(charged.values()), tuple(purses.values()), tuple(rates))
