"""Begin periods of budgets that are over, and time anew what is spent where a period gets another length."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeVar

from keyctl import purses
from keyctl.db import queries
from keyctl.db.queries.metered import meters_of_tier
from keyctl.records import ForeignValueError, Key, Member, Organization, Principal, Team, Tier
from keyctl.services.transaction import Unit

R = TypeVar("R", bound=Key | Principal)
_WITH_MODELS: Final = (Key, Team, Organization)


def begin_periods(unit: Unit, records: Sequence[R], *, rollover: bool) -> list[R]:
    """Return records, which are locked, each in the period of its budget that is now.

    Call it before a change.  A change to another length would hide that the old period is over, and
    what was spent in the old one would count in the new one.
    """
    due = {purses.own_purse(record): None for record in records if _is_over(record, unit)}
    if not due:
        return list(records)
    balances = queries.lock_purses(unit.connection, due, now=unit.now, rollover=rollover)
    return [
        record
        if balance is None
        else replace(record, spend=balance.spend, budget_reset_at=balance.end)
        for record in records
        for balance in [balances.get(purses.own_purse(record))]
    ]


def time_anew(unit: Unit, before: R | Member, after: R | Member) -> None:
    """Give the new period to the meters of budgets whose period changes, at the end of the transaction.

    Without this the next charge would do it, but a budget that is spent gets no charge.
    """
    # Compared first, because many keys are changed at once: other meters have the period in their name.
    if isinstance(before, Member) and isinstance(after, Member):
        is_alike = before.budget_duration == after.budget_duration
    elif isinstance(before, _WITH_MODELS) and isinstance(after, _WITH_MODELS):
        is_alike = before.model_max_budget == after.model_max_budget
    else:
        return
    if is_alike:
        return
    try:
        was = {budget.name: budget.period for budget in purses.metered(before, {})}
        now = {budget.name: budget for budget in purses.metered(after, {})}
    except ForeignValueError:
        return  # `db check` lists it
    for name in was.keys() & now.keys():
        if was[name] != now[name].period:
            unit.timed_anew[name] = now[name].terms


def time_tier_anew(unit: Unit, before: Tier, after: Tier) -> None:
    """Do what `time_anew` does for the meters of everybody who names a tier."""
    try:
        was = {budget.name.meter: budget.period for budget in purses.of_tier(before)}
        now = {budget.name.meter: budget for budget in purses.of_tier(after)}
    except ForeignValueError:
        return
    for meter in was.keys() & now.keys():
        if was[meter] != now[meter].period:
            for name in meters_of_tier(unit.connection, meter):
                unit.timed_anew[name] = now[meter].terms


def _is_over(record: Key | Principal, unit: Unit) -> bool:
    end = record.budget_reset_at
    return record.budget_duration is not None and (end is None or end <= unit.now)
