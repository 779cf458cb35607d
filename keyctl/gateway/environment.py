"""Read a gateway's settings from the environment, and refuse a wrong word by the name of its variable."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from keyctl import money
from keyctl.db.urls import parse_url
from keyctl.errors import InvalidMoneyError, UsageError
from keyctl.gateway.verifier import UNSETTLED, accepted_seconds, seconds
from keyctl.named_files import read_line

_SECONDS: Final = {
    "KEYCTL_GATEWAY_CACHE_TTL": "cache_ttl",
    "KEYCTL_GATEWAY_OUTAGE_GRACE": "outage_grace",
    "KEYCTL_GATEWAY_FLUSH_INTERVAL": "flush_interval",
    "KEYCTL_GATEWAY_LEASE": "lease",
}
_UNSETTLED: Final = "KEYCTL_GATEWAY_UNSETTLED"
_ROLLOVER: Final = "KEYCTL_GATEWAY_BUDGET_ROLLOVER"
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}
_UNKNOWN_COST: Final = "KEYCTL_GATEWAY_UNKNOWN_COST"
_URL: Final = "KEYCTL_DATABASE_URL"


def verifier_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of the verifier that the environment names; what is empty is not named.

    Raises:
        UsageError: One of them is wrong.
    """
    options: dict[str, Any] = {}
    for variable, option in _SECONDS.items():
        if given := environment.get(variable):
            options[option] = _length(variable, option, given)
    if given := environment.get(_UNSETTLED):
        options["unsettled"] = _one_of(_UNSETTLED, UNSETTLED, given)
    if given := environment.get(_ROLLOVER):
        options["budget_rollover"] = _BOOLEANS[_one_of(_ROLLOVER, tuple(_BOOLEANS), given.lower())]
    return options


def unknown_cost(environment: Mapping[str, str]) -> Decimal | None:
    """Return what a request is taken to cost whose price nobody knows; None if that is not said.

    Raises:
        UsageError: It is no amount of money.
    """
    given = environment.get(_UNKNOWN_COST)
    if not given:
        return None
    try:
        amount = Decimal(given)
        money.round_up(amount)
    except (InvalidOperation, InvalidMoneyError):
        raise _wrong(_UNKNOWN_COST, money.ACCEPTED, given) from None
    return amount


def database_url(environment: Mapping[str, str]) -> str:
    """Return the URL in KEYCTL_DATABASE_URL, or in the file that KEYCTL_DATABASE_URL_FILE names.

    Raises:
        UsageError: Neither says one, or it is none.  It is not repeated: it may hold a password.
    """
    variable = _URL
    url = environment.get(variable)
    if not url:
        variable = f"{_URL}_FILE"
        path = environment.get(variable)
        if not path:
            raise UsageError(
                f"neither {_URL} nor {_URL}_FILE is set", hint="set one of them for the gateway"
            )
        url = read_line(Path(path), what=variable)
    try:
        parse_url(url)
    except UsageError as error:
        raise UsageError(f"{variable}: {error.message}", hint=error.hint) from None
    return url


def check(environment: Mapping[str, str]) -> None:
    """Refuse an environment that no gateway can begin with.

    Raises:
        UsageError: A variable is wrong.
    """
    database_url(environment)
    verifier_options(environment)
    unknown_cost(environment)


def _length(variable: str, option: str, given: str) -> float:
    try:
        return seconds(option, float(given))
    except ValueError:
        raise _wrong(variable, accepted_seconds(option), given) from None


def _one_of(variable: str, accepted: Sequence[str], given: str) -> str:
    if given not in accepted:
        raise _wrong(variable, f"{', '.join(accepted[:-1])} or {accepted[-1]}", given)
    return given


def _wrong(variable: str, accepted: str, given: str) -> UsageError:
    # In one sentence: the log of a proxy shows no hints.
    return UsageError(f"{variable} must be {accepted}, not {given[:40]!r}")
