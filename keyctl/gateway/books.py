"""Keep the books of one process: what its requests hold and cost, until the database has it."""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import uuid4
from weakref import WeakValueDictionary

from keyctl import money
from keyctl.db.queries import Usage
from keyctl.errors import InvalidMoneyError, UnavailableError
from keyctl.gateway.accounts import Account, Amount, Hold, Purse
from keyctl.gateway.clock import Clock, ticks
from keyctl.purses import Budget, PurseName, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is being written; kept until the database has surely taken it."""

    number: int
    usage: Usage
    sent: Mapping[Account, int]
    leasing: Sequence[Account]

    @property
    def purses(self) -> dict[PurseName, Terms | None]:
        """Return every budget that the batch changes, each with its terms."""
        return {account.name: account.terms for account in (*self.sent, *self.leasing)}


@dataclass(frozen=True, slots=True)
class Charged:
    """One object or budget that a request is charged to."""

    name: PurseName
    terms: Terms | None = None


class Books:
    """What this process has recorded and holds, under an id that only this process has."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.begin()

    def begin(self) -> None:
        """Begin with nothing; what a parent process had is the parent's."""
        self.id = uuid4().hex
        self.lock = threading.Lock()
        # One transaction at a time: what it reads then fits what is unwritten here.
        self.writing = threading.Lock()
        # Weak: an account lives as long as a cached budget, a request that holds some of it, the
        # buffer, or a batch that may not be in what was just read refers to it.
        self._accounts: WeakValueDictionary[PurseName, Account] = WeakValueDictionary()
        self._unsent: dict[Account, None] = {}
        self._leasing: dict[Account, None] = {}
        self._leased_until: float | None = None  # ticks
        self._batch: Batch | None = None
        self._written: Batch | None = None
        self._sent = 0
        self._confirmed = 0
        self._has_begun = False
        self._is_closed = False

    def add(self, charged: Iterable[Charged], cost: Amount, hold: Hold | None) -> None:
        """Add *cost* to these objects, the key first, and settle *hold*.

        By name: a verdict from before a fork charges the accounts of the process that it is used in.

        Raises:
            UnavailableError: The books are closed.
        """
        now = self.clock.now()
        with self.lock:
            if self._is_closed:
                raise UnavailableError("the verifier is closed", hint="record before it is closed")
            self._settle(hold)
            is_key = True
            for item in charged:
                account = self._account(item.name)
                account.terms = item.terms or account.terms
                account.add(cost.of(item.name))
                self._unsent[account] = None
                if account in self._leasing:
                    account.has_moved = True
                if is_key:
                    account.used_at, is_key = now, False

    def try_hold(self, purses: Sequence[Purse], amount: Amount) -> tuple[Hold, list[Purse]]:
        """Hold *amount* of each purse that has so much, and return those that the database has to be asked about.

        If there are any, nothing is held.
        """
        hold = Hold(self.id)
        with self.lock:
            short = self._hold(hold, purses, amount)
            if short:
                hold.give_back()
        return hold, short

    def hold_known(self, purses: Sequence[Purse], amount: Amount) -> tuple[Hold, list[Purse]]:
        """Hold *amount* of each purse that has so much, and return the others."""
        hold = Hold(self.id)
        with self.lock:
            short = self._hold(hold, purses, amount)
        return hold, short

    def release(self, hold: Hold) -> None:
        """Give back what a request holds."""
        with self.lock:
            self._settle(hold)

    def hand_over(self, hold: Hold) -> None:
        """Give back what a request holds, which the database keeps under another name already."""
        with self.lock:
            if hold.books == self.id:
                hold.hand_over()

    def lease(self, account: Account, amount: int) -> None:
        """Note that the database keeps *amount* for this process; its lock is held."""
        account.leased = amount
        if amount or account.held:
            self._leasing[account] = None
        else:
            self._leasing.pop(account, None)

    def keep_until(self, moment: float) -> None:
        """Note until when, in ticks, what is leased is this process's own; its lock is held."""
        self._leased_until = moment if self._leasing else None

    def must_renew(self, *, before: float) -> bool:
        """Tell whether something is leased that would be others' at *before* ticks."""
        with self.lock:
            return self._leased_until is not None and self._leased_until < before

    def kept_until(self, *, least: float) -> float | None:
        """Return until when, in ticks, the database keeps what is leased; None if that is not *least* or later."""
        with self.lock:
            until = self._leased_until
            return until if until is not None and until >= least else None

    def position(self) -> tuple[str | None, int]:
        """Return the id to ask the database for the last batch of, and the last one known to be written.

        None as long as nothing was ever written: the database may be too old to be asked.
        """
        with self.lock:
            return (self.id if self._has_begun else None), self._confirmed

    def has_begun(self) -> None:
        """Note that the database may know this process from now on."""
        with self.lock:
            self._has_begun = True

    def purses(
        self,
        budgets: Collection[Budget],
        *,
        asked: tuple[str | None, int],
        batch: int | None,
        metered_batch: int | None,
    ) -> tuple[Purse, ...] | None:
        """Return budgets, with what was recorded since they were read.

        The number of a *batch* was read with the owners' own, another one with the metered ones.
        None if what was read cannot be told from what was written meanwhile: read again.
        """
        asked_for, confirmed = asked
        own = confirmed if batch is None else batch
        metered = confirmed if metered_batch is None else metered_batch
        now = self.clock.now()
        with self.lock:
            if asked_for is None and self._has_begun:
                return None
            purses = []
            for budget in budgets:
                account = self._account(budget.name)
                account.terms = budget.terms or account.terms
                recorded = account.recorded_until(metered if budget.name.meter else own)
                if recorded is None:
                    return None
                purses.append(Purse(account, budget, recorded=recorded, now=now))
            return tuple(purses)

    def is_written(self) -> bool:
        """Return whether the database has all that was recorded."""
        with self.lock:
            return self._batch is None and not self._unsent

    def next_batch(self) -> Batch | None:
        """Return what is to be written: the batch that could not be written before, or what has come since."""
        with self.lock:
            if self._batch is not None:
                return self._batch
            leasing = [
                account
                for account in self._leasing
                if account.has_moved or account.room > 0 or account.unsent
            ]
            if not self._unsent and not leasing:
                return None
            self._sent += 1
            sent = {account: account.send(self._sent) for account in self._unsent}
            used_at = {
                account.name.object_id: account.used_at
                for account in sent
                if account.used_at is not None
            }
            usage = Usage(
                spend={account.name: nano for account, nano in sent.items()}, used_at=used_at
            )
            self._batch = Batch(number=self._sent, usage=usage, sent=sent, leasing=leasing)
            self._unsent = {}
            return self._batch

    def confirm(self, batch: Batch) -> None:
        """Note that the database has the batch."""
        with self.lock:
            for account, nano in batch.sent.items():
                account.unwritten -= nano
            # Kept: one that may not be in what was just read.
            self._batch, self._written = None, batch
            self._confirmed = batch.number

    @property
    def pending(self) -> Batch | None:
        """Return the batch of which nobody knows whether it is written."""
        return self._batch

    def close(self) -> None:
        """Take nothing more."""
        with self.lock:
            self._is_closed = True

    def _account(self, name: PurseName) -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name)
        return account

    def _hold(self, hold: Hold, purses: Sequence[Purse], amount: Amount) -> list[Purse]:
        if self._leased_until is not None and ticks() >= self._leased_until:
            self._lapse()
        now = self.clock.seconds()
        short = []
        for purse in purses:
            account = purse.account
            nano = amount.of(account.name)
            if account.room >= nano or purse.is_far(nano, now):
                hold.take(account, nano)
                self._leasing[account] = None
            else:
                short.append(purse)
        return short

    def _settle(self, hold: Hold | None) -> None:
        if hold is not None and hold.books == self.id:
            hold.give_back()

    def _lapse(self) -> None:
        """Use nothing any more that was leased: it was not renewed, and may be others' now."""
        self._leased_until = None
        for account in self._leasing:
            account.leased = 0
            account.has_moved = True


def amount_of(cost: Decimal | float, tokens: int) -> Amount:
    """Return *cost* dollars, rounded up to a nano-dollar, and *tokens*.

    Raises:
        ValueError: It is no amount of money, or no number of tokens.
    """
    if type(tokens) is not int or not 0 <= tokens <= money.MAX_NANO:
        raise ValueError(f"tokens are a whole number from 0, not {tokens!r}")
    return Amount(_nano(cost), tokens)


def _nano(cost: Decimal | float) -> int:
    if isinstance(cost, bool) or not isinstance(cost, (int, float, Decimal)):
        raise ValueError("a cost is a number of dollars")  # noqa: TRY004  # one error for all
    try:
        # The shortest text of a float is what was meant: 0.1 is not a bit more than 0.1.
        return money.round_up(Decimal(repr(cost)) if isinstance(cost, float) else Decimal(cost))
    except InvalidMoneyError as error:
        raise ValueError(error.message) from None
