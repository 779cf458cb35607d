"""Compare budgets, which are an amount and a period: $5 a second is more than $5 a month.  Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from keyctl import durations, money
from keyctl.records import Key

_SECONDS_A_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Allowance:
    """An amount in nano-dollars for each period; without a period it is for ever."""

    amount: int
    period: str | None

    def lies_within(self, bound: "Allowance") -> bool:
        """Tell whether this is no larger an amount for no shorter a period than *bound*.

        Between units a month of the bound has 31 days, and a month of this one 28.
        """
        if self.amount > bound.amount:
            return False
        if self.period is None:
            return True
        if bound.period is None:
            return False
        own = durations.period_length(self.period)
        least = durations.period_length(bound.period)
        if own.months and least.months:
            return own.months >= least.months
        return _seconds(own, month=28) >= _seconds(least, month=31)

    def shown(self) -> Any:
        """Return the budget as a person reads it; one without a period is a number of dollars."""
        amount = money.dollars(self.amount)
        return amount if self.period is None else f"${amount}{durations.per(self.period)}"


def budgets_of(key: Key) -> list[Allowance]:
    """Return the budgets that all requests of *key* count against."""
    own = [] if key.max_budget is None else [Allowance(key.max_budget, key.budget_duration)]
    windows = [
        Allowance(money.to_nano(window["max_budget"]), window.get("budget_duration"))
        for window in key.budget_limits
    ]
    return [*own, *windows]


def model_budgets_of(key: Key) -> Iterator[tuple[str, Allowance]]:
    """Yield the budget of each model that has one; LiteLLM's names of its parts are known too."""
    for model, entry in key.model_max_budget.items():
        amount: Any = entry.get("max_budget", entry.get("budget_limit"))
        if amount is not None:
            yield (
                model,
                Allowance(
                    money.to_nano(amount), entry.get("budget_duration", entry.get("time_period"))
                ),
            )


def uncovered(bounds: list[Allowance], budgets: list[Allowance]) -> Allowance | None:
    """Return the first of *bounds* that none of *budgets* lies within."""
    for bound in bounds:
        if not any(budget.lies_within(bound) for budget in budgets):
            return bound
    return None


def _seconds(length: durations.Duration, *, month: int) -> int:
    return length.seconds + length.months * month * _SECONDS_A_DAY
