"""Compare what two keys give whoever holds them, field by field, each by its own order.  Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from keyctl.nearest import each_meant
from keyctl.policy import models, operations, spending
from keyctl.policy.bounds import shown
from keyctl.records import Key, Organization, Team, User
from keyctl.requests import GatewayFields

DYNAMIC: Final = "dynamic"
GATEWAY: Final = frozenset(GatewayFields.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a key gives whoever holds it: its limits, until when, and the owners that limit it too."""

    key: Key
    ends_at: datetime | None
    team: Team | None
    organization: Organization | None
    user: User | None
    groups: Mapping[str, Sequence[str]]

    def value(self, field: str) -> Any:
        """Return what the key has in *field*, whichever column it is in."""
        return self.key.gateway.get(field) if field in GATEWAY else getattr(self.key, field)


@dataclass(frozen=True, slots=True)
class Excess:
    """What is more than it may be: the bound, the value, and what names in it may have been meant for."""

    bound: Any
    value: Any
    misspelt: str = ""


# Says what of the first holding is more than the second has, None if nothing is.
Compare = Callable[[Holding, Holding], Excess | None]


# --- how values are compared


def ends(holding: Holding, ceiling: Holding) -> Excess | None:
    """Compare until when."""
    if ceiling.ends_at is None:
        return None
    if holding.ends_at is not None and holding.ends_at <= ceiling.ends_at:
        return None
    return Excess(shown("expires", ceiling.ends_at), shown("expires", holding.ends_at))


def budgets(holding: Holding, ceiling: Holding) -> Excess | None:
    """Compare the budgets that all requests count against."""
    own = spending.budgets_of(holding.key)
    bound = spending.uncovered(spending.budgets_of(ceiling.key), own)
    if bound is None:
        return None
    shown_own = [budget.shown() for budget in own]
    return Excess(bound.shown(), shown_own if len(own) > 1 else (*shown_own, None)[0])


def model_budgets(holding: Holding, ceiling: Holding) -> Excess | None:
    """Compare the budgets of single models."""
    own = dict(spending.model_budgets_of(holding.key))
    everything = spending.budgets_of(holding.key)
    for model, bound in spending.model_budgets_of(ceiling.key):
        mine = [own[model]] if model in own else []
        if spending.uncovered([bound], [*mine, *everything]) is not None:
            shown_own = own[model].shown() if model in own else None
            return Excess({model: bound.shown()}, {model: shown_own})
    return None


def number(field: str) -> Compare:
    """Return what compares a number; none is without end."""

    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        value, bound = holding.value(field), ceiling.value(field)
        return Excess(bound, value) if _is_above(value, bound) else None

    return compare


def numbers(field: str) -> Compare:
    """Return what compares a number for each name."""

    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        own = holding.value(field) or {}
        for name, bound in (ceiling.value(field) or {}).items():
            if _is_above(own.get(name), bound):
                return Excess({name: bound}, {name: own.get(name)})
        return None

    return compare


def _is_above(value: Any, bound: Any) -> bool:
    return bound is not None and (value is None or value > bound)


def limit_type(field: str) -> Compare:
    """Return what compares how a limit is applied: a dynamic one is applied at times only."""
    number = field.removesuffix("_type")

    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        value, bound = holding.value(field), ceiling.value(field)
        if value == DYNAMIC and bound != DYNAMIC and ceiling.value(number) is not None:
            return Excess(bound, value)
        return None

    return compare


def superset(field: str) -> Compare:
    """Return what compares a list of which nothing may be missing."""

    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        own, kept = holding.value(field) or [], ceiling.value(field) or []
        return Excess(kept, own) if any(item not in own for item in kept) else None

    return compare


def subset(field: str) -> Compare:
    """Return what compares a list, or an object of lists, to which nothing may be added."""

    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        return _part_of(holding.value(field), ceiling.value(field))

    return compare


def _part_of(own: Any, bound: Any) -> Excess | None:
    """Compare lists and objects of lists; what the bound leaves out, or leaves empty, is open."""
    if not bound:
        return None
    if isinstance(bound, dict):
        for name, inner in bound.items():
            value = (own or {}).get(name)
            if name == "blocked_tools":
                excess = Excess(inner, value) if set(inner) - set(value or ()) else None
            elif isinstance(inner, bool):
                excess = Excess(inner, value) if value is not inner and not inner else None
            else:
                excess = _part_of(value, inner)
            if excess is not None:
                return Excess({name: excess.bound}, {name: excess.value})
        return None
    if not own or any(item not in bound for item in own):
        return Excess(bound, own)
    return None


def fallbacks(holding: Holding, ceiling: Holding) -> Excess | None:
    """Compare which models are fallen back to."""
    reached = [model for listed in holding.key.budget_fallbacks.values() for model in listed]
    for allowed in model_lists(ceiling):
        outside = [model for model in reached if not models.is_allowed(model, allowed)]
        if outside:
            return Excess(list(allowed), outside)
    return None


def all_models(holding: Holding, ceiling: Holding) -> Excess | None:
    """Compare which models may be used, by every list that a model must be in."""
    own = model_lists(holding)
    for allowed in model_lists(ceiling):
        within = (all(models.is_allowed(model, allowed) for model in listed) for listed in own)
        if not any(within):
            named = models.named_models(holding.key)
            outside = [model for model in named if not models.is_allowed(model, allowed)]
            told = each_meant(outside, models.proper_names(allowed))
            misspelt = told if told != ", ".join(outside) else ""
            return Excess(list(allowed), list(holding.key.models), misspelt)
    return None


def model_lists(holding: Holding) -> list[list[str]]:
    """Return the lists that a model must be in, as the verifier asks for them; open ones left out.

    Groups are expanded, their names kept: a pattern that matches a group's name covers the group
    only if it covers each of its models too.
    """
    user = holding.user
    lists = [models.named_models(holding.key)]
    for name, owner in (("team", holding.team), ("organization", holding.organization)):
        if owner is not None and owner.models:
            lists.append([*owner.models, *models.overridden(holding.key, name, owner.id)])
    if user is not None and models.NO_PERSONAL in user.models:
        if holding.team is None:
            lists.append([models.NO_PERSONAL])
    elif user is not None and user.models:
        lists.append([*user.models, *models.overridden(holding.key, "user", user.id)])
    return [
        models.expanded(listed, holding.groups)
        for listed in lists
        if listed and not any(model in models.EVERYTHING for model in listed)
    ]


def all_routes(holding: Holding, ceiling: Holding) -> Excess | None:
    """Compare which routes are reached."""
    if operations.are_within(holding.key, ceiling.key):
        return None
    return Excess(list(operations.routes_of(ceiling.key)), list(operations.routes_of(holding.key)))
