"""Read the one grammar for a point in time that every option takes.  Pure."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

from keyctl.durations import parse_duration
from keyctl.errors import InvalidDurationError, UsageError

Sense = Literal["ahead", "ago"]

ACCEPTED: Final = "7d, 2026-12-01, today, yesterday, tomorrow, or 2026-12-01T12:00:00Z"
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# Whoever asks has a clock of their own.
_CLOCKS_DIFFER: Final = timedelta(minutes=5)
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}


def parse_moment(text: str, *, sense: Sense, now: Callable[[], datetime]) -> datetime:
    """Return the instant that *text* says: a duration counts from now in the *sense*, a day begins at 00:00 UTC.

    *now* is asked only where the answer depends on it.

    Raises:
        UsageError: It says none.
    """
    if text in _DAYS:
        day = now().astimezone(UTC).date() + timedelta(days=_DAYS[text])
        return datetime.combine(day, time(), UTC)
    try:
        length = parse_duration(text)
    except InvalidDurationError:
        return _absolute(text)
    return length.times(1 if sense == "ahead" else -1, now())


def parse_past(text: str, *, option: str, now: Callable[[], datetime]) -> datetime:
    """Return the instant that *text* says, for an *option* about what has been: a duration is that long ago.

    Nothing has been made or used after now: such a bound would fit nothing, or everything.

    Raises:
        UsageError: It says none, or one that is still to come.
    """
    moment, today = parse_moment(text, sense="ago", now=now), now()
    if moment > today + _CLOCKS_DIFFER:
        raise UsageError(
            f"{option} {text} is still to come",
            hint=f"it is {today:%Y-%m-%dT%H:%M:%SZ}; 7d is 7 days ago",
        )
    return moment


def _absolute(text: str) -> datetime:
    try:
        # Nothing but YYYY-MM-DD: `fromisoformat` also knows weeks and days without dashes.
        if len(text) == len("2026-12-01") and text[4] == text[7] == "-":
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        return parse_instant(text)
    except ValueError:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        meant = f"did you mean {shown}d? " if shown.isdecimal() else ""
        raise UsageError(f"{shown!r} is no point in time", hint=f"{meant}give {ACCEPTED}") from None


def parse_instant(text: str) -> datetime:
    """Return the instant of an RFC 3339 *text*, in UTC.

    Raises:
        ValueError: It has another form, no zone, or names a day that does not exist.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("is not an RFC 3339 instant such as 2030-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        raise ValueError("is not in the years 1 to 9999 of UTC") from None
