"""Hold new and changed keys below the caller's own: nobody passes on more than they hold.  Pure.

The ceiling is one more layer, `caller`: what a new key leaves out is filled in, what it names may
not exceed it.  A change that makes a named field wider than it was leaves the key below the
caller's own as a whole; what a change does not make wider is compared with nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from keyctl import durations, limits, money
from keyctl.errors import Violation
from keyctl.policy import holdings, models, operations
from keyctl.policy.bounds import Filled, shown
from keyctl.policy.facts import Facts
from keyctl.policy.holdings import GATEWAY, Compare, Excess, Holding
from keyctl.policy.rule import Rule
from keyctl.records import DEFAULT_ROUTES, Key, Tier


def ceiling_of(facts: Facts) -> Holding | None:
    """Return what the caller may pass on; None for admins and the local operator."""
    caller = facts.caller
    if caller.key is None or caller.is_admin:
        return None
    key, ends_at = caller.key, caller.ends_at
    if caller.key_tier is not None:
        key = _with_tier(key, caller.key_tier)
    # What a key may issue are other keys: rotated by itself, it lives no longer than it did.
    if key.may_issue is not None and not _rotates_itself(facts):
        key, ends_at = _delegated(key, key.may_issue, facts.now)
    return Holding(
        key=key,
        ends_at=ends_at,
        team=caller.key_team,
        organization=caller.key_organization,
        user=caller.key_user,
        groups=caller.groups,
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
            told = value.get(row.fields[0]) if name == "gateway" else shown(name, value)
            field = row.fields[0] if name == "gateway" else name
            if field in row.fields and told is not None:
                filled.append(Filled(field, told, row.rule))
    return key, filled


def check(facts: Facts, row: "_Row") -> Iterable[Violation]:
    """Yield a violation if the key exceeds the caller's own in what *row* compares."""
    ceiling = ceiling_of(facts)
    if ceiling is None:
        return
    # A key that is rotated by itself gains nothing but, by an old secret, time.
    own = _rotates_itself(facts) and row.fields == ("expires",)
    excess = row.compare(_holding(facts), ceiling) if own or is_bound(facts) else None
    if excess is None:
        return
    misspelt = f": {excess.misspelt}" if excess.misspelt else ""
    is_time = row.fields == ("expires",)
    yield Violation(
        rule=row.rule,
        field=row.fields[0],
        message=_too_late(facts, excess)
        if is_time
        else f"is more than the caller's own key has{row.why}{misspelt}",
        bound=excess.bound,
        value=excess.value,
    )


def _too_late(facts: Facts, excess: Excess) -> str:
    """Return in words when the key would end, and when the caller's own does."""
    # People need no fractions of a second; the bound and the value have them.
    value, bound = (None if at is None else f"{at[:19]}Z" for at in (excess.value, excess.bound))
    asked = "it would never end" if value is None else f"it would end {value}"
    own = facts.caller.key
    issues = own is not None and own.may_issue is not None and not _rotates_itself(facts)
    ceiling = "may issue keys until" if issues else "ends"
    return f"{asked}, and the caller's own key {ceiling} {bound}"


def _holding(facts: Facts) -> Holding:
    return Holding(
        key=facts.key,
        ends_at=facts.key.expires,
        team=facts.team,
        organization=facts.organization,
        user=facts.user,
        groups=facts.caller.groups,
    )


def _is_new(facts: Facts) -> bool:
    return facts.operation in ("generate", "import") or facts.moved


def is_bound(facts: Facts) -> bool:
    """Tell whether the key, as it would be, is to lie below the caller's own as a whole.

    A new key is, one that is rotated into the caller's hands, one whose next string a change leads
    to another place, and one that a change makes wider in anything: else the change would add what
    the caller has to what the key has.
    """
    if _is_new(facts):
        return True
    if facts.operation == "update":
        return _is_widened(facts) or (facts.led_away and not is_own_key(facts))
    return facts.operation == "rotate" and not facts.to_own_sink and not is_own_key(facts)


def is_own_key(facts: Facts) -> bool:
    """Tell whether the key is the very one that the caller acts with."""
    return facts.caller.key is not None and facts.caller.key.id == facts.key.id


def _rotates_itself(facts: Facts) -> bool:
    return facts.operation == "rotate" and is_own_key(facts)


def _is_widened(facts: Facts) -> bool:
    if facts.before is None:
        return False
    after = _holding(facts)
    before = replace(after, key=facts.before, ends_at=facts.before.expires)
    named = facts.given | facts.cleared
    return any(
        row.compare(after, before) is not None for row in _ROWS if {*row.fields, *row.also} & named
    )


def _with_tier(key: Key, tier: Tier) -> Key:
    """Return the key with the limits of its tier beside its own."""
    limited: dict[str, Any] = {
        name: min(known)
        for name in _NUMBERS
        if (known := [n for n in (getattr(key, name), getattr(tier, name)) if n is not None])
    }
    if tier.max_budget is not None:
        window: dict[str, Any] = {"max_budget": money.dollars(tier.max_budget)}
        if tier.budget_duration is not None:
            window["budget_duration"] = tier.budget_duration
        limited["budget_limits"] = [*key.budget_limits, window]
    return replace(
        key, model_max_budget={**tier.model_max_budget, **key.model_max_budget}, **limited
    )


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


# --- what a new key gets that leaves a field open


def _copy(field: str) -> Callable[..., dict[str, Any]]:
    def run(key: Key, ceiling: Holding, named: frozenset[str], _now: datetime) -> dict[str, Any]:
        if field in named:
            return {}
        if field in GATEWAY:
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
    windows = [window for window in own.budget_limits if "budget_duration" in window]
    if "budget_limits" not in named and windows:
        found["budget_limits"] = windows
    return found


def _fill_models(
    _key: Key, ceiling: Holding, named: frozenset[str], _now: datetime
) -> dict[str, Any]:
    lists = holdings.model_lists(ceiling)
    if {"models", "access_group_ids"} & named or not lists:
        return {}
    # A group by its name, not by its models of today: the new key loses what the caller's loses.
    first = models.named_models(ceiling.key) or lists[0]
    common = [name for name in first if all(models.is_allowed(name, other) for other in lists)]
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
    compare: Compare
    fill: Callable[[Key, Holding, frozenset[str], datetime], dict[str, Any]]
    also: tuple[str, ...] = ()
    why: str = ""


_SPECIAL: Final = (
    _Row(
        rule="caller.expires",
        fields=("expires",),
        also=("duration",),
        compare=holdings.ends,
        fill=_fill_end,
    ),
    _Row(
        rule="caller.budget_ceiling",
        fields=("max_budget", "budget_duration", "budget_limits"),
        compare=holdings.budgets,
        fill=_fill_budgets,
        why=": no larger amount, and no shorter period",
    ),
    _Row(
        rule="caller.model_max_budget",
        fields=("model_max_budget",),
        compare=holdings.model_budgets,
        fill=_copy("model_max_budget"),
    ),
    _Row(
        rule="caller.models",
        fields=("models",),
        also=("access_group_ids", "team_id", "user_id", "organization_id"),
        compare=holdings.all_models,
        fill=_fill_models,
    ),
    _Row(
        rule="caller.budget_fallbacks",
        fields=("budget_fallbacks",),
        compare=holdings.fallbacks,
        fill=_copy("budget_fallbacks"),
    ),
    _Row(
        rule="caller.allowed_routes",
        fields=("allowed_routes", "key_type"),
        compare=holdings.all_routes,
        fill=_fill_routes,
    ),
)
_NUMBERS: Final = ("tpm_limit", "rpm_limit", "tpd_limit", "max_parallel_requests")
_MAPS: Final = ("model_tpm_limit", "model_rpm_limit", "mcp_rpm_limit", "tag_rpm_limit")
_TYPES: Final = ("tpm_limit_type", "rpm_limit_type")
_ORDERED: Final[dict[limits.Order, Callable[[str], Compare]]] = {
    "subset": holdings.subset,
    "keep": holdings.superset,
}
_DONE: Final = frozenset(
    {name for row in _SPECIAL for name in (*row.fields, *row.also)} | {*_NUMBERS, *_MAPS, *_TYPES}
)
_KEPT: Final = frozenset(
    name for name, order in limits.key_orders().items() if order == "keep" and name in GATEWAY
)


def _plain(field: str, compare: Compare) -> _Row:
    return _Row(rule=f"caller.{field}", fields=(field,), compare=compare, fill=_copy(field))


_ROWS: Final = (
    *_SPECIAL,
    *(_plain(field, holdings.number(field)) for field in _NUMBERS),
    *(_plain(field, holdings.numbers(field)) for field in _MAPS),
    *(_plain(field, holdings.limit_type(field)) for field in _TYPES),
    *(
        _plain(field, _ORDERED[order](field))
        for field, order in limits.key_orders().items()
        if order in _ORDERED and field not in _DONE
    ),
)
COMPARED: Final = frozenset(name for row in _ROWS for name in (*row.fields, *row.also))


# Why a row closes nothing.
_GUARDS: Final = {
    "budget_fallbacks": "a model that is fallen back to is checked as any other: this says so when the key is made",
}


def _rule(row: _Row) -> Rule:
    guards = _GUARDS.get(row.fields[0], "")
    return Rule(
        id=row.rule,
        binds="caller",
        overridable=False,
        closes=not guards,
        guards=guards,
        demands=f"{', '.join(row.fields)}: no more than the caller's own key has",
        check=lambda facts: check(facts, row),
    )


RULES: Final = tuple(_rule(row) for row in _ROWS)
