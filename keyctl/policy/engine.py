"""Run all rules, by one function."""

import shlex
from collections.abc import Collection, Iterable
from typing import Final

from keyctl import nearest
from keyctl.errors import PolicyDeniedError, UsageError, Violation
from keyctl.policy import allocations, bounds, callers, ceiling, models, shape, whom
from keyctl.policy.facts import Caller, Facts
from keyctl.policy.rule import Rule


def _elsewhere(_: Facts) -> Iterable[Violation]:
    return ()


# Raised outside the pure rules of keys, but found in the same table.
_OUTSIDE: Final = (
    Rule(
        id="caller.issued_by_another",
        binds="secret",
        overridable=False,
        demands="the secret in hand was issued to its own owner",
        check=_elsewhere,
        closes=True,
    ),
    Rule(
        id="caller.raises_administration",
        binds="secret",
        overridable=False,
        demands="only an admin says that a secret administers, and not beyond their own key's end",
        check=_elsewhere,
        closes=True,
    ),
    Rule(
        id="caller.member_role",
        binds="caller",
        overridable=False,
        demands="roles above a plain member's are given by admins, and those of the organization",
        check=_elsewhere,
        closes=True,
    ),
    Rule(
        id="caller.member_of_organization",
        binds="caller",
        overridable=False,
        demands="the members of a team with an organization come from there",
        check=_elsewhere,
        guards="an organization says who belongs to it; a plain member holds no more than before",
    ),
    Rule(
        id="hook.custom_key_generate",
        binds="key",
        overridable=False,
        demands="the configured hook decides to allow the request",
        check=_elsewhere,
    ),
    Rule(
        id="caller.restricted",
        binds="caller",
        overridable=False,
        demands="where the configuration says restricted, no caller names a file or a database",
        check=_elsewhere,
        closes=True,
    ),
    Rule(
        id="caller.override",
        binds="caller",
        overridable=False,
        demands="only an admin may override a rule",
        check=_elsewhere,
        guards="the caller is told that the override does nothing: the rule holds anyway",
    ),
)

RULES: Final[tuple[Rule, ...]] = (
    *bounds.RULES,
    *models.RULES,
    *shape.RULES,
    *allocations.RULES,
    *callers.RULES,
    *whom.RULES,
    *ceiling.RULES,
    *_OUTSIDE,
)
_NAMED: Final = 3
_BY_ID: Final = {rule.id: rule for rule in RULES}


def evaluate(facts: Facts) -> list[Violation]:
    """Return every violation of every rule that binds this caller."""
    return [
        violation
        for rule in RULES
        if rule.binds == "key" or _binds(rule, facts)
        for violation in rule.check(facts)
    ]


def evaluate_caller(facts: Facts) -> list[Violation]:
    """Return the violations of the rules about who may do it; none for the local operator."""
    return [
        violation
        for rule in RULES
        if rule.binds != "key" and _binds(rule, facts)
        for violation in rule.check(facts)
    ]


def binds(caller: Caller) -> bool:
    """Tell whether any rule about who may do it binds this caller."""
    return caller.key is not None or not caller.is_admin


def _binds(rule: Rule, facts: Facts) -> bool:
    if rule.binds == "secret":
        return facts.caller.key is not None
    return not facts.caller.is_admin


def check_overrides(names: Collection[str]) -> None:
    """Refuse names of rules that do not exist or cannot be stepped over.

    Raises:
        UsageError: One of *names* is such a name.
    """
    for name in names:
        rule = _BY_ID.get(name)
        if rule is None:
            hint = nearest.meant(name, list(_BY_ID), otherwise="keyctl schema rules lists them")
            raise UsageError(f"there is no rule {name!r}", hint=hint)
        if not rule.overridable:
            raise UsageError(
                f"the rule {name!r} cannot be overridden",
                hint="keyctl schema rules says which can",
            )


def overridden(
    facts: Facts, violations: Iterable[Violation], overrides: Collection[str]
) -> tuple[list[Violation], list[Violation]]:
    """Split *violations* into those that stand and those an admin steps over by name."""
    standing: list[Violation] = []
    stepped_over: list[Violation] = []
    for violation in violations:
        named = violation.rule in overrides and facts.caller.is_admin
        (stepped_over if named else standing).append(violation)
    if overrides and not facts.caller.is_admin:
        standing.append(
            Violation(
                rule="caller.override",
                field="caller",
                message="only an admin may override a rule",
                value=facts.caller.role,
            )
        )
    return standing, stepped_over


def _joining(violations: Iterable[Violation]) -> str | None:
    """Return the commands that make users members, where that is all that is missing."""
    nouns = {"team.owner_member": "team", "organization.owner_member": "org"}
    commands: dict[str, None] = {}
    for item in violations:
        if item.rule not in nouns:
            return None
        ids = shlex.join((str(item.bound), str(item.value)))
        commands[f"keyctl {nouns[item.rule]} add-member {ids}"] = None
    more = "; …" if len(commands) > _NAMED else ""
    return "; ".join(list(commands)[:_NAMED]) + more


def refuse(violations: list[Violation]) -> PolicyDeniedError:
    """Return the error that carries *violations*."""
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    hint = "keyctl schema rules RULE explains one; --dry-run shows the whole verdict"
    return PolicyDeniedError(
        f"denied by {first.rule}: {first.field}: {first.message}{more}",
        hint=_joining(violations) or hint,
        violations=violations,
    )
