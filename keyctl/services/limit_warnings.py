"""Say what a person should know about limits that break no rule: nobody enforces them, or they are spent."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Connection

from keyctl import limits, money, purses
from keyctl.db import queries
from keyctl.db.queries.tiers import find_tier
from keyctl.nearest import each_meant, nearest
from keyctl.policy import models
from keyctl.purses import Budget, Holder, is_of_model
from keyctl.records import Key, Principal
from keyctl.services.spent import left_of

_SAID: Final = {
    "guardrails": "without a licence make LiteLLM refuse every request of the key",
}
_FIELDS: Final = {
    "": "max_budget",
    "window": "budget_limits",
    "model": "model_max_budget",
    "tokens": "tpd_limit",
}
_PER_MODEL: Final = ("model_max_budget", "model_rpm_limit", "model_tpm_limit")


def warnings_about_limits(key: Key, named: Collection[str] | None = None) -> list[str]:
    """Return what a person should know about the limits of *key*, or about those *named* only."""
    found = [
        f"{field} {_SAID.get(field, 'is kept and shown, and nobody enforces it')}"
        for field in limits.unenforced()
        if getattr(key, field, None) or key.gateway.get(field)
    ]
    limited = {field: getattr(key, field) for field in _PER_MODEL}
    found += _misnamed(limited, models.named_models(key), also=key.gateway.get("aliases") or {})
    if named is None and key.max_budget is not None and key.spend >= key.max_budget:
        spent = money.dollars(key.spend)
        found.append(f"max_budget is spent already: ${spent} of ${money.dollars(key.max_budget)}")
    return [line for line in found if named is None or line.partition(" ")[0] in named]


def warnings_about_owner(owner: Principal, named: Collection[str]) -> list[str]:
    """Return what a person should know about the limits that a team, user or organization was just given."""
    limited = {field: getattr(owner, field, None) or {} for field in _PER_MODEL if field in named}
    return list(_misnamed(limited, owner.models))


def warnings_about_spent(
    connection: Connection, holder: Key | Principal, named: Collection[str], *, now: datetime
) -> list[str]:
    """Return a line for each budget of a key or an owner that was just given, by the fields *named*, and is spent already."""
    tier_id = getattr(holder, "budget_id", None) if "budget_id" in named else None
    tier = None if tier_id is None else find_tier(connection, tier_id)
    metered = [
        budget
        for budget in purses.metered(cast("Holder", holder), {tier.id: tier} if tier else {})
        if _field_of(budget) in named
    ]
    meters, _ = queries.find_meters(connection, [budget.name for budget in metered])
    budgets = [purses.spent(budget, meters) for budget in metered]
    own = purses.own_budget(holder)
    if own is not None and "max_budget" in named:
        budgets.insert(0, own)
    return [
        f"{_field_of(budget)} is spent already: {_amounts(left_of(budget, now))}"
        for budget in budgets
        if budget.is_spent(now=now)
    ]


def _field_of(budget: Budget) -> str:
    """Return the field that sets a budget."""
    meter = budget.name.meter
    if meter.startswith(("tier:", "tokens:tier:")):
        return "budget_id"
    return _FIELDS[meter.partition(":")[0]]


def _amounts(item: Mapping[str, Any]) -> str:
    if item["unit"] == "tokens":
        return f"{item['spend']} of {item['limit']} tokens"
    what = "" if item["what"] == "max_budget" else f" ({item['what']})"
    return f"${item['spend']} of ${item['limit']}{what}"


def _misnamed(
    limited: Mapping[str, Mapping[str, Any]],
    allowed: Sequence[str],
    *,
    also: Collection[str] = (),
) -> Iterator[str]:
    """Yield a line for each field that limits a model which is not *allowed*, but like one that is.

    One that is like none may be of a group of models, which is known where keys are used.
    """
    known = models.proper_names(allowed)
    for field, names in limited.items():
        outside = [
            name
            for name in names
            if name not in also
            and not models.is_allowed(name, allowed)
            and not any(is_of_model(name, model) for model in known)
            and nearest(name, known)
        ]
        if outside:
            yield f"{field} names what is not in the list of models: {each_meant(outside, known)}"
