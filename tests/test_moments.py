"""The one grammar for a point in time."""

from datetime import UTC, datetime

import pytest

from keyctl.errors import UsageError
from keyctl.moments import Sense, parse_moment

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "sense", "moment"),
    [
        ("7d", "ahead", datetime(2030, 2, 7, 12, tzinfo=UTC)),
        ("7d", "ago", datetime(2030, 1, 24, 12, tzinfo=UTC)),
        ("1mo", "ahead", datetime(2030, 2, 28, 12, tzinfo=UTC)),
        ("today", "ago", datetime(2030, 1, 31, tzinfo=UTC)),
        ("yesterday", "ahead", datetime(2030, 1, 30, tzinfo=UTC)),
        ("tomorrow", "ago", datetime(2030, 2, 1, tzinfo=UTC)),
        ("2026-12-01", "ahead", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12-01T12:00:00+02:00", "ago", datetime(2026, 12, 1, 10, tzinfo=UTC)),
    ],
)
def test_what_is_understood(text: str, sense: Sense, moment: datetime) -> None:
    """A duration counts in the option's sense; a bare date is 00:00 UTC."""
    assert parse_moment(text, sense=sense, now=lambda: NOW) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "7 d",
        "-7d",
        "2026-12",
        "20261201",
        "2026-W01-1",
        "2026-02-30",
        "2026-12-01T12:00",
    ],
)
def test_what_is_not(text: str) -> None:
    """Everything else is an error that says what is."""
    with pytest.raises(UsageError) as caught:
        parse_moment(text, sense="ago", now=lambda: NOW)

    assert "yesterday" in str(caught.value.hint)


def test_a_bare_number_is_told_its_unit() -> None:
    """Of a number, days are what is most likely meant."""
    with pytest.raises(UsageError) as caught:
        parse_moment("90", sense="ago", now=lambda: NOW)

    assert str(caught.value.hint).startswith("did you mean 90d? ")
