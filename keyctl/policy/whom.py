"""Say for whom a caller acts: whose keys they make, change and rotate, and which purses stay.  Pure."""

import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from keyctl import money
from keyctl.errors import Violation
from keyctl.policy.bounds import LAYERS, layer
from keyctl.policy.ceiling import is_bound
from keyctl.policy.facts import Facts
from keyctl.policy.rule import Rule
from keyctl.records import Member, Principal

ADMIN_ROLES: Final = ("proxy_admin", "proxy_admin_viewer")
_SUSPENDS: Final = ("block", "unblock")
_PURSE: Final = (
    "max_budget",
    "budget_limits",
    "model_max_budget",
    "budget_id",
    "tpm_limit",
    "rpm_limit",
    "tpd_limit",
    "max_parallel_requests",
    "model_tpm_limit",
    "model_rpm_limit",
)


def _member_keys(facts: Facts) -> Iterable[Violation]:
    caller, key = facts.caller, facts.key
    made = facts.operation in ("generate", "import") or facts.moved
    if not made or caller.user_id is None or key.user_id in (None, caller.user_id):
        return
    layers = [layer(facts, name) for name in LAYERS]
    said = [policy.create_member_keys for policy in layers if policy is not None]
    if True not in said or False in said:
        yield Violation(
            rule="caller.member_keys",
            field="user_id",
            message="keys for others are made where a policy says create_member_keys and none forbids it",
            bound=caller.user_id,
            value=key.user_id,
        )


def _owner_role(facts: Facts) -> Iterable[Violation]:
    owner = facts.user
    if owner is None or owner.role not in ADMIN_ROLES or owner.id == facts.caller.user_id:
        return
    if facts.operation not in _SUSPENDS:
        yield Violation(
            rule="caller.owner_role",
            field="user_id",
            message=f"only an admin makes, changes, rotates or ends keys of a {owner.role}",
            value=owner.id,
        )


def _service_account_user(facts: Facts) -> Iterable[Violation]:
    before = None if facts.before is None else facts.before.user_id
    if facts.caller.service_team is not None and (facts.key.user_id or before):
        yield Violation(
            rule="caller.service_account_user",
            field="user_id",
            message="a service account makes and changes keys without a user only",
            value=facts.key.user_id or before,
        )


def _purses(facts: Facts) -> Iterable[Violation]:
    if not is_bound(facts):
        return
    caller, key = facts.caller, facts.key
    owners: tuple[tuple[str, Principal | None, str | None], ...] = (
        ("user", caller.key_user, key.user_id),
        ("team", caller.key_team, key.team_id),
        ("organization", caller.key_organization, key.organization_id),
    )
    member = caller.key_member
    whose = None if member is None else (member.team_id, member.user_id)
    if member is not None and whose != (key.team_id, key.user_id) and is_purse(member):
        yield Violation(
            rule="caller.purse",
            field="team_id",
            message="what limits the caller as a member of the team would not limit this key",
            bound=member.team_id,
            value=key.team_id,
        )
    for name, purse, new in owners:
        if purse is not None and purse.id != new and is_purse(purse):
            yield Violation(
                rule="caller.purse",
                field=f"{name}_id",
                message=f"the {name} that limits the caller's own key would not limit this one",
                bound=purse.id,
                value=new,
            )


def is_purse(owner: Principal | Member) -> bool:
    """Tell whether *owner* limits all its keys together by a budget or a rate."""
    return any(getattr(owner, name, None) not in (None, [], {}) for name in _PURSE)


def _issued(facts: Facts) -> Iterator[Violation]:
    if facts.operation != "generate" or facts.most_issued is None:
        return
    if facts.issued >= facts.most_issued:
        yield Violation(
            rule="caller.may_issue.max_keys",
            field="",
            message="the caller's key may issue no more keys",
            bound=facts.most_issued,
            value=facts.issued + 1,
        )


def unbounded_by_purse(facts: Facts) -> str | None:
    """Return a warning if the holder of this key could make any number of such keys, and no purse bounds their sum."""
    owners: tuple[Principal | None, ...] = (facts.user, facts.team, facts.organization)
    if facts.key.max_budget is None or any(
        owner is not None
        and (owner.max_budget is not None or getattr(owner, "budget_limits", None))
        for owner in owners
    ):
        return None
    named = zip(("user", "team", "org"), owners, strict=True)
    whose = {noun: owner.id for noun, owner in named if owner is not None}
    total = "".join(
        f"; to set a total: keyctl {noun} update {shlex.quote(whose[noun])} --max-budget N"
        for noun in [noun for noun in ("team", "user", "org") if noun in whose][:1]
    )
    return (
        "whoever holds this key can make more keys with it,"
        f" of up to ${money.dollars(facts.key.max_budget)} each, without a total{total}"
    )


def _rule(
    rule: str, demands: str, check: Callable[[Facts], Iterable[Violation]], *, guards: str = ""
) -> Rule:
    return Rule(
        id=rule,
        binds="caller",
        overridable=False,
        demands=demands,
        check=check,
        closes=not guards,
        guards=guards,
    )


RULES: Final = (
    _rule(
        "caller.member_keys",
        "keys for other members are made only where create_member_keys is said",
        _member_keys,
        guards="it is the team's choice; a key for another administers nothing and lies within the ceiling",
    ),
    _rule(
        "caller.owner_role",
        "keys of admins and their viewers are left to admins",
        _owner_role,
        guards="admins are not to lose their keys; what another takes of theirs administers nothing",
    ),
    _rule(
        "caller.service_account_user",
        "a service account touches keys without a user only",
        _service_account_user,
        guards="people are not to lose keys to a robot; what it takes administers nothing",
    ),
    _rule(
        "caller.purse",
        "a key that is made, widened or taken stays in every purse of the caller's own key",
        _purses,
    ),
    _rule(
        "caller.may_issue.max_keys",
        "a key with may_issue makes at most so many in its period",
        _issued,
    ),
)
