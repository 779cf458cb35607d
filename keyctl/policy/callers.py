"""Decide who may do what to which key.  Admins, the local operator included, meet all of these rules."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from keyctl import limits
from keyctl.errors import Violation
from keyctl.policy import operations
from keyctl.policy.bounds import LAYERS, layer
from keyctl.policy.documents import granted
from keyctl.policy.facts import Facts
from keyctl.policy.rule import Rule
from keyctl.requests import KeyFields

PERMISSION: Final = {
    "generate": "/key/generate",
    "import": "/key/generate",
    "update": "/key/update",
    "rotate": "/key/regenerate",
    "revoke": "/key/regenerate",
    "delete": "/key/delete",
    "block": "/key/block",
    "unblock": "/key/unblock",
}


def _always(_: Any) -> bool:
    return True


# Fields that only admins may set though they are compared, each with what counts as setting it.
_COMPARED_TOO: Final[dict[str, Callable[[Any], bool]]] = {
    "allowed_routes": _always,
    "key_type": lambda value: value == "management",
    "allowed_passthrough_routes": bool,
    "denied_passthrough_routes": _always,
}
_SWITCHES: Final = ("disable_global_guardrails", "throttle_on_budget_exceeded")
# A field without an order is for admins too.  `blocked` is judged by whether it changes.
ADMIN_ONLY: Final[dict[str, Callable[[Any], bool]]] = {
    **_COMPARED_TOO,
    **{
        field: bool if field in _SWITCHES else _always
        for field in (*KeyFields.model_fields, "spend")
        if limits.key_orders().get(field, "admin") == "admin" and field != "blocked"
    },
}


def _read_only(facts: Facts) -> Iterable[Violation]:
    if facts.caller.is_viewer:
        yield Violation(
            rule="caller.read_only",
            field="caller",
            message=f"a {facts.caller.role} may read but not write",
            value=facts.caller.role,
        )


def _route(facts: Facts) -> Iterable[Violation]:
    action = f"key_{facts.operation}"
    if facts.operation == "generate" and facts.key.service_account:
        action = "key_generate_service_account"
    yield from operations.missing_route(facts.caller.key, action)


def _admin_block(facts: Facts) -> Iterable[Violation]:
    if facts.operation == "unblock" and facts.key.blocked_by_admin:
        yield Violation(
            rule="caller.admin_block",
            field="blocked",
            message="an admin blocked this key, so an admin lets it in again",
            value=True,
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
    if facts.operation not in ("block", "unblock") or caller.administers_team(facts.team):
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
    yield from _owner_changed(facts)
    yield from _routes_widened(facts)


def _owner_changed(facts: Facts) -> Iterable[Violation]:
    if facts.before is not None and facts.before.user_id != facts.key.user_id:
        yield Violation(
            rule="caller.admin_only",
            field="user_id",
            message="only an admin may give a key another owner",
            bound=facts.before.user_id,
            value=facts.key.user_id,
        )


def _routes_widened(facts: Facts) -> Iterable[Violation]:
    before = facts.before
    if before is None or "key_type" not in facts.given | facts.cleared:
        return
    own, bound = operations.routes_of(facts.key), operations.routes_of(before)
    if not operations.are_within(facts.key, before):
        yield Violation(
            rule="caller.admin_only",
            field="key_type",
            message="only an admin may give a key routes that it does not have",
            bound=list(bound),
            value=list(own),
        )


def _given(facts: Facts, field: str) -> Any:
    return getattr(facts.key, field) if hasattr(facts.key, field) else facts.key.gateway.get(field)


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
    own = facts.caller.key
    if facts.operation == "rotate" and facts.caller.service_team and own and own.id == facts.key.id:
        return  # a service account that rotates itself gains nothing
    needed = PERMISSION[facts.operation]
    if facts.operation == "generate" and facts.key.service_account:
        needed = "/key/service-account/generate"
    allowed = granted(layer(facts, name) for name in LAYERS)
    if needed not in allowed:
        yield Violation(
            rule="team.team_member_permissions",
            field="caller",
            message=f"plain members of this team may not use {needed}",
            bound=sorted(allowed),
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


def _rule(
    rule: str,
    demands: str,
    check: Callable[[Facts], Iterable[Violation]],
    *,
    binds: Literal["caller", "secret"] = "caller",
    guards: str = "",
) -> Rule:
    return Rule(
        id=rule,
        binds=binds,
        overridable=False,
        demands=demands,
        check=check,
        closes=not guards,
        guards=guards,
    )


_CHOICE: Final = "who makes keys here is the owner's choice; what is made lies within the ceiling"
_OTHERS: Final = (
    "keys of others are not theirs to change or end; what is taken lies within the ceiling"
)
_STAYS: Final = "others' purses are not theirs to spend; what is made lies within the ceiling"

RULES: Final = (
    _rule(
        "caller.route",
        "the routes of the caller's key hold the operation's",
        _route,
        binds="secret",
    ),
    _rule(
        "caller.admin_block",
        "who lets a key in again that an admin blocked is an admin",
        _admin_block,
    ),
    _rule(
        "caller.read_only",
        "a viewer changes nothing",
        _read_only,
        guards="a viewer is there to look; what is made lies within the ceiling",
    ),
    _rule(
        "caller.no_rights",
        "the caller is a user or a service account",
        _no_rights,
        guards="nobody would answer for what such a key makes; it lies within the ceiling",
    ),
    _rule(
        "caller.self_only",
        "the key is the caller's own, or the caller administers its team",
        _self_only,
        guards=_OTHERS,
    ),
    _rule(
        "caller.team_member",
        "the caller is a member of the key's team",
        _team_member,
        guards=_STAYS,
    ),
    _rule(
        "caller.service_account_team",
        "a service account stays in its team",
        _service_team,
        guards=_STAYS,
    ),
    _rule(
        "caller.suspend",
        "who blocks a key administers its team or organization",
        _suspend,
        guards="whoever uses a key is not to lose it; a block gives nothing to whoever blocks",
    ),
    _rule(
        "caller.organization",
        "the caller belongs to the key's organization",
        _organization,
        guards=_STAYS,
    ),
    _rule("caller.admin_only", "fields for admins are left alone", _admin_only),
    *(
        _rule(
            f"{name}.allowed_team_member_roles",
            f"the caller's team role is an allowed one ({name} policy)",
            _member_roles(name),
            guards=_CHOICE,
        )
        for name in LAYERS
    ),
    _rule(
        "team.team_member_permissions",
        "a plain member has been granted this operation",
        _member_permissions,
        guards=_CHOICE,
    ),
    _rule(
        "personal.allowed_user_roles",
        "the caller's role may make keys without a team",
        _user_roles,
        guards=_CHOICE,
    ),
)
