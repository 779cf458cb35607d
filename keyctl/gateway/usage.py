"""Count what this process has recorded for each object, and what of it the database's spend includes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from keyctl.db.queries import Presented

_REMEMBERED: Final = 8


class Account:
    """What this process has recorded for one key, team, user or organization; its recorder's lock guards it."""

    __slots__ = (
        "__weakref__",
        "_batches",
        "_has_forgotten",
        "id",
        "recorded",
        "table",
        "unsent",
        "used_at",
    )

    def __init__(self, table: str, object_id: str) -> None:
        self.table = table
        self.id = object_id
        self.recorded = 0  # nano-dollars, ever
        self.unsent = 0
        self.used_at: datetime | None = None
        self._batches: list[tuple[int, int]] = []
        self._has_forgotten = False

    def add(self, nano: int) -> None:
        """Add to what is recorded and not yet in a batch."""
        self.recorded += nano
        self.unsent += nano

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


class Purse:
    """A budget: what the database says was spent, and what this process recorded since."""

    __slots__ = ("_account", "_base", "_limit")

    def __init__(self, account: Account, *, limit: int, base: int) -> None:
        self._account = account
        self._limit = limit
        self._base = base

    def is_empty(self) -> bool:
        """Tell whether what is spent, written or not, has reached the budget."""
        return self._base + self._account.recorded >= self._limit


def objects_of(found: Presented) -> Sequence[tuple[str, str, int | None, int]]:
    """Return what is charged when a key is used: the tables, ids, budgets and spends."""
    owners = (
        ("keys", found.key),
        ("teams", found.team),
        ("users", found.user),
        ("organizations", found.organization),
    )
    return [
        (table, record.id, record.max_budget, record.spend)
        for table, record in owners
        if record is not None
    ]
