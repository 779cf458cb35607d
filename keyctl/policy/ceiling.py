"""Hold new and changed keys below the caller's own: nobody passes on more than they hold.  Pure.

The ceiling is one more layer, `caller`: what a new key leaves out is filled in, what it names may
not exceed it.  A change may not make a named field wider than it was *and* wider than the caller's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from keyctl import durations, limits, money
from keyctl.errors import Violation
from keyctl.policy import models, operations, spending
from keyctl.policy.bounds import Filled, shown
from keyctl.policy.facts import Facts
from keyctl.policy.rule import Rule
from keyctl.records import DEFAULT_ROUTES, Key, Organization, Team, User
from keyctl.requests import GatewayFields

DYNAMIC: Final = "dynamic"
_GATEWAY: Final = frozenset(GatewayFields.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a key gives whoever holds it: its limits, until when, and the owners that limit it too."""

    key: Key
    ends_at: datetime | None
    team: Team | None
    organization: Organization | None
    user: User | None

    def value(self, field: str) -> Any:
        """Return what the key has in *field*, whichever column it is in."""
        return self.key.gateway.get(field) if field in _GATEWAY else getattr(self.key, field)


@dataclass(frozen=True, slots=True)
class Excess:
    """What is more than it may be: the bound, and the value."""

    bound: Any
    value: Any


# Says what of the first holding is more than the second has, None if nothing is.
_Compare = Callable[[Holding, Holding], Excess | None]


def ceiling_of(facts: Facts) -> Holding | None:
    """Return what the caller may pass on; None for admins and the local operator."""
    caller = facts.caller
    if caller.key is None or caller.is_admin:
        return None
    key, ends_at = caller.key, caller.ends_at
    if key.may_issue is not None:
        key, ends_at = _delegated(key, key.may_issue, facts.now)
    return Holding(
        key=key,
        ends_at=ends_at,
        team=caller.key_team,
        organization=caller.key_organization,
        user=caller.key_user,
    )


def fill(facts: Facts) -> tuple[Key, list[Filled]]:
    """Return a new key with what its request left open lowered to the caller's own, and what was set."""
    ceiling = ceiling_of(facts)
    if ceiling is None or not _is_new(facts):
        return facts.key, []
    key, filled = facts.key, []
    for row in _ROWS:
        named = facts.given | facts.cleared
        if row.compare(_holding(replace(facts, key=key)), ceiling) is None:
            continue
        for name, value in row.fill(key, ceiling, named, facts.now).items():
            key = replace(key, **{name: value})
            if name in row.fields:
                filled.append(Filled(name, shown(name, value), row.rule))
    return key, filled


def check(facts: Facts, row: "_Row") -> Iterable[Violation]:
    """Yield a violation if the key exceeds the caller's own in what *row* compares."""
    ceiling = ceiling_of(facts)
    if ceiling is None or not _is_compared(facts, row):
        return
    holding = _holding(facts)
    excess = row.compare(holding, ceiling)
    if excess is None:
        return
    if facts.operation == "update" and not facts.moved and facts.before is not None:
        before = replace(holding, key=facts.before, ends_at=facts.before.expires)
        if row.compare(holding, before) is None:
            return  # no wider than it was
    yield Violation(
        rule=row.rule,
        field=row.fields[0],
        message=f"is more than the caller's own key has{row.why}",
        bound=excess.bound,
        value=excess.value,
    )


def _holding(facts: Facts) -> Holding:
    return Holding(
        key=facts.key,
        ends_at=facts.key.expires,
        team=facts.team,
        organization=facts.organization,
        user=facts.user,
    )


def _is_new(facts: Facts) -> bool:
    return facts.operation in ("generate", "import") or facts.moved


def _is_compared(facts: Facts, row: "_Row") -> bool:
    if _is_new(facts):
        return True
    if facts.operation == "update":
        return bool({*row.fields, *row.also} & (facts.given | facts.cleared))
    if facts.operation != "rotate" or facts.to_own_sink:
        return False
    # A key that is rotated by itself gains nothing but, by an old secret, time.
    own = facts.caller.key is not None and facts.caller.key.id == facts.key.id
    return row.fields == ("expires",) if own else True


def _delegated(
    key: Key, may_issue: Mapping[str, Any], now: datetime
) -> tuple[Key, datetime | None]:
    """Return the key with the bounds of `may_issue` in place of its own; what it keeps, it keeps."""
    amount, duration = may_issue.get("max_budget"), may_issue.get("duration")
    kept = {name: key.gateway[name] for name in _KEPT & key.gateway.keys()}
    return (
        replace(
            key,
            models=may_issue.get("models") or [],
            allowed_routes=may_issue.get("allowed_routes") or [],
            key_type="default",
            max_budget=None if amount is None else money.to_nano(amount),
            budget_duration=may_issue.get("budget_duration"),
            budget_limits=[],
            model_max_budget={},
            tpm_limit=may_issue.get("tpm_limit"),
            rpm_limit=may_issue.get("rpm_limit"),
            tpd_limit=None,
            max_parallel_requests=may_issue.get("max_parallel_requests"),
            model_tpm_limit={},
            model_rpm_limit={},
            gateway=kept,
            overrides=[],
        ),
        None if duration is None else durations.parse_duration(duration).after(now),
    )


# --- how values are compared


def _ends(holding: Holding, ceiling: Holding) -> Excess | None:
    if ceiling.ends_at is None:
        return None
    if holding.ends_at is not None and holding.ends_at <= ceiling.ends_at:
        return None
    return Excess(shown("expires", ceiling.ends_at), shown("expires", holding.ends_at))


def _budgets(holding: Holding, ceiling: Holding) -> Excess | None:
    own = spending.budgets_of(holding.key)
    bound = spending.uncovered(spending.budgets_of(ceiling.key), own)
    if bound is None:
        return None
    shown_own = [budget.shown() for budget in own]
    return Excess(bound.shown(), shown_own if len(own) > 1 else (*shown_own, None)[0])


def _model_budgets(holding: Holding, ceiling: Holding) -> Excess | None:
    own = dict(spending.model_budgets_of(holding.key))
    everything = spending.budgets_of(holding.key)
    for model, bound in spending.model_budgets_of(ceiling.key):
        mine = [own[model]] if model in own else []
        if spending.uncovered([bound], [*mine, *everything]) is not None:
            shown_own = own[model].shown() if model in own else None
            return Excess({model: bound.shown()}, {model: shown_own})
    return None


def _number(field: str) -> _Compare:
    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        value, bound = holding.value(field), ceiling.value(field)
        return Excess(bound, value) if _is_above(value, bound) else None

    return compare


def _numbers(field: str) -> _Compare:
    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        own = holding.value(field) or {}
        for name, bound in (ceiling.value(field) or {}).items():
            if _is_above(own.get(name), bound):
                return Excess({name: bound}, {name: own.get(name)})
        return None

    return compare


def _is_above(value: Any, bound: Any) -> bool:
    return bound is not None and (value is None or value > bound)


def _limit_type(field: str) -> _Compare:
    number = field.removesuffix("_type")

    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        value, bound = holding.value(field), ceiling.value(field)
        if value == DYNAMIC and bound != DYNAMIC and ceiling.value(number) is not None:
            return Excess(bound, value)
        return None

    return compare


def _superset(field: str) -> _Compare:
    def compare(holding: Holding, ceiling: Holding) -> Excess | None:
        own, kept = holding.value(field) or [], ceiling.value(field) or []
        return Excess(kept, own) if any(item not in own for item in kept) else None

    return compare


def _subset(field: str) -> _Compare:
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


def _fallbacks(holding: Holding, ceiling: Holding) -> Excess | None:
    reached = [model for listed in holding.key.budget_fallbacks.values() for model in listed]
    for allowed in _model_lists(ceiling):
        outside = [model for model in reached if not models.is_allowed(model, allowed)]
        if outside:
            return Excess(list(allowed), outside)
    return None


def _models(holding: Holding, ceiling: Holding) -> Excess | None:
    own = _model_lists(holding)
    for allowed in _model_lists(ceiling):
        within = (all(models.is_allowed(model, allowed) for model in listed) for listed in own)
        if not any(within):
            return Excess(list(allowed), list(holding.key.models))
    return None


def _model_lists(holding: Holding) -> list[list[str]]:
    """Return the lists that a model must be in, as the verifier asks for them; open ones left out."""
    user = holding.user
    lists = [holding.key.models]
    for name, owner in (("team", holding.team), ("organization", holding.organization)):
        if owner is not None and owner.models:
            lists.append([*owner.models, *models.overridden(holding.key, name, owner.id)])
    if user is not None and models.NO_PERSONAL in user.models:
        if holding.team is None:
            lists.append([models.NO_PERSONAL])
    elif user is not None and user.models:
        lists.append([*user.models, *models.overridden(holding.key, "user", user.id)])
    return [
        listed
        for listed in lists
        if listed and not any(model in models.EVERYTHING for model in listed)
    ]


def _routes(holding: Holding, ceiling: Holding) -> Excess | None:
    if operations.are_within(holding.key, ceiling.key):
        return None
    return Excess(list(operations.routes_of(ceiling.key)), list(operations.routes_of(holding.key)))


# --- what a new key gets that leaves a field open


def _copy(field: str) -> Callable[..., dict[str, Any]]:
    def run(key: Key, ceiling: Holding, named: frozenset[str], _now: datetime) -> dict[str, Any]:
        if field in named:
            return {}
        if field in _GATEWAY:
            return {"gateway": {**key.gateway, field: ceiling.value(field)}}
        return {field: ceiling.value(field)}

    return run


def _fill_end(_key: Key, ceiling: Holding, named: frozenset[str], _now: datetime) -> dict[str, Any]:
    if {"expires", "duration"} & named:
        return {}
    return {"duration": None, "expires": ceiling.ends_at}


def _fill_budgets(
    _key: Key, ceiling: Holding, named: frozenset[str], now: datetime
) -> dict[str, Any]:
    own = ceiling.key
    found: dict[str, Any] = {}
    if "max_budget" not in named and own.max_budget is not None:
        found["max_budget"] = own.max_budget
        if "budget_duration" not in named and own.budget_duration is not None:
            following = durations.next_reset(own.budget_duration, anchor=now, now=now)
            found |= {
                "budget_duration": own.budget_duration,
                "budget_anchor_at": now,
                "budget_reset_at": following,
            }
    if "budget_limits" not in named and own.budget_limits:
        found["budget_limits"] = own.budget_limits
    return found


def _fill_models(
    _key: Key, ceiling: Holding, named: frozenset[str], _now: datetime
) -> dict[str, Any]:
    lists = _model_lists(ceiling)
    if "models" in named or not lists:
        return {}
    first, *rest = lists
    common = [name for name in first if all(models.is_allowed(name, other) for other in rest)]
    return {"models": common} if common else {}


def _fill_routes(
    key: Key, ceiling: Holding, named: frozenset[str], _now: datetime
) -> dict[str, Any]:
    if {"allowed_routes", "key_type"} & named:
        return {}
    own = ceiling.key
    gateway = {name: value for name, value in key.gateway.items() if name != DEFAULT_ROUTES}
    if default := own.gateway.get(DEFAULT_ROUTES):
        gateway[DEFAULT_ROUTES] = default
    return {
        "key_type": own.key_type,
        "allowed_routes": list(operations.routes_of(own)),
        "gateway": gateway,
    }


# --- the table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    rule: str
    fields: tuple[str, ...]
    compare: _Compare
    fill: Callable[[Key, Holding, frozenset[str], datetime], dict[str, Any]]
    also: tuple[str, ...] = ()
    why: str = ""


_SPECIAL: Final = (
    _Row(
        rule="caller.expires",
        fields=("expires",),
        also=("duration",),
        compare=_ends,
        fill=_fill_end,
    ),
    _Row(
        rule="caller.budget_ceiling",
        fields=("max_budget", "budget_duration", "budget_limits"),
        compare=_budgets,
        fill=_fill_budgets,
        why=": no larger amount, and no shorter period",
    ),
    _Row(
        rule="caller.model_max_budget",
        fields=("model_max_budget",),
        compare=_model_budgets,
        fill=_copy("model_max_budget"),
    ),
    _Row(
        rule="caller.models",
        fields=("models",),
        also=("team_id", "user_id", "organization_id"),
        compare=_models,
        fill=_fill_models,
    ),
    _Row(
        rule="caller.budget_fallbacks",
        fields=("budget_fallbacks",),
        compare=_fallbacks,
        fill=_copy("budget_fallbacks"),
    ),
    _Row(
        rule="caller.allowed_routes",
        fields=("allowed_routes", "key_type"),
        compare=_routes,
        fill=_fill_routes,
    ),
)
_NUMBERS: Final = ("tpm_limit", "rpm_limit", "tpd_limit", "max_parallel_requests")
_MAPS: Final = ("model_tpm_limit", "model_rpm_limit", "mcp_rpm_limit", "tag_rpm_limit")
_TYPES: Final = ("tpm_limit_type", "rpm_limit_type")
_ORDERED: Final[dict[limits.Order, Callable[[str], _Compare]]] = {
    "subset": _subset,
    "keep": _superset,
}
_DONE: Final = frozenset(
    {name for row in _SPECIAL for name in (*row.fields, *row.also)} | {*_NUMBERS, *_MAPS, *_TYPES}
)
_KEPT: Final = frozenset(
    name for name, order in limits.key_orders().items() if order == "keep" and name in _GATEWAY
)


def _plain(field: str, compare: _Compare) -> _Row:
    return _Row(rule=f"caller.{field}", fields=(field,), compare=compare, fill=_copy(field))


_ROWS: Final = (
    *_SPECIAL,
    *(_plain(field, _number(field)) for field in _NUMBERS),
    *(_plain(field, _numbers(field)) for field in _MAPS),
    *(_plain(field, _limit_type(field)) for field in _TYPES),
    *(
        _plain(field, _ORDERED[order](field))
        for field, order in limits.key_orders().items()
        if order in _ORDERED and field not in _DONE
    ),
)
COMPARED: Final = frozenset(name for row in _ROWS for name in (*row.fields, *row.also))


def _rule(row: _Row) -> Rule:
    return Rule(
        id=row.rule,
        binds="caller",
        overridable=False,
        closes=True,
        demands=f"{', '.join(row.fields)}: no more than the caller's own key has",
        check=lambda facts: check(facts, row),
    )


RULES: Final = tuple(_rule(row) for row in _ROWS)
