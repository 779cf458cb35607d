"""Spent budgets in words."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from keyctl.purses import Budget, PurseName
from keyctl.services.spent import spent

NOW = datetime(2030, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dollars", "shown"), [("1", "$1"), ("0.5", "$0.5"), ("0.000000001", "$0.000000001")]
)
def test_are_told_with_their_limit_as_it_was_given(dollars: str, shown: str) -> None:
    limit = int(Decimal(dollars) * 10**9)
    name = PurseName("keys", "key_a")
    budget = Budget(name=name, limit=limit, spend=limit, period=None, anchor=NOW)
    assert [str(item) for item in spent([budget], now=NOW)] == [f"max_budget of key key_a, {shown}"]
