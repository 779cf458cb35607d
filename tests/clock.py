"""The time as tests tell it."""

from datetime import UTC, datetime, timedelta


class Clock:
    """The time, standing still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, length: timedelta) -> None:
        """Let time pass."""
        self.now += length
