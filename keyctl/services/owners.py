"""Find teams, users and organizations, and say who may see them and who administers them."""

from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy import Connection

from keyctl import durations
from keyctl.db.queries import directory
from keyctl.errors import (
    DeniedError,
    NotFoundError,
    OrganizationNotFoundError,
    TeamNotFoundError,
    UserNotFoundError,
)
from keyctl.policy import members
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Principal, Team, User
from keyctl.services.identity import OVERSEERS

P = TypeVar("P", bound=Principal)

WORD: Final[dict[type[Principal], str]] = {
    Organization: "organization",
    User: "user",
    Team: "team",
}
_MISSING: Final[dict[type[Principal], type[NotFoundError]]] = {
    Organization: OrganizationNotFoundError,
    User: UserNotFoundError,
    Team: TeamNotFoundError,
}
COMMAND: Final[dict[type[Principal], str]] = {Organization: "org", User: "user", Team: "team"}


def require(connection: Connection, kind: type[P], object_id: str, *, lock: bool = False) -> P:
    """Return the live one with this id.

    Raises:
        NotFoundError: There is none.
    """
    found = directory.find(connection, kind, object_id, lock=lock)
    if found is None:
        raise missing(kind, object_id)
    return found


def missing(kind: type[Principal], object_id: str) -> NotFoundError:
    """Return the error for one that is not there, or not for the caller to see."""
    word, command = WORD[kind], COMMAND[kind]
    return _MISSING[kind](
        f"there is no {word} {object_id!r}",
        hint=f"keyctl {command} list shows them; keyctl {command} create makes one",
        given=object_id,
    )


def with_period(record: P, before: Principal | None, now: datetime) -> P:
    """Start the budget period when it is first set, or set to another length."""
    if before is not None and before.budget_duration == record.budget_duration:
        return record
    if record.budget_duration is None:
        return replace(record, budget_anchor_at=None, budget_reset_at=None)
    following = durations.next_reset(record.budget_duration, anchor=now, now=now)
    return replace(record, budget_anchor_at=now, budget_reset_at=following)


def require_administrator(caller: Caller, record: Principal) -> None:
    """Let admins, and who administers *record*, change its members.

    Raises:
        DeniedError: The caller is neither.
    """
    if not members.may_change(caller, record):
        raise DeniedError(
            f"only an admin of {WORD[type(record)]} {record.id!r} may change its members",
            hint="ask one of them",
        )


def may_see(caller: Caller, record: Principal) -> bool:
    """Tell whether the caller may see this team, user or organization."""
    if caller.role in OVERSEERS:
        return True
    if isinstance(record, User):
        return caller.user_id is not None and caller.user_id == record.id
    if isinstance(record, Team):
        return (
            record.id in caller.team_roles
            or caller.service_team == record.id
            or caller.administers_organization(record.organization_id)
        )
    return record.id in caller.organization_roles
