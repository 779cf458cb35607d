"""A wrong word in a gateway's environment is told with its variable and with the right ones."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from keyctl.errors import UsageError
from keyctl.gateway import environment
from keyctl.gateway.verifier import AsyncVerifier

URL = {"KEYCTL_DATABASE_URL": "sqlite:////nowhere/keyctl.db"}
LENGTH = "must be 0.001 to 86400 seconds"
MONEY = "must be US dollars from 0 to 9000000000"
WRONG = [
    ("KEYCTL_GATEWAY_BUDGET_ROLLOVER", "yes", "must be true, false, 1 or 0"),
    ("KEYCTL_GATEWAY_UNSETTLED", "keep", "must be charge or release"),
    *(
        (f"KEYCTL_GATEWAY_{name}", given, LENGTH)
        for name in ("CACHE_TTL", "FLUSH_INTERVAL", "LEASE")
        for given in ("5s", "0", "-1", "nan", "inf", "90000")
    ),
    ("KEYCTL_GATEWAY_OUTAGE_GRACE", "never", "must be 0 to 86400 seconds"),
    *(("KEYCTL_GATEWAY_UNKNOWN_COST", given, MONEY) for given in ("free", "-1", "NaN", "1e99")),
]


@pytest.mark.parametrize(("variable", "given", "accepted"), WRONG)
def test_a_wrong_word_is_told_whole(variable: str, given: str, accepted: str) -> None:
    """The variable, what it may be, and what it is; in one sentence, which is all that a log shows."""
    with pytest.raises(UsageError) as caught:
        environment.check({**URL, variable: given})
    told = str(caught.value)
    assert told.startswith(f"{variable} {accepted}")
    assert told.endswith(f"not {given!r}")


def test_every_variable_of_the_manual_is_tried() -> None:
    """None of them is left out above."""
    manual = Path(__file__).parents[2].joinpath("docs", "gateway.md").read_text("utf-8")
    named = set(re.findall(r"KEYCTL_GATEWAY_\w+", manual))
    assert named == {variable for variable, _, _ in WRONG}


@pytest.mark.parametrize(
    ("variable", "given", "option", "value"),
    [
        ("KEYCTL_GATEWAY_BUDGET_ROLLOVER", "True", "budget_rollover", True),
        ("KEYCTL_GATEWAY_BUDGET_ROLLOVER", "0", "budget_rollover", False),
        ("KEYCTL_GATEWAY_UNSETTLED", "release", "unsettled", "release"),
        ("KEYCTL_GATEWAY_CACHE_TTL", "0.5", "cache_ttl", 0.5),
        ("KEYCTL_GATEWAY_OUTAGE_GRACE", "0", "outage_grace", 0.0),
        ("KEYCTL_GATEWAY_FLUSH_INTERVAL", "2", "flush_interval", 2.0),
        ("KEYCTL_GATEWAY_LEASE", "3600", "lease", 3600.0),
    ],
)
def test_a_right_word_is_the_verifiers(
    variable: str, given: str, option: str, value: Any, tmp_path: Path
) -> None:
    """It takes all of them."""
    options = environment.verifier_options({variable: given})
    assert options == {option: value}
    AsyncVerifier(f"sqlite:///{tmp_path}/keyctl.db", **options)


def test_what_is_empty_is_not_named() -> None:
    """As a file of a container's settings leaves it."""
    empty = dict.fromkeys((variable for variable, _, _ in WRONG), "")
    environment.check({**URL, **empty})
    assert environment.verifier_options(empty) == {}
    assert environment.unknown_cost(empty) is None


def test_a_cost_is_exact() -> None:
    """It is what a request reserves."""
    assert environment.unknown_cost({"KEYCTL_GATEWAY_UNKNOWN_COST": "0.1"}) == Decimal("0.1")
    assert environment.unknown_cost({"KEYCTL_GATEWAY_UNKNOWN_COST": "0"}) == 0


class TestTheDatabase:
    def test_is_named_or_stands_in_a_file(self, tmp_path: Path) -> None:
        """The variable first; an empty one is not set."""
        file = tmp_path / "url"
        file.write_text(URL["KEYCTL_DATABASE_URL"] + "\n")
        for named in (
            URL,
            {"KEYCTL_DATABASE_URL": "", "KEYCTL_DATABASE_URL_FILE": str(file)},
        ):
            assert environment.database_url(named) == URL["KEYCTL_DATABASE_URL"]

    @pytest.mark.parametrize(
        ("named", "told"),
        [
            ({}, "neither KEYCTL_DATABASE_URL nor KEYCTL_DATABASE_URL_FILE is set"),
            ({"KEYCTL_DATABASE_URL": "hunter2"}, "KEYCTL_DATABASE_URL: the database URL is not a"),
            ({"KEYCTL_DATABASE_URL_FILE": "/hunter2"}, "KEYCTL_DATABASE_URL_FILE: the file that"),
            ({"KEYCTL_DATABASE_URL_FILE": "/dev/null"}, "KEYCTL_DATABASE_URL_FILE: the file that"),
        ],
    )
    def test_that_is_wrong_is_told_and_not_repeated(self, named: dict[str, str], told: str) -> None:
        """It may hold a password."""
        with pytest.raises(UsageError) as caught:
            environment.check(named)
        assert str(caught.value).startswith(told)
        assert "hunter2" not in str(caught.value)
