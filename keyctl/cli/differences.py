"""Tell in a line what a change did to an object: `max_budget $20 → $50`."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from keyctl.cli import screen
from keyctl.cli.tables import cell

# Which change it was and when says the event itself.
_UNTOLD: Final = (
    "updated_at",
    "updated_by",
    "budget_anchor_at",
    "confirmed_at",
    "last_rotation_at",
)
_MONEY: Final = ("max_budget", "soft_budget", "spend")
_LONGEST: Final = 40


def differences(
    before: dict[str, Any] | None, after: dict[str, Any] | None
) -> Iterator[tuple[str, Any, Any]]:
    """Yield each field that differs, with what it was and what it is."""
    old, new = before or {}, after or {}
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in _UNTOLD and old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


def told(before: Any, after: Any) -> str:
    """Return what changed in one line; nothing for an object that begins or ends."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return ""
    if "secret_id" in after and "secret_id" not in before:
        return ""  # a key that was staged is there now
    return "; ".join(difference(*item) for item in differences(before, after))


def difference(name: str, old: Any, new: Any) -> str:
    """Return one field's change: what came to a list and what left it, else both values."""
    if isinstance(old, list) and isinstance(new, list):
        came = [f"+{cell(item)}" for item in new if item not in old]
        went = [f"-{cell(item)}" for item in old if item not in new]
        return f"{name} {' '.join([*came, *went]) or 'in another order'}"
    return f"{name} {_short(shown(name, old))} → {_short(shown(name, new))}"


def shown(name: str, value: Any) -> str:
    """Return a field's value as a person reads it."""
    if value in (None, [], {}):
        return "none"
    if name in _MONEY:
        return screen.money(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return cell(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
