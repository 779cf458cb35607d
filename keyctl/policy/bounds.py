"""Fill and check numbers and lengths by every bound of every layer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from keyctl import durations, jsontext, money
from keyctl.errors import Violation
from keyctl.policy.documents import Bounds, Policy
from keyctl.policy.facts import Facts
from keyctl.policy.rule import Rule
from keyctl.records import Key, Organization, Team, User

LAYERS: Final = ("team", "organization", "global")
NUMBERS: Final = ("max_budget", "tpm_limit", "rpm_limit", "max_parallel_requests")
FIELDS: Final = (*NUMBERS, "duration", "budget_duration")

_OWN_LIMITS: Final = {
    "team": NUMBERS,
    "organization": NUMBERS,
    "user": ("max_budget", "tpm_limit", "rpm_limit"),
}
# Whose bound of which field each rule holds a key to, and whether it is the owner's own limit.
_SOURCES: Final = {
    **{f"{name}.upperbound.{field}": (name, field, False) for name in LAYERS for field in FIELDS},
    **{
        f"{name}.{field}": (name, field, True)
        for name, limits in _OWN_LIMITS.items()
        for field in limits
    },
}


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that *field* may be, and the rule that says so."""

    rule: str
    field: str
    value: Any


@dataclass(frozen=True, slots=True)
class Filled:
    """A field that the request left out, and what it got from which rule or default."""

    field: str
    value: Any
    source: str


def layer(facts: Facts, name: str) -> Policy | None:
    """Return the policy of the layer *name*: team, organization or global."""
    if name == "team":
        return facts.layers.team
    return facts.layers.organization if name == "organization" else facts.layers.everywhere


def all_bounds(facts: Facts) -> Iterator[Bound]:
    """Yield every bound that applies: of the policies, and the team's, organization's and user's own."""
    for rule in _SOURCES:
        bound = _bound(facts, rule)
        if bound is not None:
            yield bound


def _bound(facts: Facts, rule: str) -> Bound | None:
    """Return the bound that *rule* sets, None where the layer or the owner sets none."""
    name, field, is_own = _SOURCES[rule]
    source: Any
    if is_own:
        source = _owner(facts, name)
    else:
        policy = layer(facts, name)
        source = policy.upperbound_key_generate_params if policy else None
    if source is None or not (is_own or isinstance(source, Bounds)):
        return None
    value = getattr(source, field)
    return None if value is None else Bound(rule, field, value)


def _owner(facts: Facts, name: str) -> Team | Organization | User | None:
    if name == "team":
        return facts.team
    return facts.organization if name == "organization" else facts.user


def fill(facts: Facts) -> tuple[Key, list[Filled]]:
    """Return the key with each missing bounded field set to its smallest bound, and what was set.

    Fields that the request clears stay empty, for `check` to refuse.
    """
    key, filled = facts.key, []
    every = list(all_bounds(facts))
    for field in FIELDS:
        bounds = [bound for bound in every if bound.field == field]
        cleared = {field, "expires"} if field == "duration" else {field}
        if not bounds or cleared & facts.cleared or _value(key, field) is not None:
            continue
        smallest = min(bounds, key=lambda bound: _rank(bound, facts.now))
        key = _set(key, smallest, facts.now)
        filled.append(Filled(field, shown(field, smallest.value), smallest.rule))
    return key, filled


def check(facts: Facts, rule: str) -> Iterable[Violation]:
    """Yield a violation if the key exceeds the bound of *rule*; a missing value is infinite."""
    bound = _bound(facts, rule)
    if bound is not None and _exceeds(facts.key, bound, facts.now):
        value = _value(facts.key, bound.field)
        yield Violation(
            rule=rule,
            field=bound.field,
            message="may not be left unlimited" if value is None else "is above what is allowed",
            bound=shown(bound.field, bound.value),
            value=shown(bound.field, value),
        )


def shown(field: str, value: Any) -> Any:
    """Return *value* of *field* as a person reads it: dollars, `Z` instants."""
    if isinstance(value, datetime):
        return jsontext.instant(value)
    if field in ("max_budget", "soft_budget", "spend") and value is not None:
        return money.dollars(value)
    return value


def _value(key: Key, field: str) -> Any:
    if field == "duration":
        return key.expires
    return getattr(key, field)


def _rank(bound: Bound, now: datetime) -> Any:
    if bound.field in NUMBERS:
        return bound.value
    return durations.period_length(bound.value).after(now)


def _exceeds(key: Key, bound: Bound, now: datetime) -> bool:
    value = _value(key, bound.field)
    if bound.field == "budget_duration" and key.max_budget is None:
        return False  # a period without a budget limits nothing
    if value is None:
        return True
    if bound.field == "duration":
        return bool(value > durations.parse_duration(bound.value).after(now))
    if bound.field == "budget_duration":
        return durations.period_length(value).exceeds(
            durations.period_length(bound.value), start=now
        )
    return bool(value > bound.value)


def _set(key: Key, bound: Bound, now: datetime) -> Key:
    if bound.field == "duration":
        length = durations.parse_duration(bound.value)
        return replace(key, duration=bound.value, expires=length.after(now))
    if bound.field == "budget_duration":
        return replace(
            key,
            budget_duration=bound.value,
            budget_anchor_at=now,
            budget_reset_at=durations.next_reset(bound.value, anchor=now, now=now),
        )
    return replace(key, **{bound.field: bound.value})


def _rule(rule: str, demands: str) -> Rule:
    return Rule(
        id=rule,
        binds="key",
        overridable=True,
        demands=demands,
        check=lambda facts: check(facts, rule),
    )


RULES: Final = (
    *(
        _rule(f"{name}.upperbound.{field}", f"{field} is at most what the {name} policy allows")
        for name in LAYERS
        for field in FIELDS
    ),
    *(
        _rule(f"{name}.{field}", f"{field} is at most the {name}'s own")
        for name, limits in _OWN_LIMITS.items()
        for field in limits
    ),
)
