"""Tell who may do what to whose key, by asking the rules that decide it.  Pure.

Each cell of the table is the answer of the same rules that judge a command, for a small world: the
organization `acme` with the team `web`, people of every role, and a key of each.  LiteLLM's answer
stands beside it, with the reason where it is another one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from keyctl.policy import engine, members, operations
from keyctl.policy.documents import MemberPermission, Policy
from keyctl.policy.facts import Caller, Facts, Layers, Operation
from keyctl.records import Key, Organization, Team, User

Answer = Literal["yes", "granted", "no"]
WHOSE: Final = ("own", "member's", "stranger's", "admin's")
ROLES: Final = (
    "proxy_admin",
    "proxy_admin_viewer",
    "org_admin",
    "team_admin",
    "member",
    "internal_user",
    "internal_user_viewer",
    "service_account",
)
OPERATIONS: Final[tuple[Operation, ...]] = (
    "generate",
    "update",
    "rotate",
    "revoke",
    "block",
    "unblock",
    "delete",
)
# What LiteLLM 1.109 answers: a letter for the own, a member's, a stranger's and an admin's key.
# y: yes, g: where a permission or setting grants it, n: no.
_ADMINS: Final = {"proxy_admin": "yyyy"}
_LITELLM: Final[dict[str, dict[str, str]]] = {
    "generate": {
        "org_admin": "ynnn",
        "team_admin": "ygnn",
        "member": "gnnn",
        "internal_user": "ynnn",
        "service_account": "gnnn",
    },
    "update": {
        "org_admin": "ynnn",
        "team_admin": "ygng",
        "member": "gnnn",
        "internal_user": "ynnn",
        "service_account": "gnnn",
    },
    "rotate": {
        "org_admin": "ynnn",
        "team_admin": "yyny",
        "member": "gnnn",
        "internal_user": "ynnn",
    },
    "revoke": {},
    "block": {"org_admin": "nyny", "team_admin": "yyny"},
    "unblock": {"org_admin": "nyny", "team_admin": "yyny"},
    "delete": {
        "org_admin": "ynnn",
        "team_admin": "yyny",
        "member": "ynnn",
        "internal_user": "ynnn",
    },
}
_MEANS: Final[dict[str, Answer]] = {"y": "yes", "g": "granted", "n": "no"}
# Why a cell differs, by the rule that refuses what LiteLLM allows.
_STRICTER: Final = {
    "caller.owner_role": "who administers a team would act with an admin's key",
    "caller.member_keys": "whoever takes a key for another could act as them",
    "caller.service_account_user": "a key of nobody would act on people's keys",
    "caller.self_only": "only who administers the key's team acts on another's key",
    "team.team_member_permissions": "the member permission of this operation has an effect",
    "caller.suspend": "an owner could lift a block",
}
_WIDER: Final = {
    "org_admin": "an organization's admin is admin of each of its teams",
    "team_admin": "a leaked key is changed and rotated by who administers the team",
    "service_account": "a service account holds its own key's life",
    "": "keyctl's own operation: LiteLLM ends no single secret",
}
_NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
_STAMPS: Final[dict[str, Any]] = {
    "created_at": _NOW,
    "created_by": "",
    "updated_at": _NOW,
    "updated_by": "",
}
_IN_TEAM: Final = ("team_admin", "member", "service_account")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """May a *role* do an *operation* to whose key: what the rules say, and what LiteLLM does.

    `rules` are those that refuse, or that ask for a grant.
    """

    operation: str
    route: str
    role: str
    whose: str
    allowed: Answer
    rules: tuple[str, ...]
    litellm: Answer
    reason: str | None


def table() -> Iterator[Cell]:
    """Yield every cell: operations on keys first, then those on teams, users and organizations."""
    for operation in OPERATIONS:
        for role in ROLES:
            for place, whose in enumerate(WHOSE):
                allowed, rules = _answer(operation, role, whose)
                letters = {**_ADMINS, **_LITELLM[operation]}.get(role, "nnnn")
                litellm = _MEANS[letters[place]]
                yield Cell(
                    operation=operation,
                    route=operations.route_of(f"key_{operation}"),
                    role=role,
                    whose=whose,
                    allowed=allowed,
                    rules=rules,
                    litellm=litellm,
                    reason=_reason(operation, role, allowed, litellm, rules),
                )
    yield from _directory()


def facts_for(operation: Operation, role: str, whose: str, *, granted: bool) -> Facts:
    """Return the facts of one cell, with every permission *granted* or none."""
    team, organization, people = _world()
    caller = _callers()[role]
    owner_id = {"own": caller.user_id, "member's": "kim", "stranger's": "sam", "admin's": "root"}[
        whose
    ]
    in_team = whose in ("member's", "admin's") or (whose == "own" and role in _IN_TEAM)
    key = Key(
        id="key_judged",
        user_id=owner_id,
        team_id=team.id if in_team else None,
        organization_id=organization.id if in_team else None,
        service_account=owner_id is None and in_team,
        **_STAMPS,
    )
    return Facts(
        operation=operation,
        key=key,
        before=None if operation == "generate" else key,
        caller=caller,
        team=team if in_team else None,
        organization=organization if in_team else None,
        user=people.get(owner_id or ""),
        owner_team_role="user" if in_team else None,
        owner_organization_role="internal_user" if in_team else None,
        layers=Layers(team=_policy(granted=granted) if in_team else None),
        to_own_sink=True,
        now=_NOW,
    )


def _answer(operation: Operation, role: str, whose: str) -> tuple[Answer, tuple[str, ...]]:
    asked = {
        granted: [
            item.rule
            for item in engine.evaluate_caller(facts_for(operation, role, whose, granted=granted))
        ]
        for granted in (False, True)
    }
    if not asked[False]:
        return "yes", ()
    if not asked[True]:
        return "granted", tuple(dict.fromkeys(asked[False]))
    return "no", tuple(dict.fromkeys(asked[True]))


def _reason(
    operation: str, role: str, allowed: Answer, litellm: Answer, rules: tuple[str, ...]
) -> str | None:
    if allowed == litellm:
        return None
    if operation == "revoke":
        return _WIDER[""]
    ranks = ("no", "granted", "yes")
    if ranks.index(allowed) < ranks.index(litellm):
        return next((_STRICTER[rule] for rule in rules if rule in _STRICTER), None)
    return _WIDER.get(role)


def _world() -> tuple[Team, Organization, dict[str, User]]:
    organization = Organization(id="acme", **_STAMPS)
    team = Team(id="web", organization_id="acme", **_STAMPS)
    people = {
        name: User(id=name, role="proxy_admin" if name == "root" else "internal_user", **_STAMPS)
        for name in ("kim", "sam", "root", *ROLES)
    }
    people["proxy_admin"] = replace(people["proxy_admin"], role="proxy_admin")
    return team, organization, people


def _policy(*, granted: bool) -> Policy:
    if not granted:
        return Policy()
    return Policy(team_member_permissions=list(get_args(MemberPermission)), create_member_keys=True)


def _callers() -> dict[str, Caller]:
    def user(name: str, role: str = "internal_user", **more: object) -> Caller:
        return Caller(actor=f"key:{name}", role=role, user_id=name, **more)  # type: ignore[arg-type]

    return {
        "proxy_admin": user("proxy_admin", "proxy_admin"),
        "proxy_admin_viewer": user("proxy_admin_viewer", "proxy_admin_viewer"),
        "org_admin": user("org_admin", organization_roles={"acme": "org_admin"}),
        "team_admin": user("team_admin", team_roles={"web": "admin"}),
        "member": user("member", team_roles={"web": "user"}),
        "internal_user": user("internal_user"),
        "internal_user_viewer": user("internal_user_viewer", "internal_user_viewer"),
        "service_account": Caller(actor="key:robot", role=None, service_team="web"),
    }


# --- teams, users and organizations

_DIRECTORY: Final = tuple(
    f"{word}_{verb}"
    for word in ("team", "user", "organization")
    for verb in ("create", "update", "delete")
)
# A plain member, one with a role above that, and an admin of the proxy.
_PEOPLE: Final = ("plain member", "role above", "admin")
_LITELLM_MEMBERS: Final = {
    "proxy_admin": "yyy",
    "org_admin": "yyy",
    "team_admin": "yyy",
}


def _directory() -> Iterator[Cell]:
    for action in _DIRECTORY:
        for role, caller in _callers().items():
            answer: Answer = "yes" if caller.is_admin else "no"
            yield Cell(
                operation=action,
                route=operations.route_of(action),
                role=role,
                whose="",
                allowed=answer,
                rules=(),
                litellm=answer,
                reason=None,
            )
    for action in ("team_member_add", "team_member_remove"):
        for role, caller in _callers().items():
            for place, whom in enumerate(_PEOPLE):
                yield _member_cell(action, role, caller, place, whom)


def _member_cell(action: str, role: str, caller: Caller, place: int, whom: str) -> Cell:
    team, _, people = _world()
    adds = action.endswith("_add")
    above = "admin" if whom == "role above" else "user"
    violations = members.check(
        caller,
        team,
        people["root" if whom == "admin" else "kim"],
        before=None if adds else above,
        role=above if adds else None,
        belongs=True,
    )
    may = members.may_change(caller, team) and not violations
    allowed: Answer = "yes" if may else "no"
    litellm = _MEANS[_LITELLM_MEMBERS.get(role, "nnn")[place]]
    reason = None
    if allowed != litellm:
        reason = (
            "who administers a team would make themselves, or an admin's key, more than they are"
        )
    return Cell(
        operation=action,
        route=operations.route_of(action),
        role=role,
        whose=whom,
        allowed=allowed,
        rules=tuple(item.rule for item in violations),
        litellm=litellm,
        reason=reason,
    )
