"""Create, change, list and archive teams, users and organizations."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import views
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.errors import (
    ObjectInUseError,
    ObjectTakenError,
    UnreadableRowError,
)
from keyctl.policy.facts import Caller
from keyctl.policy.members import is_lower
from keyctl.purses import member_purse
from keyctl.records import Organization, Principal, Team, User
from keyctl.services.callers import (
    administering,
    require_admin,
    require_route,
)
from keyctl.services.identity import OVERSEERS
from keyctl.services.keys.follow import follow_team
from keyctl.services.leaving import What, left_by, refuse_revival, settle, without_owner
from keyctl.services.limit_warnings import warnings_about_owner, warnings_about_spent
from keyctl.services.owner_standing import standing_of
from keyctl.services.owners import (
    COMMAND,
    WORD,
    P,
    may_see,
    missing,
    require,
    with_period,
)
from keyctl.services.periods import begin_periods, time_anew
from keyctl.services.tiers import require_tier
from keyctl.services.transaction import Unit, anchor, row_of
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class DirectoryService:
    """Creates, changes, lists and archives teams, users and organizations."""

    workspace: Workspace

    def create(self, kind: type[P], object_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Make one and return its view.

        Raises:
            ObjectTakenError: A live one has this id.
            KeysLeftError: Keys that a deleted user of this id left would work again.
            OrganizationNotFoundError: The organization it should belong to does not exist.
        """
        word = WORD[kind]
        with administering(
            self.workspace, f"create a {word}", f"{word}_create_denied", word, object_id
        ) as unit:
            _check_organization(unit.connection, values)
            _check_tier(unit.connection, values)
            record = new_owner(unit, kind, object_id, values)
            try:
                created = directory.create(unit.connection, record)
            except ConstraintError:
                created = False  # somebody else was faster
            if not created:
                raise taken(kind, object_id)
            if kind is User:
                refuse_revival(unit.connection, object_id)
            unit.record(f"{word}_created", word, object_id, after=row_of(record))
        self.workspace.warnings.extend(warnings_about_owner(record, values.keys()))
        return _answer(record, unit)

    def update(
        self,
        kind: type[P],
        object_id: str,
        values: Mapping[str, Any],
        *,
        keys: What | None = None,
    ) -> dict[str, Any]:
        """Change what *values* name and return the view.

        *keys* says what becomes of the keys of a user who gets a lower role.

        Raises:
            NotFoundError: There is none with this id.
            KeysLeftError: The user has some, and *keys* says nothing.
        """
        word = WORD[kind]
        with administering(
            self.workspace, f"change a {word}", f"{word}_update_denied", word, object_id
        ) as unit:
            caller = unit.caller
            _check_organization(unit.connection, values)
            rollover = self.workspace.settings.budget_rollover
            found = require(unit.connection, kind, object_id, lock=True)
            (before,) = begin_periods(unit, [found], rollover=rollover)
            _check_tier(unit.connection, values)
            left = []
            if isinstance(before, User) and is_lower(values.get("role"), before.role):
                left = settle(unit, self.workspace.settings, object_id, place=None, keys=keys)
            after = replace(before, updated_at=unit.now, updated_by=caller.actor, **values)
            after = with_period(after, before, unit.now)
            changed = {
                item.name: getattr(after, item.name)
                for item in fields(after)
                if getattr(after, item.name) != getattr(before, item.name)
            }
            directory.change(unit.connection, kind, object_id, {**changed, "updated_at": unit.now})
            unit.record(
                f"{word}_updated", word, object_id, before=row_of(before), after=row_of(after)
            )
            time_anew(unit, before, after)
            if isinstance(before, Team) and isinstance(after, Team):
                self._follow(unit, before, after)
            named = values.keys()
            spent = warnings_about_spent(unit.connection, after, named, now=unit.now)
            self.workspace.warnings.extend(spent)
        self.workspace.warnings.extend(warnings_about_owner(after, values.keys()))
        return {**_answer(after, unit), **({"keys": left} if left else {})}

    def _follow(self, unit: Unit, before: Team, after: Team) -> None:
        if moved := follow_team(unit, before, after):
            place = f"to organization {after.organization_id!r}"
            where = place if after.organization_id else "out of its organization"
            self.workspace.warnings.append(f"{moved} keys of team {after.id!r} follow it {where}")

    def delete(self, kind: type[P], object_id: str, *, keys: What | None = None) -> dict[str, Any]:
        """Archive one that nothing alive depends on.

        *keys* says what becomes of the keys of a user.

        Raises:
            NotFoundError: There is none with this id.
            KeysLeftError: The user has some, and *keys* says nothing.
            ObjectInUseError: Live keys or teams still belong to it.
        """
        word = WORD[kind]
        with administering(
            self.workspace, f"delete a {word}", f"{word}_delete_denied", word, object_id
        ) as unit:
            caller = unit.caller
            connection = unit.connection
            before = require(connection, kind, object_id, lock=True)
            left = []
            if kind is User:
                left = settle(unit, self.workspace.settings, object_id, place=None, keys=keys)
            else:
                _require_unused(connection, kind, object_id)
            if kind is User:
                directory.leave_all(connection, object_id)
            else:
                directory.remove_member(connection, kind, object_id)
            after = replace(
                before, deleted_at=unit.now, updated_at=unit.now, updated_by=caller.actor
            )
            directory.change(
                connection,
                kind,
                object_id,
                {
                    "deleted_at": unit.now,
                    "updated_at": unit.now,
                    "updated_by": caller.actor,
                    # An archived user is remembered by id only.
                    **({"email": None} if kind is User else {}),
                },
            )
            unit.record(
                f"{word}_deleted", word, object_id, before=row_of(before), after=row_of(after)
            )
            warnings = without_owner(connection, object_id) if kind is User else []
        view = {f"{word}_id": object_id, "deleted": True, "audit": anchor(unit.heads[-1])}
        if left:
            view["keys"] = left
        return {**view, **({"warnings": warnings} if warnings else {})}

    def beginning(self, kind: type[P], text: str, *, limit: int) -> list[str]:
        """Return the ids that begin so, of those that are not archived and that the caller may see."""
        with self.workspace.database.read() as connection:
            found = directory.matching(connection, kind, f"{text}*")
        caller = self.workspace.caller
        seen = [item.id for item in found if item.deleted_at is None and may_see(caller, item)]
        return [item for item in seen if item.startswith(text)][:limit]

    def check_delete(
        self, kind: type[P], object_id: str, *, keys: What | None = None
    ) -> list[dict[str, Any]]:
        """Refuse what `delete` would refuse, and return what it would do with each key of a user.

        Raises:
            NotFoundError: There is none with this id.
            KeysLeftError: The user has some, and *keys* says nothing.
            ObjectInUseError: Live keys or teams still belong to it.
        """
        word = WORD[kind]
        require_admin(self.workspace, f"delete a {word}", f"{word}_delete_denied", word, object_id)
        with self.workspace.database.read() as connection:
            require(connection, kind, object_id)
            if kind is not User:
                _require_unused(connection, kind, object_id)
                return []
            left = left_by(connection, object_id, place=None, keys=keys, lock=False)
        return [{"key_id": key.id, "key_alias": key.key_alias, "would": keys} for key in left]

    def info(self, kind: type[P], object_id: str) -> dict[str, Any]:
        """Return the view of one: its members, or its teams, what is left of its budget, and its keys by spend.

        Of the keys those count that the caller may see.

        Raises:
            NotFoundError: There is none that the caller may see.
        """
        require_route(self.workspace, f"{WORD[kind]}_read", WORD[kind])
        with self.workspace.database.read() as connection:
            record = require(connection, kind, object_id)
            if not may_see(self.workspace.caller, record):
                raise missing(kind, object_id)
            members = None
            if kind is not User:
                members = directory.members(connection, kind, object_id)
            caller = self.workspace.caller
            now = self.workspace.database.now(connection)
            standing = standing_of(connection, caller, record, now=now)
            view = {**_shown(caller, record, members), **standing}
            if kind is Team:
                view["members_with_roles"] = _members_with_limits(connection, object_id, now)
            elif kind is User:
                view |= _memberships(connection, object_id)
        return view

    def page(
        self, kind: type[P], *, after: str | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return one page by id, and the id to go on after, None at the end."""
        caller = self.workspace.caller
        require_route(self.workspace, f"{WORD[kind]}_list", WORD[kind])
        with self.workspace.database.read() as connection:
            rows = directory.listed(connection, kind, after=after, limit=limit + 1)
        page, last = [], None
        for row in rows[:limit]:
            if isinstance(row, UnreadableRowError):
                last = row.object_id
                if caller.role in OVERSEERS:
                    self.workspace.unreadable.append(row)
                continue
            last = row.id
            if may_see(caller, row):
                page.append(_shown(caller, row, None))
        return page, last if len(rows) > limit else None


def _require_unused(connection: Connection, kind: type[Principal], object_id: str) -> None:
    word = WORD[kind]
    if directory.has_live_keys(connection, **{f"{word}_id": object_id}):
        raise ObjectInUseError(
            f"{word} {object_id!r} still has live keys",
            hint=f"keyctl list --{COMMAND[kind]} {object_id} shows them; delete or move them first",
        )
    if kind is Organization and directory.has_teams(connection, object_id):
        raise ObjectInUseError(
            f"organization {object_id!r} still has teams",
            hint="move or delete its teams first",
        )


def _members_with_limits(
    connection: Connection, team_id: str, now: datetime
) -> list[dict[str, Any]]:
    """Return the members of a team, and of those who are limited there what they may and did spend."""
    members = directory.team_members_of(connection, team_id)
    purses = {member.user_id: member_purse(team_id, member.user_id) for member in members}
    meters, _ = queries.find_meters(connection, list(purses.values()))
    shown = []
    for member in members:
        meter = meters.get(purses[member.user_id])
        view = views.member_view(member, spend=meter.spent_at(now) if meter else 0)
        is_limited = any(view[name] is not None for name in views.MEMBER_LIMITS)
        shown.append(view if is_limited else {"user_id": member.user_id, "role": member.role})
    return shown


def _memberships(connection: Connection, user_id: str) -> dict[str, list[dict[str, str]]]:
    """Return the teams and organizations of a user, with the role in each."""
    kinds: tuple[type[Principal], ...] = (Team, Organization)
    return {
        f"{WORD[kind]}s": [
            {f"{WORD[kind]}_id": object_id, "role": role}
            for object_id, role in directory.memberships(connection, kind, user_id).items()
        ]
        for kind in kinds
    }


def new_owner(unit: Unit, kind: type[P], object_id: str, values: Mapping[str, Any]) -> P:
    """Return a new team, user or organization, made now by the caller."""
    record = kind(
        id=object_id,
        created_at=unit.now,
        created_by=unit.caller.actor,
        updated_at=unit.now,
        updated_by=unit.caller.actor,
        **values,
    )
    return with_period(record, None, unit.now)


def taken(kind: type[Principal], object_id: str) -> ObjectTakenError:
    """Return the error for an id that a live one has."""
    return ObjectTakenError(
        f"{WORD[kind]} {object_id!r} exists already",
        hint=f"keyctl {COMMAND[kind]} update {object_id} changes it",
    )


def _check_organization(connection: Connection, values: Mapping[str, Any]) -> None:
    # Locked before the team: the order in which every command takes its locks.
    organization_id = values.get("organization_id")
    if organization_id is not None:
        require(connection, Organization, organization_id, lock=True)


def _check_tier(connection: Connection, values: Mapping[str, Any]) -> None:
    # Locked behind the user, and before any key.
    if values.get("budget_id") is not None:
        require_tier(connection, values["budget_id"], lock=True)


def _shown(caller: Caller, record: Principal, members: dict[str, str] | None) -> dict[str, Any]:
    view = views.principal_view(record, members=members)
    if caller.role not in OVERSEERS:
        view.pop("policy", None)
    return view


def _answer(record: Principal, unit: Unit) -> dict[str, Any]:
    return {**views.principal_view(record), "audit": anchor(unit.heads[-1])}
