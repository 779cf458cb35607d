"""Dollars, exact to the nano-dollar."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyctl import jsontext, money
from keyctl.errors import InvalidMoneyError

AMOUNTS = st.integers(0, money.MAX_NANO)


@given(nano=AMOUNTS)
def test_dollars_and_nano_dollars_are_the_same_amount(nano: int) -> None:
    """There and back, as a number, as typed text and as JSON, nothing is lost."""
    amount = money.dollars(nano)
    assert money.to_nano(amount) == nano
    assert money.parse_money(format(Decimal(amount), "f")) == nano
    assert money.to_nano(jsontext.loads(jsontext.dumps(amount))) == nano


@pytest.mark.parametrize(
    ("nano", "printed"),
    [
        (0, "0"),
        (1, "1E-9"),
        (50 * money.NANO, "50"),
        (100_000_000, "0.1"),
        (money.MAX_NANO, "9000000000"),
        (money.MAX_NANO - 1, "8999999999.999999999"),
    ],
)
def test_how_an_amount_is_printed(nano: int, printed: str) -> None:
    """A JSON number without zeros at its end, and whole dollars without a point."""
    assert jsontext.dumps(money.dollars(nano)) == printed


@pytest.mark.parametrize(
    "text",
    [
        *("nan", "inf", "-inf", "-1", "1e400", "1e3", "", " 1", "1 ", "1,5", "0x10", "1_000"),
        *("+1", ".5", "5.", "٣", "9000000000.000000001", "9000000001", "0.0000000001", "$", "$$5"),
    ],
)
def test_what_is_no_amount(text: str) -> None:
    """Signs, exponents, infinities, other digits, too much and too fine: all refused."""
    with pytest.raises(InvalidMoneyError) as refused:
        money.parse_money(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    "amount",
    [Decimal("NaN"), Decimal("Infinity"), Decimal(-1), Decimal("1e400"), Decimal("1e-10")],
)
def test_numbers_that_are_no_amount(amount: Decimal) -> None:
    """What JSON can carry is checked as strictly, and 1e400 needs no 400 digits to refuse."""
    with pytest.raises(InvalidMoneyError):
        money.to_nano(amount)


@given(amount=st.decimals(0, 9_000_000, places=15))
def test_recorded_costs_are_rounded_up(amount: Decimal) -> None:
    """A cost is never recorded as less than it was, nor by a whole nano-dollar more."""
    nano = money.round_up(amount)
    assert 0 <= Decimal(nano) - amount * money.NANO < 1


@given(amounts=st.lists(st.integers(0, money.MAX_NANO // 100), max_size=50))
def test_sums_are_exact(amounts: list[int]) -> None:
    """Adding dollars and adding nano-dollars give the same total."""
    total = sum((Decimal(money.dollars(amount)) for amount in amounts), Decimal(0))
    assert money.to_nano(total) == sum(amounts)


def test_an_amount_just_over_the_most_is_told_as_it_is() -> None:
    """Six digits of it would be the most itself, which is accepted."""
    with pytest.raises(InvalidMoneyError) as caught:
        money.to_nano(money.MAX_DOLLARS + 1)
    assert caught.value.message == "9000000001 dollars is out of range"
