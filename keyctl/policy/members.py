"""Say who may add, remove and promote members of teams and organizations.  Pure."""

from typing import Final

from keyctl.errors import Violation
from keyctl.policy.facts import Caller
from keyctl.policy.whom import ADMIN_ROLES
from keyctl.records import Organization, Principal, Team, User

PLAIN: Final = ("user", "internal_user")
# From the most to the least that a role of a user may do.
_RANKS: Final = (
    "proxy_admin",
    "proxy_admin_viewer",
    "org_admin",
    "internal_user",
    "internal_user_viewer",
)


def is_lower(role: str | None, than: str) -> bool:
    """Tell whether *role* of a user, None for no change, may do less than the role *than*."""
    return role is not None and _RANKS.index(role) > _RANKS.index(than)


def check(
    caller: Caller,
    record: Principal,
    user: User,
    *,
    before: str | None,
    role: str | None,
    belongs: bool,
) -> list[Violation]:
    """Return what speaks against giving *user*, whose role is *before*, the *role* in a team or organization.

    A *role* of None ends the membership.  *belongs* tells that the user is a member of the team's
    organization, or that it has none.
    """
    if caller.is_admin:
        return []
    found = []
    above = [name for name in (before, role) if name is not None and name not in PLAIN]
    if above and not _is_over(caller, record):
        found.append(
            Violation(
                rule="caller.member_role",
                field="role",
                message=f"the role {above[0]!r} is given and taken by admins, and those of the organization",
                bound=list(PLAIN),
                value=above[0],
            )
        )
    if role is not None and user.role in ADMIN_ROLES:
        found.append(
            Violation(
                rule="caller.owner_role",
                field="user_id",
                message=f"only an admin makes a {user.role} a member",
                value=user.id,
            )
        )
    if before is None and not belongs and isinstance(record, Team):
        found.append(
            Violation(
                rule="caller.member_of_organization",
                field="user_id",
                message="the team's members come from its organization",
                bound=record.organization_id,
                value=user.id,
            )
        )
    return found


def may_change(caller: Caller, record: Principal) -> bool:
    """Tell whether the caller may change the plain members of a team or an organization at all."""
    if caller.is_admin:
        return True
    if isinstance(record, Team):
        return caller.administers_team(record)
    return isinstance(record, Organization) and caller.administers_organization(record.id)


def _is_over(caller: Caller, record: Principal) -> bool:
    """Tell whether the caller is an admin of the organization that *record* is or belongs to."""
    if isinstance(record, Team):
        return caller.administers_organization(record.organization_id)
    return isinstance(record, Organization) and caller.administers_organization(record.id)
