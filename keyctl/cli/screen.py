"""Say values as people read them: short dates, dollars, states with a colour and a word."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

STATES: Final = {
    "active": "green",
    "blocked": "red",
    "expired": "yellow",
    "pending": "yellow",
    "deleted": "dim",
    "retiring": "yellow",
    "staged": "yellow",
    "revoked": "dim",
    "failed": "red",
    "skipped": "yellow",
    "rotated": "green",
    "imported": "green",
}
_BAR: Final = 8
# A unit, its seconds, and from how many on it is used: below, the smaller one rounds to less than one of it.
_UNITS: Final = (
    ("day", 86_400, 84_600),
    ("h", 3600, 3570),
    ("min", 60, 60),
    ("s", 1, 1),
)
_ASCII: Final = str.maketrans(
    {"…": "...", "→": "->", "█": "#", "░": ".", "─": "-", "·": "-", "├": "+", "└": "+", "│": "|"}
)


def is_colourful(environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Tell whether to colour: NO_COLOR says no, FORCE_COLOR yes, else a terminal that is not dumb.

    The order is that of Python's own messages.
    """
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return is_terminal and environment.get("TERM") != "dumb"


def is_ascii(environment: Mapping[str, str]) -> bool:
    """Tell whether the locale has nothing but ASCII.

    Python sets LC_CTYPE itself in a C locale, so that its value says nothing then.
    """
    name = environment.get("LC_ALL") or ""
    if not name and environment.get("LC_CTYPE") not in ("C.UTF-8", "C.utf8", "UTF-8"):
        name = environment.get("LC_CTYPE") or ""
    name = name or environment.get("LANG") or ""
    return bool(name) and not name.lower().replace("-", "").endswith("utf8")


def plain(text: str) -> str:
    """Return *text* with nothing but ASCII where keyctl itself writes something else."""
    return text.translate(_ASCII)


def paint(text: str, style: str) -> str:
    """Return *text* in a colour, as escape sequences."""
    from rich.color import ColorSystem
    from rich.style import Style

    return Style.parse(style).render(text, color_system=ColorSystem.STANDARD) if text else text


def money(value: Any) -> str:
    """Return dollars: `$1,200`, `$3.50`, `$0.000025`; cents only where there are some."""
    whole, _, part = format(Decimal(value), ",f").partition(".")
    part = part.rstrip("0")
    return f"${whole}.{part.ljust(2, '0')}" if part else f"${whole}"


def budget(spend: Any, most: Any) -> tuple[str, str]:
    """Return what is used of a budget, with a bar, and its colour."""
    if most is None:
        return money(spend), ""
    share = Decimal(spend) / Decimal(most) if most else Decimal(1)
    filled = min(_BAR, int(share * _BAR))
    colour = "red" if share >= 1 else "yellow" if share >= Decimal("0.8") else ""
    return f"{'█' * filled}{'░' * (_BAR - filled)} {money(spend)} of {money(most)}", colour


def when(moment: datetime, now: datetime) -> str:
    """Return how far away *moment* is, to the nearest whole unit: `in 30 days`, `3 h ago`; a date beyond a year."""
    length = moment - now
    ahead, size = length >= timedelta(0), abs(length)
    seconds = int(size.total_seconds())
    if size >= timedelta(days=366):
        return f"{moment.astimezone(UTC):%Y-%m-%d}"
    for unit, one, least in _UNITS:
        if seconds >= least:
            number = (seconds + one // 2) // one
            many = "s" if unit == "day" and number > 1 else ""
            return f"in {number} {unit}{many}" if ahead else f"{number} {unit}{many} ago"
    return "now"


def anchor(place: Mapping[str, Any], *, whole: bool) -> str:
    """Return where the audit chain is: its number and hash, of which a person needs the beginning."""
    head = place["head"]
    return f"{place['seq']} {head if whole else head[:12] + '…'}"


def count(number: int, word: str) -> str:
    """Return *number* things, one of them or several."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def were(number: int) -> str:
    """Return the verb of so many things that something happened to."""
    return "was" if number == 1 else "were"


def instant(moment: datetime) -> str:
    """Return *moment* to the second, in UTC."""
    return f"{moment.astimezone(UTC).isoformat(timespec='seconds')[:19]}Z"
