"""Decide who may do what to which key.  Admins, the local operator included, meet all of these rules."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from keyctl import money
from keyctl.errors import Violation
from keyctl.policy.bounds import LAYERS, layer
from keyctl.policy.facts import Facts
from keyctl.policy.rule import Rule

PERMISSION: Final = {
    "generate": "/key/generate",
    "import": "/key/generate",
    "update": "/key/update",
    "rotate": "/key/regenerate",
    "delete": "/key/delete",
    "block": "/key/block",
}


def _always(_: Any) -> bool:
    return True


# Fields that only admins may set, each with what counts as setting it.
ADMIN_ONLY: Final[dict[str, Callable[[Any], bool]]] = {
    "spend": _always,
    "allowed_routes": _always,
    "permissions": _always,
    "key_type": lambda value: value == "management",
    "allowed_passthrough_routes": bool,
    "denied_passthrough_routes": _always,
    "disable_global_guardrails": bool,
    "throttle_on_budget_exceeded": bool,
    "default_estimated_output_tokens": _always,
    "default_estimated_output_tokens_per_model": _always,
}


def _read_only(facts: Facts) -> Iterable[Violation]:
    if facts.caller.is_viewer:
        yield Violation(
            rule="caller.read_only",
            field="caller",
            message=f"a {facts.caller.role} may read but not write",
            value=facts.caller.role,
        )


def _no_rights(facts: Facts) -> Iterable[Violation]:
    caller = facts.caller
    if caller.user_id is None and caller.service_team is None:
        yield Violation(
            rule="caller.no_rights",
            field="caller",
            message="a key without a user that is no service account administers nothing",
        )


def _self_only(facts: Facts) -> Iterable[Violation]:
    caller, key = facts.caller, facts.key
    if caller.service_team is not None or caller.user_id is None:
        return
    if caller.administers_team(facts.team) or (
        facts.team is None and caller.administers_organization(key.organization_id)
    ):
        return
    owners = {key.user_id} if facts.before is None else {key.user_id, facts.before.user_id}
    if key.service_account and facts.team is not None:
        return  # judged by the team's member permissions
    if owners != {caller.user_id}:
        yield Violation(
            rule="caller.self_only",
            field="user_id",
            message="only keys of the caller's own are theirs to make or change",
            bound=caller.user_id,
            value=key.user_id,
        )


def _team_member(facts: Facts) -> Iterable[Violation]:
    caller, team = facts.caller, facts.team
    if team is None or caller.service_team is not None or caller.administers_team(team):
        return
    if team.id not in caller.team_roles:
        yield Violation(
            rule="caller.team_member",
            field="team_id",
            message=f"the caller is not a member of team {team.id!r}",
            bound=team.id,
            value=caller.user_id,
        )


def _service_team(facts: Facts) -> Iterable[Violation]:
    own = facts.caller.service_team
    if own is not None and facts.key.team_id != own:
        yield Violation(
            rule="caller.service_account_team",
            field="team_id",
            message="a service account acts for its own team only",
            bound=own,
            value=facts.key.team_id,
        )


def _suspend(facts: Facts) -> Iterable[Violation]:
    caller = facts.caller
    if facts.operation != "block" or caller.administers_team(facts.team):
        return
    if not caller.administers_organization(facts.key.organization_id):
        yield Violation(
            rule="caller.suspend",
            field="caller",
            message="only who administers the key's team may block or unblock it",
            value=caller.user_id,
        )


def _organization(facts: Facts) -> Iterable[Violation]:
    wanted = facts.key.organization_id
    if wanted is None or (facts.team is not None and facts.team.organization_id == wanted):
        return
    if wanted not in facts.caller.organization_roles:
        yield Violation(
            rule="caller.organization",
            field="organization_id",
            message="the caller does not belong to this organization",
            value=wanted,
        )


def _admin_only(facts: Facts) -> Iterable[Violation]:
    for field, counts in ADMIN_ONLY.items():
        if field in facts.cleared or (field in facts.given and counts(_given(facts, field))):
            yield Violation(
                rule="caller.admin_only", field=field, message="only an admin may set this"
            )
    if facts.before is not None and facts.before.blocked != facts.key.blocked:
        yield Violation(
            rule="caller.admin_only", field="blocked", message="only an admin may set this"
        )


def _given(facts: Facts, field: str) -> Any:
    return getattr(facts.key, field) if hasattr(facts.key, field) else facts.key.gateway.get(field)


def _ceiling(facts: Facts) -> Iterable[Violation]:
    own = facts.caller.key.max_budget if facts.caller.key else None
    if own is None:
        return
    asked = facts.key.max_budget
    windows = [
        (f"budget_limits.{index}.max_budget", money.to_nano(window["max_budget"]))
        for index, window in enumerate(facts.key.budget_limits)
    ]
    for field, value in [("max_budget", asked), *windows]:
        if value is None or value > own:
            yield Violation(
                rule="caller.budget_ceiling",
                field=field,
                message="is more than the caller's own key may spend",
                bound=money.dollars(own),
                value=None if value is None else money.dollars(value),
            )


def _member_roles(name: str) -> Callable[[Facts], Iterable[Violation]]:
    def run(facts: Facts) -> Iterable[Violation]:
        policy = layer(facts, name)
        if policy is None or policy.allowed_team_member_roles is None or facts.team is None:
            return
        role = team_role(facts)
        if role not in policy.allowed_team_member_roles:
            yield Violation(
                rule=f"{name}.allowed_team_member_roles",
                field="caller",
                message="the caller's team role may not make keys here",
                bound=list(policy.allowed_team_member_roles),
                value=role,
            )

    return run


def _member_permissions(facts: Facts) -> Iterable[Violation]:
    if facts.team is None or team_role(facts) != "user":
        return
    needed = PERMISSION[facts.operation]
    if facts.operation == "generate" and facts.key.service_account:
        needed = "/key/service-account/generate"
    layers = [layer(facts, name) for name in LAYERS]
    grants = [
        set(policy.team_member_permissions)
        for policy in layers
        if policy is not None and policy.team_member_permissions is not None
    ]
    # No layer grants anything: plain members of a team make no keys in it, as in LiteLLM.
    granted = set.intersection(*grants) if grants else set()
    if needed not in granted:
        yield Violation(
            rule="team.team_member_permissions",
            field="caller",
            message=f"plain members of this team may not use {needed}",
            bound=sorted(granted),
            value=needed,
        )


def team_role(facts: Facts) -> str | None:
    """Return the caller's role in the key's team: org admins count as admin, service accounts as user."""
    if facts.team is None:
        return None
    if facts.caller.administers_team(facts.team):
        return "admin"
    if facts.caller.service_team == facts.team.id:
        return "user"
    return facts.caller.team_roles.get(facts.team.id)


def _user_roles(facts: Facts) -> Iterable[Violation]:
    personal = facts.layers.personal
    if personal is None or personal.allowed_user_roles is None or facts.key.team_id is not None:
        return
    if facts.caller.role not in personal.allowed_user_roles:
        yield Violation(
            rule="personal.allowed_user_roles",
            field="caller",
            message="the caller's role may not make keys without a team",
            bound=list(personal.allowed_user_roles),
            value=facts.caller.role,
        )


def _rule(rule: str, demands: str, check: Callable[[Facts], Iterable[Violation]]) -> Rule:
    return Rule(id=rule, binds="caller", overridable=False, demands=demands, check=check)


RULES: Final = (
    _rule("caller.read_only", "a viewer changes nothing", _read_only),
    _rule("caller.no_rights", "the caller is a user or a service account", _no_rights),
    _rule(
        "caller.self_only",
        "the key is the caller's own, or the caller administers its team",
        _self_only,
    ),
    _rule("caller.team_member", "the caller is a member of the key's team", _team_member),
    _rule("caller.service_account_team", "a service account stays in its team", _service_team),
    _rule("caller.suspend", "who blocks a key administers its team or organization", _suspend),
    _rule("caller.organization", "the caller belongs to the key's organization", _organization),
    _rule("caller.admin_only", "fields for admins are left alone", _admin_only),
    _rule("caller.budget_ceiling", "no key may spend more than the caller's own key", _ceiling),
    *(
        _rule(
            f"{name}.allowed_team_member_roles",
            f"the caller's team role is an allowed one ({name} policy)",
            _member_roles(name),
        )
        for name in LAYERS
    ),
    _rule(
        "team.team_member_permissions",
        "a plain member has been granted this operation",
        _member_permissions,
    ),
    _rule(
        "personal.allowed_user_roles", "the caller's role may make keys without a team", _user_roles
    ),
)
