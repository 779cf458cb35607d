"""Tell a gateway the time: lengths by the host's steady clock, instants by the database's."""

import time
from datetime import UTC, datetime
from functools import partial
from typing import Final

# Where there is one, the clock that goes on while the machine sleeps: what was confirmed before it
# slept is not fresh when it wakes.
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

ticks: Final = partial(time.clock_gettime, _STEADY)


class Clock:
    """The database's time of day, carried forward by the steady clock; the host's may be wrong or jump."""

    def __init__(self) -> None:
        self._offset = 0.0
        self.is_set = False

    def set(self, moment: datetime, *, asked_at: float) -> None:
        """Set the clock to what the database answered when it was asked at *asked_at* ticks.

        What the answer took makes it fast, never slow: a key may end that much early, and not late.
        """
        self._offset = moment.timestamp() - asked_at
        self.is_set = True

    def seconds(self) -> float:
        """Return the seconds since 1970."""
        return ticks() + self._offset

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime.fromtimestamp(self.seconds(), UTC)
