"""How values look to people: distances in time and dollars."""

from datetime import UTC, datetime, timedelta

import pytest

from keyctl.cli import screen

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("minutes", "hours", "days"))


@pytest.mark.parametrize(
    ("distance", "said"),
    [
        (timedelta(), "now"),
        (timedelta(seconds=59), "in 59 s"),
        (MINUTE, "in 1 min"),
        (timedelta(seconds=90), "in 2 min"),
        (HOUR - timedelta(seconds=31), "in 59 min"),
        (HOUR - timedelta(seconds=30), "in 1 h"),
        (DAY - timedelta(minutes=31), "in 23 h"),
        (DAY - timedelta(minutes=30), "in 1 day"),
        (3 * DAY - timedelta(seconds=6), "in 3 days"),
        (30 * DAY - timedelta(seconds=6), "in 30 days"),
        (29 * DAY, "in 29 days"),
        (29 * DAY + 11 * HOUR, "in 29 days"),
        (-2 * HOUR - timedelta(seconds=1), "2 h ago"),
        (-3 * DAY + HOUR, "3 days ago"),
        (366 * DAY, "2031-01-02"),
    ],
)
def test_a_distance_is_told_to_the_nearest_whole_unit(distance: timedelta, said: str) -> None:
    """Of a key made for three days a moment ago, three days are left."""
    assert screen.when(NOW + distance, NOW) == said


@pytest.mark.parametrize(
    ("dollars", "said"),
    [
        ("0", "$0"),
        ("50", "$50"),
        ("1200.000", "$1,200"),
        ("3.5", "$3.50"),
        ("17.25", "$17.25"),
        ("0.000025", "$0.000025"),
        ("1234567.1", "$1,234,567.10"),
    ],
)
def test_dollars_have_no_cents_or_two(dollars: str, said: str) -> None:
    """What is smaller than a cent is told whole."""
    assert screen.money(dollars) == said
