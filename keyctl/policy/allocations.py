"""Check sums over live keys: guaranteed throughput and guaranteed budgets fit into what there is."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from keyctl import money
from keyctl.errors import Violation
from keyctl.policy.bounds import layer
from keyctl.policy.facts import Facts, Sums
from keyctl.policy.rule import Rule
from keyctl.records import Organization, Team

GUARANTEED: Final = "guaranteed_throughput"
Kind = Literal["tpm", "rpm"]


def _around(facts: Facts, name: str) -> tuple[Team | Organization | None, Sums]:
    if name == "team":
        return facts.team, facts.team_sums
    return facts.organization, facts.organization_sums


def _total(name: str, kind: Kind) -> Callable[[Facts], Iterable[Violation]]:
    def run(facts: Facts) -> Iterable[Violation]:
        owner, sums = _around(facts, name)
        asked = getattr(facts.key, f"{kind}_limit")
        limit = getattr(owner, f"{kind}_limit", None)
        if getattr(facts.key, f"{kind}_limit_type") != GUARANTEED or asked is None or limit is None:
            return
        total = getattr(sums, kind) + asked
        if total > limit:
            yield Violation(
                rule=f"{name}.throughput.{kind}",
                field=f"{kind}_limit",
                message=f"the {name}'s guaranteed {kind} would add up to more than it has",
                bound=limit,
                value=total,
            )

    return run


def _per_model(name: str, kind: Kind) -> Callable[[Facts], Iterable[Violation]]:
    def run(facts: Facts) -> Iterable[Violation]:
        owner, sums = _around(facts, name)
        if owner is None or getattr(facts.key, f"{kind}_limit_type") != GUARANTEED:
            return
        allocated: Mapping[str, int] = getattr(sums, f"model_{kind}")
        own: Mapping[str, int] = getattr(owner, f"model_{kind}_limit")
        for model, asked in getattr(facts.key, f"model_{kind}_limit").items():
            limits = [
                limit
                for limit in (getattr(owner, f"{kind}_limit"), own.get(model))
                if limit is not None
            ]
            total = allocated.get(model, 0) + asked
            if limits and total > min(limits):
                yield Violation(
                    rule=f"{name}.throughput.model_{kind}",
                    field=f"model_{kind}_limit.{model}",
                    message=f"the {name}'s guaranteed {kind} for {model} would add up to more than it has",
                    bound=min(limits),
                    value=total,
                )

    return run


def _budget(name: str) -> Callable[[Facts], Iterable[Violation]]:
    def run(facts: Facts) -> Iterable[Violation]:
        owner, sums = _around(facts, name)
        policy = layer(facts, name)
        if policy is None or policy.budget_allocation != "guaranteed":
            return
        if owner is None or owner.max_budget is None or facts.key.max_budget is None:
            return
        total = sums.max_budget + facts.key.max_budget
        if total > owner.max_budget:
            yield Violation(
                rule=f"{name}.budget_allocation",
                field="max_budget",
                message=f"the budgets of the {name}'s keys would add up to more than its own",
                bound=money.dollars(owner.max_budget),
                value=money.dollars(total),
            )

    return run


def _rule(rule: str, demands: str, check: Callable[[Facts], Iterable[Violation]]) -> Rule:
    return Rule(id=rule, binds="key", overridable=True, demands=demands, check=check)


_KINDS: Final[tuple[Kind, ...]] = ("tpm", "rpm")

RULES: Final = (
    *(
        _rule(
            f"{name}.throughput.{kind}",
            f"guaranteed {kind} of all live keys fits into the {name}'s {kind}_limit",
            _total(name, kind),
        )
        for name in ("team", "organization")
        for kind in _KINDS
    ),
    *(
        _rule(
            f"{name}.throughput.model_{kind}",
            f"guaranteed {kind} per model fits into the {name}'s limits",
            _per_model(name, kind),
        )
        for name in ("team", "organization")
        for kind in _KINDS
    ),
    *(
        _rule(
            f"{name}.budget_allocation",
            f"with guaranteed allocation, max_budget of all live keys fits into the {name}'s",
            _budget(name),
        )
        for name in ("team", "organization")
    ),
)
