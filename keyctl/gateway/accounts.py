"""Count what this process has recorded and holds of each budget, in memory."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from typing import Final

from keyctl import durations
from keyctl.purses import Budget, PurseName, Terms

_REMEMBERED: Final = 8
# A process that has leased nothing yet may serve one part in so many of what is left at once: its
# lease comes with the next flush.
_UNLEASED_SHARE: Final = 10_000


class Account:
    """What this process has recorded and holds for one object or budget; the lock of its books guards it.

    Nano-dollars.  `unwritten` of what was recorded is not known to be in the database's spend;
    `held` is for requests under way; `leased` is what the database keeps for this process.
    """

    __slots__ = (
        "__weakref__",
        "_batches",
        "_has_forgotten",
        "asked",
        "has_moved",
        "held",
        "leased",
        "name",
        "recorded",
        "terms",
        "unsent",
        "unwritten",
        "used_at",
    )

    def __init__(self, name: PurseName) -> None:
        self.name = name
        self.terms: Terms | None = None
        self.recorded = 0  # ever
        self.unsent = 0  # in no batch yet
        self.unwritten = 0
        self.held = 0
        self.leased = 0
        self.asked = 0  # the most that one request has asked for since the last flush
        self.has_moved = False  # since its lease was written last
        self.used_at: datetime | None = None
        self._batches: list[tuple[int, int]] = []
        self._has_forgotten = False

    @property
    def committed(self) -> int:
        """Return what of the budget is gone because of this process, and not in the database's spend."""
        return self.held + self.unwritten

    @property
    def room(self) -> int:
        """Return what is leased and not used; negative when more is used than leased."""
        return self.leased - self.held - self.unwritten

    def add(self, nano: int) -> None:
        """Add to what is recorded and not yet in a batch."""
        self.recorded += nano
        self.unsent += nano
        self.unwritten += nano

    def send(self, batch: int) -> int:
        """Return what is not yet in a batch, which is now in this one."""
        sent, self.unsent = self.unsent, 0
        self._batches.append((batch, self.recorded))
        if len(self._batches) > _REMEMBERED:
            del self._batches[0]
            self._has_forgotten = True
        return sent

    def recorded_until(self, batch: int) -> int | None:
        """Return what was recorded up to this batch; None if that is so long ago that it is forgotten."""
        for number, recorded in reversed(self._batches):
            if number <= batch:
                return recorded
        return None if self._has_forgotten else 0


@dataclass(frozen=True, slots=True)
class Amount:
    """What a request may cost, or cost: nano-dollars, and tokens."""

    nano: int
    tokens: int = 0

    def of(self, name: PurseName) -> int:
        """Return what that is to a budget."""
        return self.tokens if name.counts_tokens else self.nano


class Purse:
    """A budget: what the database says was spent, and what this process recorded since."""

    __slots__ = ("_base", "_ends_at", "account", "budget")

    def __init__(self, account: Account, budget: Budget, *, recorded: int, now: datetime) -> None:
        """Begin with what was read, which includes what was *recorded* here up to then."""
        self.account = account
        self.budget = budget
        self._base = budget.spend - recorded
        self._ends_at = inf
        if budget.period is not None:
            # One without an end is due: nobody has begun its first period yet.
            self._ends_at = (budget.end or now).timestamp()
            if self._ends_at <= now.timestamp():
                self._begin(now, recorded)

    def left(self, now: float) -> int:
        """Return what is left at *now*, in seconds since 1970, of what this process knows about."""
        if now >= self._ends_at:
            self._begin(
                datetime.fromtimestamp(now, self.budget.anchor.tzinfo), self.account.recorded
            )
        return self.budget.limit - self._base - self.account.recorded

    def ends_at(self, now: float) -> datetime | None:
        """Return when the period ends that is going on at *now*; None for a budget without one."""
        self.left(now)  # begins the period that is now
        return None if self.budget.period is None else datetime.fromtimestamp(self._ends_at, UTC)

    def as_it_stands(self, now: float) -> Budget:
        """Return the budget with what this process knows to be gone of it at *now*; what requests hold is."""
        spend = self.budget.limit - self.left(now) + self.account.held
        return replace(self.budget, spend=spend, end=self.ends_at(now))

    def is_far(self, nano: int, now: float) -> bool:
        """Tell whether so little more goes without a lease that nobody can miss it."""
        account = self.account
        return (nano - account.room) * _UNLEASED_SHARE <= self.left(now)

    def _begin(self, now: datetime, recorded: int) -> None:
        """Begin a new period, of which nothing is spent; the database does the same with the next charge."""
        self._base = -recorded
        period = str(self.budget.period)
        following = durations.next_reset(period, anchor=self.budget.anchor, now=now)
        self._ends_at = following.timestamp()


@dataclass(slots=True)
class Hold:
    """What one request holds of some budgets; `books` is whose, so that no child gives its parent's back."""

    books: str
    parts: list[tuple[Account, int]] = field(default_factory=list)

    def take(self, account: Account, nano: int) -> None:
        """Hold so much of a budget."""
        account.held += nano
        account.asked = max(account.asked, nano)
        account.has_moved = True
        self.parts.append((account, nano))

    def hand_over(self) -> None:
        """Give back what is held, and as much of the lease: somebody else holds it from now on."""
        for account, nano in self.parts:
            account.leased = max(0, account.leased - nano)
        self.give_back()

    def give_back(self) -> None:
        """Hold nothing any more."""
        for account, nano in self.parts:
            account.held -= nano
            account.has_moved = True
        self.parts = []
