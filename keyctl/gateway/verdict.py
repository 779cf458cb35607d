"""Say what a verification found, and take what it is to be charged."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, Self

from keyctl.gateway.accounts import Hold
from keyctl.gateway.books import amount_of
from keyctl.gateway.found import Found
from keyctl.gateway.ledger import Tab
from keyctl.gateway.rates import Admission, Exceeded, Rate
from keyctl.purses import PurseName, Terms
from keyctl.records import Presented
from keyctl.services import verify
from keyctl.services.spent import Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left of one budget, in nano-dollars or tokens; without a period it is left for good."""

    name: PurseName
    limit: int
    left: int
    period: str | None
    resets_at: datetime | None


class Verdict(verify.Verdict):
    """What a presented key string is worth.  Only one that matched tells whose it is.

    `reason` is None for a valid key, else one of `malformed unknown revoked blocked expired
    team_blocked org_blocked user_blocked route_denied model_denied budget_exceeded`.  `spent` are
    the budgets that are, when that is the reason.
    """

    # No fields: they are no part of what is said, compared or shown.
    __slots__ = ("_admissions", "_found", "_holds", "_tab")

    @classmethod
    def about(cls, found: Presented, tab: Tab, **said: Any) -> Self:
        """Return the verdict on a key that matched, whose requests are charged to *tab*."""
        verdict = cls(**said)
        object.__setattr__(verdict, "_found", found)
        object.__setattr__(verdict, "_tab", tab)
        object.__setattr__(verdict, "_holds", deque())
        object.__setattr__(verdict, "_admissions", deque())
        return verdict

    def for_request(self, tab: Tab) -> Self:
        """Return the same verdict, for one more request: what each one reserves is its own."""
        copy: Self = object.__new__(type(self))
        for write, value in zip(_WRITE, (*_READ(self), tab, deque(), deque()), strict=True):
            write(copy, value)
        return copy

    def joined(self, others: Sequence["Verdict"]) -> Self:
        """Return the verdict on the same request if any of several models may answer it, each with a verdict of its own.

        It keeps to the limits of all of them, and is charged to each of their budgets.
        """
        tab = self._chargeable()
        tabs = [other._chargeable() for other in others]  # noqa: SLF001  # they are verdicts too
        if all(other.purses == tab.purses and other.rates == tab.rates for other in tabs):
            return self
        return self.for_request(tab.joined(tabs))

    def __copy__(self) -> Self:
        """Return a verdict on the same request: what was reserved is settled by whichever comes first."""
        copy: Self = object.__new__(type(self))
        for name in (*_COPIED, "_tab", "_holds", "_admissions"):
            if hasattr(self, name):
                object.__setattr__(copy, name, getattr(self, name))
        return copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return what `__copy__` does: a ledger and a key are one, however deep a copy goes."""
        return self.__copy__()

    @property
    def found(self) -> Found | None:
        """Return the key and its owners as the database held them; None if no key matched."""
        found: Presented | None = getattr(self, "_found", None)
        return None if found is None else Found.of(found)

    @property
    def budgets(self) -> dict[PurseName, Terms | None]:
        """Return what a request with the key is charged to, with the terms of what has its own."""
        return {charged.name: charged.terms for charged in self._chargeable().charged}

    @property
    def rates(self) -> Sequence[Rate]:
        """Return the rates that the request must keep to."""
        return self._chargeable().rates

    def now(self) -> datetime:
        """Return the time by which the key is judged: the database's."""
        return self._chargeable().ledger.books.clock.now()

    def left(self) -> list[Left]:
        """Return what is left of each budget that the request is charged to, as far as this process knows."""
        tab = self._chargeable()
        now = tab.ledger.books.clock.seconds()
        return [
            Left(
                name=purse.account.name,
                limit=purse.budget.limit,
                left=max(0, purse.left(now) - purse.account.held),
                period=purse.budget.period,
                resets_at=purse.ends_at(now),
            )
            for purse in tab.purses
        ]

    def used_up(self) -> tuple[Spent, ...]:
        """Return the budgets of the request of which nothing is left, as far as this process knows.

        It tells why `reserve` was refused, and knows of no other process's reservations.
        """
        tab = self._chargeable()
        return tab.spent(tab.ledger.books.clock.seconds())

    def reserve(self, amount: Decimal | float, *, tokens: int = 0) -> bool:
        """Hold *amount* dollars, or what is left if that is less, of every budget that the request is charged to.

        And *tokens*, of those that count tokens.  All or none: False when one has nothing left, and the request is to be refused.  `record`
        settles it, `release` gives it back.

        Raises:
            ValueError: It is no amount of money, or no key matched.
            UnavailableError: Nobody can tell what is left: answer 503.
        """
        tab = self._chargeable()
        answer = tab.ledger.hold(tab.purses, amount_of(amount, tokens))
        return self._kept(answer if isinstance(answer, Hold) else tab.ledger.wait(answer))

    def admit(
        self, *, tokens: int = 0, only: Callable[[Rate], bool] | None = None
    ) -> Exceeded | None:
        """Count the request under every rate of its key, member, team, user and organization.

        All or none: what is returned tells which one is exceeded, and the request is to be refused
        with 429.  *tokens* is how many it may use at most.  It is one of the requests at the same
        time until `record` or `release`.  Each process counts for itself.  *only* leaves out the
        rates that something else counts.

        Raises:
            ValueError: It is no number of tokens, or no key matched.
        """
        tab = self._chargeable()
        rates = tab.rates if only is None else [rate for rate in tab.rates if only(rate)]
        if not rates:
            return None
        admitted = tab.ledger.rates.admit(rates, amount_of(0, tokens).tokens)
        if isinstance(admitted, Exceeded):
            return admitted
        admissions: deque[Admission] = getattr(self, "_admissions")  # noqa: B009
        admissions.append(admitted)
        return None

    def record(self, cost: Decimal | float, *, tokens: int = 0) -> None:
        """Add *cost* dollars to what the key and its owners have spent, and settle what was reserved for it.

        *tokens* are what it used of budgets that count tokens.  It counts at once, and is written with the next flush.  Zero is a use without a cost.

        Raises:
            ValueError: It is no amount of money, or no key matched.
            UnavailableError: The verifier is closed.
        """
        tab = self._chargeable()
        amount = amount_of(cost, tokens)
        hold = self._taken()
        try:
            tab.ledger.charge(tab.charged, amount, hold)
        except BaseException:
            if hold is not None:
                self._kept(hold)
            raise
        self._end(tokens)

    def release(self) -> None:
        """Give back what was reserved, and end the request: it costs nothing."""
        self._end(0)
        if (hold := self._taken()) is not None:
            self._chargeable().ledger.books.release(hold)

    def hand_over(self) -> None:
        """End this process's reservation without freeing the amount: a row in the database holds it from now on."""
        self._end(0)
        if (hold := self._taken()) is not None:
            self._chargeable().ledger.books.hand_over(hold)

    def _end(self, tokens: int) -> None:
        """End the request that was admitted first, which used so many tokens."""
        admissions: deque[Admission] = getattr(self, "_admissions", deque())
        try:
            admission = admissions.popleft()
        except IndexError:
            return
        self._chargeable().ledger.rates.end(admission, tokens)

    def _chargeable(self) -> Tab:
        tab: Tab | None = getattr(self, "_tab", None)
        if tab is None and self.valid:
            raise ValueError(
                "this verdict was pickled or made by dataclasses.replace: charge the verifier's own"
            )
        if tab is None:
            raise ValueError(f"there is no key to charge: {self.reason}")
        return tab

    def _taken(self) -> Hold | None:
        holds: deque[Hold] = getattr(self, "_holds", deque())
        try:
            return holds.popleft()
        except IndexError:
            return None

    def _kept(self, hold: Hold | None) -> bool:
        """Keep what was granted until it is settled; False when nothing was."""
        if hold is None:
            return False
        if hold.parts:
            holds: deque[Hold] = getattr(self, "_holds")  # noqa: B009
            holds.append(hold)
        return True


class AsyncVerdict(Verdict):
    """A verdict on an event loop: `reserve` is to be awaited."""

    __slots__ = ()

    async def reserve(  # type: ignore[override]  # awaited, and else the same
        self, amount: Decimal | float, *, tokens: int = 0
    ) -> bool:
        """Hold *amount* dollars and *tokens* as `Verdict.reserve` does, without blocking the loop.

        Raises:
            ValueError: It is no amount of money, or no key matched.
            UnavailableError: Nobody can tell what is left: answer 503.
        """
        tab = self._chargeable()
        answer = tab.ledger.hold(tab.purses, amount_of(amount, tokens))
        if not isinstance(answer, Hold):
            return self._kept(await tab.ledger.wait_on_loop(answer))
        return self._kept(answer)


_COPIED = (*verify.Verdict.__slots__, "_found")
# By the slots themselves: a verdict is made for each request of a key with limits.
_READ = attrgetter(*_COPIED)
_WRITE = tuple(
    getattr(Verdict, name).__set__ for name in (*_COPIED, "_tab", "_holds", "_admissions")
)
