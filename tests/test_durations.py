"""The one grammar of lengths of time, and when budgets begin anew."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyctl import durations
from keyctl.errors import InvalidDurationError

START = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
INSTANTS = st.timedeltas(timedelta(0), timedelta(days=25_000)).map(
    lambda later: datetime(2020, 1, 1, tzinfo=UTC) + later
)
UNITS = st.sampled_from(["s", "m", "h", "d", "w", "mo"])
LENGTHS = st.builds(lambda number, unit: f"{number}{unit}", st.integers(1, 400), UNITS)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("1s", START + timedelta(seconds=1)),
        ("90m", START + timedelta(minutes=90)),
        ("12h", START + timedelta(hours=12)),
        ("30d", START + timedelta(days=30)),
        ("2w", START + timedelta(days=14)),
        ("1mo", datetime(2030, 2, 28, 12, 0, tzinfo=UTC)),
        ("2mo", datetime(2030, 3, 31, 12, 0, tzinfo=UTC)),
        ("12mo", datetime(2031, 1, 31, 12, 0, tzinfo=UTC)),
        ("25mo", datetime(2032, 2, 29, 12, 0, tzinfo=UTC)),
    ],
)
def test_what_a_duration_means(text: str, end: datetime) -> None:
    """Seconds are exact; months are the calendar's, clamped to the month's end."""
    assert durations.parse_duration(text).after(START) == end


@pytest.mark.parametrize(
    "text",
    [
        *("30days", "5ms", "0d", "-1", "", "1.5h", "٣d", "d", "30", " 1d", "1d ", "1d\n", "1D"),
        *("01d", "+1d", "1d1h", "1y", "1M", "daily", "101y", "1201mo", "9999999999w", "36601d"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """The whole string must be of the grammar, and no longer than a hundred years."""
    with pytest.raises(InvalidDurationError) as refused:
        durations.parse_duration(text)
    assert refused.value.hint


@given(text=st.text(max_size=8))
def test_the_grammar_is_closed(text: str) -> None:
    """Whatever parses is ASCII digits without a leading zero, and a unit."""
    try:
        duration = durations.parse_duration(text)
    except InvalidDurationError:
        return
    assert text.isascii()
    assert duration.text == text
    assert (duration.seconds > 0) != (duration.months > 0)


@given(text=LENGTHS, start=INSTANTS, count=st.integers(1, 20))
def test_times_counts_from_the_start(text: str, start: datetime, count: int) -> None:
    """Two months from 31 January are 31 March, not the 28th: no drift through a short month."""
    duration = durations.parse_duration(text)
    end = duration.times(count, start)
    if duration.months:
        months = (end.year - start.year) * 12 + end.month - start.month
        assert (months, end.day <= start.day) == (duration.months * count, True)
    else:
        assert end - start == timedelta(seconds=duration.seconds * count)


@given(
    period=st.one_of(LENGTHS, st.sampled_from(durations.WORDS)),
    anchor=INSTANTS,
    later=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=4000)),
)
def test_the_next_reset_is_the_first_one_to_come(
    period: str, anchor: datetime, later: timedelta
) -> None:
    """Always after now, never more than a period away, and on the period's own grid."""
    now = anchor + later
    following = durations.next_reset(period, anchor=anchor, now=now)
    length = durations.period_length(period)

    assert following > now
    assert following <= length.after(now) + (timedelta(days=3) if length.months else timedelta(0))
    if period not in durations.WORDS and length.seconds:
        assert (following - anchor) % timedelta(seconds=length.seconds) == timedelta(0)


@pytest.mark.parametrize(
    ("word", "following"),
    [
        ("hourly", datetime(2030, 1, 31, 13, 0, tzinfo=UTC)),
        ("daily", datetime(2030, 2, 1, 0, 0, tzinfo=UTC)),
        ("weekly", datetime(2030, 2, 4, 0, 0, tzinfo=UTC)),
        ("monthly", datetime(2030, 2, 1, 0, 0, tzinfo=UTC)),
    ],
)
def test_the_words_are_aligned_to_the_calendar(word: str, following: datetime) -> None:
    """The hour, midnight, Monday and the 1st, in UTC."""
    assert durations.next_reset(word, anchor=START, now=START) == following


def test_missed_periods_are_skipped() -> None:
    """A period that nobody reset for ten days begins once, where it would be by now."""
    now = START + timedelta(days=10, hours=1)
    assert durations.next_reset("3d", anchor=START, now=now) == START + timedelta(days=12)


def test_at_the_reset_itself_the_next_one_is_meant() -> None:
    """The instant of a reset belongs to the period that it begins."""
    at = durations.parse_duration("1mo").after(START)
    assert durations.next_reset("1mo", anchor=START, now=at) == datetime(
        2030, 3, 31, 12, 0, tzinfo=UTC
    )


@pytest.mark.parametrize("text", ["yearly", "Daily", "30days", ""])
def test_a_period_is_a_duration_or_a_word(text: str) -> None:
    """Other words are refused with what is accepted."""
    with pytest.raises(InvalidDurationError) as refused:
        durations.parse_period(text)
    assert "hourly, daily, weekly, monthly" in str(refused.value.hint)


def test_the_calendar_has_an_end() -> None:
    """A duration past the year 9999 is an error of its own, not a crash."""
    with pytest.raises(InvalidDurationError, match="past the end of the calendar"):
        durations.parse_duration("1200mo").after(datetime(9990, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("period", "said"),
    [
        (None, "$5"),
        ("30d", "$5 per 30d"),
        ("1mo", "$5 per 1mo"),
        ("hourly", "$5 per hour"),
        ("daily", "$5 per day"),
        ("weekly", "$5 per week"),
        ("monthly", "$5 per month"),
    ],
)
def test_a_period_is_said_after_its_amount(period: str | None, said: str) -> None:
    """A word of the calendar as its noun, a length as it was given."""
    assert f"$5{durations.per(period)}" == said
