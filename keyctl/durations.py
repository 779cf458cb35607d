"""Parse lengths of time by one grammar, and compute the budget periods built on it.  Pure.

A duration is a positive integer and a unit ``s m h d w mo``; a budget period may also be one
of the words ``hourly daily weekly monthly``, and only those are aligned to the calendar (UTC).
"""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from keyctl.errors import InvalidDurationError

ACCEPTED: Final = "a positive whole number and one of s m h d w mo, such as 30d or 12h"
ACCEPTED_PERIOD: Final = f"{ACCEPTED}; or hourly, daily, weekly, monthly"
WORDS: Final = ("hourly", "daily", "weekly", "monthly")
_NOUNS: Final = dict(zip(WORDS, ("hour", "day", "week", "month"), strict=True))

_SHAPE = re.compile(r"([1-9][0-9]{0,9})(s|m|h|d|w|mo)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_SECONDS: Final = 100 * 366 * 86_400
_MAX_MONTHS: Final = 1_200


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time: exact seconds, or calendar months.  Printed as it was given."""

    text: str
    seconds: int
    months: int

    def after(self, start: datetime) -> datetime:
        """Return *start* plus this duration; months are clamped to the month's end."""
        return self.times(1, start)

    def times(self, count: int, start: datetime) -> datetime:
        """Return *start* plus *count* times this duration, counted from *start* itself.

        31 January plus 2 x ``1mo`` is 31 March: adding month after month would get stuck on
        the 28th.
        """
        try:
            if self.months:
                return _add_months(start, self.months * count)
            return start + timedelta(seconds=self.seconds * count)
        except (OverflowError, ValueError):
            raise InvalidDurationError(
                f"{self.text!r} from now is past the end of the calendar"
            ) from None

    def longest(self) -> timedelta:
        """Return how long this is at the most: months have up to 31 days."""
        return timedelta(seconds=self.seconds, days=31 * self.months)

    def exceeds(self, bound: "Duration", *, start: datetime) -> bool:
        """Tell whether this, counted from *start*, ends later than *bound* does."""
        return self.after(start) > bound.after(start)


@dataclass(frozen=True, slots=True)
class Grace:
    """How long an old secret goes on working after a rotation; no length: it ends at once."""

    length: Duration | None

    def ends(self, begin: datetime) -> datetime:
        """Return when a grace period that begins at *begin* is over."""
        return begin if self.length is None else self.length.after(begin)


def parse_duration(text: str) -> Duration:
    """Return the duration that *text*, the whole of it, says.

    Raises:
        InvalidDurationError: It is not of the grammar, or longer than 100 years.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise InvalidDurationError(f"{_shown(text)} is not a duration", hint=f"give {ACCEPTED}")
    number, unit = int(found[1]), found[2]
    duration = (
        Duration(text, 0, number) if unit == "mo" else Duration(text, number * _SECONDS[unit], 0)
    )
    if duration.seconds > _MAX_SECONDS or duration.months > _MAX_MONTHS:
        raise InvalidDurationError(
            f"{_shown(text)} is longer than 100 years", hint=f"give {ACCEPTED}"
        )
    return duration


def parse_period(text: str) -> None:
    """Check that *text* is a budget period: a duration or one of `WORDS`.

    Raises:
        InvalidDurationError: It is neither.
    """
    if text in WORDS:
        return
    try:
        parse_duration(text)
    except InvalidDurationError as error:
        raise InvalidDurationError(
            error.message.replace("a duration", "a budget period"), hint=f"give {ACCEPTED_PERIOD}"
        ) from None


def per(period: str | None) -> str:
    """Return what follows an amount of a budget with this *period*: `` per 30d``, `` per day``."""
    return "" if period is None else f" per {_NOUNS.get(period, period)}"


def period_length(text: str) -> Duration:
    """Return the length of a budget period, for comparing it with a bound."""
    words = {"hourly": "1h", "daily": "1d", "weekly": "1w", "monthly": "1mo"}
    return parse_duration(words.get(text, text))


def next_reset(period: str, *, anchor: datetime, now: datetime) -> datetime:
    """Return the first instant ``anchor + k x period`` after *now*; missed ones are skipped.

    The words are aligned to UTC: the hour, midnight, Monday, the 1st.  The anchor is when the
    period was last set.
    """
    if period in WORDS:
        return _next_aligned(period, now)
    duration = parse_duration(period)
    if now < anchor:
        return duration.after(anchor)
    if duration.seconds:
        count = int((now - anchor) // timedelta(seconds=duration.seconds)) + 1
        return duration.times(count, anchor)
    elapsed = (now.year - anchor.year) * 12 + now.month - anchor.month
    count = max(1, elapsed // duration.months)
    while duration.times(count, anchor) <= now:
        count += 1
    return duration.times(count, anchor)


def _next_aligned(word: str, now: datetime) -> datetime:
    now = now.astimezone(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    midnight = hour.replace(hour=0)
    if word == "hourly":
        return hour + timedelta(hours=1)
    if word == "daily":
        return midnight + timedelta(days=1)
    if word == "weekly":
        return midnight + timedelta(days=7 - midnight.weekday())
    return _add_months(midnight.replace(day=1), 1)


def _add_months(start: datetime, months: int) -> datetime:
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    if year > 9999:
        raise OverflowError
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
