"""Read single values of LiteLLM's rows: documents, instants, money, lengths of time.  Pure.

A row has LiteLLM's column names, whether it comes from PostgreSQL, from SQLite (documents and
lists as JSON text) or from the JSON of ``/key/list``.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from keyctl import durations, jsontext, money
from keyctl.errors import InvalidDurationError, InvalidMoneyError, UnmappableRowError

Row = Mapping[str, Any]


def names(text: str) -> frozenset[str]:
    """Return the column names in *text*."""
    return frozenset(text.split())


LISTS: Final = names(
    "access_group_ids access_model_names agent_access_groups agents allowed_cache_controls allowed_models"
    " allowed_routes blocked_tools mcp_access_groups mcp_servers mcp_toolsets models policies"
    " search_tools skills team_member_permissions vector_stores"
)
DOCUMENTS: Final = LISTS | names(
    "aliases budget_fallbacks budget_limits config mcp_tool_permissions members_with_roles metadata"
    " model_max_budget model_spend permissions router_settings"
)
INSTANTS: Final = names(
    "budget_reset_at created_at expires key_rotation_at last_active last_rotation_at revoke_at"
)
EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})

# Spellings that LiteLLM's parser takes for a unit by its beginning.  `ms` is not among them: it
# reads five milliseconds as five minutes.
_UNITS: Final = {
    "s": ("sec", "secs", "second", "seconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
    "w": ("week", "weeks"),
    "mo": ("mon", "month", "months"),
}
_SPELLINGS: Final = {word: unit for unit, words in _UNITS.items() for word in words}
_LOOSE = re.compile(r"([1-9][0-9]{0,9})([a-z]{2,7})")


def decoded(raw: Row) -> dict[str, Any]:
    """Return *raw* with documents, instants and exact decimals in place of their texts and floats.

    Raises:
        MalformedRequestError, UnmappableRowError: A value is not what its column should hold.
    """
    return {name: _decoded(name, value) for name, value in raw.items()}


def _decoded(name: str, value: Any) -> Any:
    if name in DOCUMENTS and isinstance(value, str):
        value = jsontext.load_value(value, what=name)
    if name in LISTS and value in EMPTY:
        return []
    if name in LISTS and not isinstance(value, list):
        raise UnmappableRowError(f"{name} is not a list")
    if name in DOCUMENTS and value not in EMPTY and not isinstance(value, (dict, list)):
        raise UnmappableRowError(f"{name} is neither an object nor a list")
    if name == "key_type" and not isinstance(value, (str, type(None))):
        raise UnmappableRowError("key_type is not a text")
    if name in INSTANTS:
        return instant(name, value)
    if isinstance(value, float):
        # The shortest text that reads back as the same float is what was once written.
        return Decimal(repr(value))
    if name in ("litellm_budget_table", "object_permission") and isinstance(value, dict):
        return decoded(value)
    return value


def instant(name: str, value: Any) -> datetime | None:
    """Return *value* as an instant; LiteLLM's columns have no zone and mean UTC.

    Raises:
        UnmappableRowError: It is none.
    """
    if value in EMPTY:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise UnmappableRowError(f"{name} is not an instant") from None


def dollars(name: str, value: Any) -> Decimal | int | None:
    """Return an amount of money in exact dollars, rounded up to a nano-dollar.

    Raises:
        UnmappableRowError: It is negative, not finite, too large, or no number.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        raise UnmappableRowError(f"{name} is not an amount of money")
    try:
        amount = Decimal(repr(value) if isinstance(value, float) else value)
        return money.dollars(money.round_up(amount))
    except InvalidMoneyError as error:
        raise UnmappableRowError(f"{name}: {error.message}") from None
    except (TypeError, ValueError, ArithmeticError):
        raise UnmappableRowError(f"{name} is not an amount of money") from None


def spent(value: Any) -> int:
    """Return what was spent in nano-dollars.

    LiteLLM resets spend by subtracting what it read from a float, which can leave a residue just
    below zero; that is nothing.

    Raises:
        UnmappableRowError: It is no amount of money.
    """
    if isinstance(value, Decimal) and value.is_finite() and -1 < value.scaleb(9) < 0:
        return 0
    return money.to_nano(dollars("spend", value) or 0)


def length(name: str, value: Any, changes: list[str]) -> str | None:
    """Return a length of time in keyctl's grammar; another spelling is noted in *changes*.

    Raises:
        UnmappableRowError: It has no one clear meaning.
    """
    if value in EMPTY:
        return None
    text = str(value)
    read = text.strip().lower() if text.strip().lower() in durations.WORDS else text
    if found := _LOOSE.fullmatch(text):
        read = f"{found[1]}{_SPELLINGS.get(found[2], found[2])}"
    try:
        durations.parse_period(read)
    except InvalidDurationError as error:
        raise UnmappableRowError(f"{name}: {error.message}", hint=error.hint) from None
    told = f"{name} {text!r} is read as {read}"
    if read != text and told not in changes:
        changes.append(told)
    return read


def without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* without those that say nothing: null, and empty texts, lists and objects."""
    return {name: value for name, value in values.items() if value not in EMPTY}


def pick(row: Row, names: Iterable[str]) -> dict[str, Any]:
    """Return the columns *names* of *row* that say something."""
    return without_empty({name: row.get(name) for name in names})
