"""Tell what is left of a budget, and which budgets of a key are spent: whose, of how much, until when."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from keyctl import durations, money
from keyctl.purses import OWN, Budget

WORDS: Final = {"keys": "key", "teams": "team", "users": "user", "organizations": "organization"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A budget of which nothing is left; `resets_at` is when it begins anew, None for never."""

    of: str
    id: str
    what: str
    model: str | None
    unit: str
    limit: Decimal | int
    spend: Decimal | int
    left: Decimal | int
    period: str | None
    resets_at: datetime | None

    def __str__(self) -> str:
        """Return it in words, without what was overspent: a key's holder may read them."""
        amount = f"{self.limit} tokens" if self.unit == "tokens" else f"${Decimal(self.limit):f}"
        anew = (
            "" if self.resets_at is None else f", starts again {self.resets_at:%Y-%m-%dT%H:%M:%SZ}"
        )
        return f"{self.what} of {self.of} {self.id}, {amount}{durations.per(self.period)}{anew}"


def spent(budgets: Iterable[Budget], *, now: datetime) -> tuple[Spent, ...]:
    """Return those of *budgets* that are spent at *now*."""
    return tuple(Spent(**left_of(budget, now)) for budget in budgets if budget.is_spent(now=now))


def left_of(budget: Budget, now: datetime) -> dict[str, Any]:
    """Return a budget with what is left of it; dollars, or tokens where it counts those."""
    is_over = budget.is_over(now=now)
    spend = 0 if is_over else budget.spend
    left = max(0, budget.limit - spend)
    tokens = budget.name.counts_tokens
    return {
        "of": WORDS[budget.name.table],
        "id": budget.name.object_id,
        "what": budget.name.meter or OWN,
        "model": budget.model,
        "unit": "tokens" if tokens else "dollars",
        "limit": budget.limit if tokens else money.dollars(budget.limit),
        "spend": spend if tokens else money.dollars(spend),
        "left": left if tokens else money.dollars(left),
        "period": budget.period,
        "resets_at": None if is_over else budget.end,
    }
