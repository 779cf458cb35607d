"""Count dollars exactly, in whole nano-dollars.  Pure."""

import re
from decimal import ROUND_CEILING, Decimal, Inexact, localcontext
from typing import Final

from keyctl.errors import InvalidMoneyError

NANO: Final = 1_000_000_000
MAX_DOLLARS: Final = 9_000_000_000
MAX_NANO: Final = MAX_DOLLARS * NANO  # fits a signed 64-bit column with room for one overshoot
ACCEPTED: Final = "US dollars from 0 to 9000000000 with at most 9 decimals, such as 50 or 0.25"

_SHAPE = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?")


def parse_money(text: str) -> int:
    """Return the nano-dollars that a person typed as *text*.

    Raises:
        InvalidMoneyError: It is no plain decimal number in range, or too fine.
    """
    plain = text.removeprefix("$")  # as amounts are shown
    if _SHAPE.fullmatch(plain) is None:
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise InvalidMoneyError(f"{shown!r} is not an amount of money", hint=f"give {ACCEPTED}")
    return to_nano(Decimal(plain))


def to_nano(amount: Decimal | int) -> int:
    """Return *amount* dollars in nano-dollars.

    Raises:
        InvalidMoneyError: Not finite, negative, over the maximum, or finer than a nano-dollar.
    """
    value = Decimal(amount)
    if not value.is_finite():
        raise InvalidMoneyError(f"{value} is not an amount of money", hint=f"give {ACCEPTED}")
    # Compared before it is scaled: 1e400 would be a 409-digit integer.
    if value < 0 or value > MAX_DOLLARS:
        raise _out_of_range(value)
    with localcontext() as context:
        context.prec = 60
        # Of 1e-999999999 scaling would leave zero, of a million digits sixty: neither is what was given.
        context.traps[Inexact] = True
        try:
            # Of what is no whole number the rest is lost here, which is inexact too.
            return int(value.scaleb(9).to_integral_exact())
        except Inexact:
            raise InvalidMoneyError(
                f"{value:.6g} dollars has more than 9 decimals", hint=f"give {ACCEPTED}"
            ) from None


def round_up(amount: Decimal) -> int:
    """Return recorded or imported costs in nano-dollars, rounded up: nothing is ever free.

    Raises:
        InvalidMoneyError: Not finite, negative or over the maximum.
    """
    if not amount.is_finite() or amount < 0 or amount > MAX_DOLLARS:
        raise _out_of_range(amount)
    if 0 < amount < Decimal("1e-9"):
        return 1  # however small: of 1e-999999999 scaling would leave zero
    with localcontext() as context:
        context.prec = 60
        context.rounding = ROUND_CEILING
        return int(amount.scaleb(9).to_integral_value(rounding=ROUND_CEILING))


def dollars(nano: int) -> Decimal | int:
    """Return *nano* nano-dollars as exact dollars: an int when whole, else a Decimal without zeros at the end."""
    whole, rest = divmod(nano, NANO)
    if rest == 0:
        return whole
    return Decimal(f"{whole}.{rest:09d}".rstrip("0"))


def _out_of_range(amount: Decimal) -> InvalidMoneyError:
    # Six digits of 9000000001 would be those of the most that is accepted.
    shown = f"{amount:f}" if 9 <= amount.adjusted() < 15 else f"{amount:.6g}"
    return InvalidMoneyError(f"{shown[:40]} dollars is out of range", hint=f"give {ACCEPTED}")
