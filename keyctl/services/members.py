"""Add and remove members of teams and organizations, and set their roles and limits."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from keyctl import money, views
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.errors import DeniedError, MemberNotFoundError, ObjectTakenError
from keyctl.policy import engine, members
from keyctl.policy.members import PLAIN
from keyctl.purses import member_purse
from keyctl.records import Member, Organization, Principal, Team, User
from keyctl.services import denials
from keyctl.services.callers import check_route
from keyctl.services.leaving import What, settle
from keyctl.services.owners import COMMAND, WORD, P, require, require_administrator
from keyctl.services.periods import time_anew
from keyctl.services.tiers import require_tier
from keyctl.services.transaction import Unit, anchor, told_columns, writing
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class _Membership:
    """Both sides of a membership, locked, and the user's role there, None for no member."""

    unit: Unit
    record: Principal
    user: User
    role: str | None


@dataclass(frozen=True, slots=True)
class MemberService:
    """Changes members of teams and organizations.  Every change is one transaction."""

    workspace: Workspace

    def add(
        self,
        kind: type[P],
        object_id: str,
        user_id: str,
        role: str,
        *,
        keys: What | None = None,
    ) -> dict[str, Any]:
        """Make a user a member, or give a member another role.

        *keys* says what becomes of the keys there of a member who gets a lower role.

        Raises:
            NotFoundError: The team, organization or user does not exist.
            ObjectTakenError: The user is a member with that role already.
            KeysLeftError: The member has some there, and *keys* says nothing.
        """
        word = WORD[kind]
        with self._membership("add", kind, object_id, user_id) as membership:
            unit = membership.unit
            if membership.role == role:
                raise ObjectTakenError(
                    f"user {user_id!r} is {role} of {word} {object_id!r} already",
                    hint="nothing to do",
                )
            left = self._give_role(membership, role, keys)
        return {
            f"{word}_id": object_id,
            "user_id": user_id,
            "role": role,
            "audit": anchor(unit.heads[-1]),
            **({"keys": left} if left else {}),
        }

    def remove(
        self, kind: type[P], object_id: str, user_id: str, *, keys: What | None = None
    ) -> dict[str, Any]:
        """End a membership; *keys* says what becomes of the member's keys there.

        Raises:
            NotFoundError: There is no such team, organization, user or membership.
            KeysLeftError: The member has some there, and *keys* says nothing.
        """
        word = WORD[kind]
        with self._membership("remove", kind, object_id, user_id) as membership:
            unit, before = membership.unit, membership.role
            if before is None:
                raise MemberNotFoundError(
                    f"user {user_id!r} is not a member of {word} {object_id!r}",
                    hint=f"keyctl {COMMAND[kind]} info {object_id} lists the members",
                )
            _check(membership, None)
            place = (kind, object_id)
            left = settle(unit, self.workspace.settings, user_id, place=place, keys=keys)
            directory.remove_member(unit.connection, kind, object_id, user_id)
            unit.record(
                f"{word}_member_removed",
                word,
                object_id,
                before={"user_id": user_id, "role": before},
            )
        view = {f"{word}_id": object_id, "user_id": user_id, "audit": anchor(unit.heads[-1])}
        return {**view, **({"keys": left} if left else {})}

    def update(
        self,
        team_id: str,
        user_id: str,
        values: Mapping[str, Any],
        *,
        role: str | None = None,
        keys: What | None = None,
    ) -> dict[str, Any]:
        """Change what *values* name of a member, and its role, and return the member as it is now.

        The role follows the rules of `add`.  Who administers the team sets the limits of those who
        are plain members after it; the limits of who administers the team are for admins.

        Raises:
            NotFoundError: There is no such team, user, membership or budget.
            DeniedError: The caller may not.
            KeysLeftError: The member gets a lower role, has keys there, and *keys* says nothing.
        """
        left: list[dict[str, Any]] = []
        with self._membership("update", Team, team_id, user_id) as membership:
            unit = membership.unit
            before = _require_member(unit, team_id, user_id)
            if values.get("budget_id") is not None:
                # Before the keys of who loses a role, in keyctl's order of locks.
                require_tier(unit.connection, values["budget_id"], lock=True)
            if role is not None and role != before.role:
                check_route(unit.caller, "team_member_add_denied")
                left = self._give_role(membership, role, keys)
                before = replace(before, role=role)
            if values and not unit.caller.is_admin and before.role not in PLAIN:
                raise DeniedError(
                    "only an admin may change the limits of who administers the team",
                    hint="ask an admin",
                )
            after = with_values(before, values, unit.now)
            if values or not unit.events:
                write_change(unit, before, after)
            purse = member_purse(team_id, user_id)
            meters, _ = queries.find_meters(unit.connection, [purse])
        spend = meters[purse].spent_at(unit.now) if purse in meters else 0
        warnings = []
        if after.max_budget is not None and spend >= after.max_budget:
            warnings.append(
                f"user {user_id} has spent ${money.dollars(spend)} in team {team_id} already"
            )
        return {
            "team_id": team_id,
            **views.member_view(after, spend=spend),
            "warnings": warnings,
            "audit": anchor(unit.heads[-1]),
            **({"keys": left} if left else {}),
        }

    def _give_role(
        self, membership: _Membership, role: str, keys: What | None
    ) -> list[dict[str, Any]]:
        """Make the user a member with this role, or give the member it; return what became of the keys there."""
        unit, record, user = membership.unit, membership.record, membership.user
        _check(membership, role)
        left = []
        if membership.role is not None and role in PLAIN:
            place = (type(record), record.id)
            left = settle(unit, self.workspace.settings, user.id, place=place, keys=keys)
        write_role(unit, type(record), record.id, user.id, role, before=membership.role)
        return left

    @contextmanager
    def _membership(
        self, verb: str, kind: type[P], object_id: str, user_id: str
    ) -> Iterator[_Membership]:
        """Lock both sides and yield them, with the user's role as it is."""
        word = WORD[kind]
        action = f"{word}_member_{verb}_denied"
        with (
            denials.recorded(self.workspace, action, word, object_id),
            writing(self.workspace) as unit,
        ):
            check_route(unit.caller, action)
            record = require(unit.connection, kind, object_id, lock=True)
            require_administrator(unit.caller, record)
            user = require(unit.connection, User, user_id, lock=True)
            role = directory.member_role(unit.connection, kind, object_id, user_id)
            yield _Membership(unit=unit, record=record, user=user, role=role)


def write_role(
    unit: Unit,
    kind: type[Principal],
    object_id: str,
    user_id: str,
    role: str,
    *,
    before: str | None,
) -> None:
    """Make a user a member, or give one whose role was *before* another, and note the event."""
    word = WORD[kind]
    values: dict[str, Any] = {"role": role}
    if before is None:
        values["created_at"] = unit.now
        directory.add_member(unit.connection, kind, object_id, user_id, values)
    else:
        directory.change_role(unit.connection, kind, object_id, user_id, role)
    unit.record(
        f"{word}_member_added" if before is None else f"{word}_member_updated",
        word,
        object_id,
        before=None if before is None else {"user_id": user_id, "role": before},
        after={"user_id": user_id, **values},
    )


def with_values(member: Member, values: Mapping[str, Any], now: datetime) -> Member:
    """Return a member with other values; a budget period that is new or another begins now."""
    after = replace(member, **values)
    if after.budget_duration != member.budget_duration:
        after = replace(after, budget_anchor_at=now if after.budget_duration else None)
    return after


def write_new(unit: Unit, member: Member) -> None:
    """Make a user a member of a team, with its limits, and note the event."""
    columns = {item.name: getattr(member, item.name) for item in fields(member)}
    team_id, user_id = columns.pop("team_id"), columns.pop("user_id")
    directory.add_member(unit.connection, Team, team_id, user_id, columns)
    unit.record("team_member_added", "team", team_id, after=_row(member))


def write_change(unit: Unit, before: Member, after: Member) -> None:
    """Write what a member of a team is now, and note the event."""
    directory.change_member(unit.connection, after)
    unit.record(
        "team_member_updated", "team", after.team_id, before=_row(before), after=_row(after)
    )
    time_anew(unit, before, after)


def _check(membership: _Membership, role: str | None) -> None:
    """Refuse a change of members that is for admins, or for those of the organization.

    Raises:
        PolicyDeniedError: It is, and the caller is neither.
    """
    unit, record, user = membership.unit, membership.record, membership.user
    organization_id = record.organization_id if isinstance(record, Team) else None
    belongs = organization_id is None or None is not directory.member_role(
        unit.connection, Organization, organization_id, user.id
    )
    violations = members.check(
        unit.caller, record, user, before=membership.role, role=role, belongs=belongs
    )
    if violations:
        raise engine.refuse(violations)


def _require_member(unit: Unit, team_id: str, user_id: str) -> Member:
    member = directory.find_member(unit.connection, team_id, user_id)
    if member is None:
        raise MemberNotFoundError(
            f"user {user_id!r} is not a member of team {team_id!r}",
            hint=f"keyctl team info {team_id} lists the members; keyctl team add-member adds one",
        )
    return member


def _row(member: Member) -> dict[str, Any]:
    """Return the membership as the audit trail tells it: whole, what is not limited included."""
    columns = {item.name: getattr(member, item.name) for item in fields(member)}
    del columns["team_id"]  # what the event is about
    return told_columns(columns)
