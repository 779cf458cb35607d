"""Set what the members of a team may spend there, and how fast."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection

from keyctl import money, views
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.errors import DeniedError, MemberNotFoundError
from keyctl.purses import member_purse
from keyctl.records import Member, Team, User
from keyctl.services import denials
from keyctl.services.callers import check_route
from keyctl.services.directory import require, require_administrator
from keyctl.services.tiers import require_tier
from keyctl.services.transaction import anchor, told_columns, writing
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class MemberService:
    """Changes members of teams.  Every change is one transaction."""

    workspace: Workspace

    def role(self, team_id: str, user_id: str) -> str:
        """Return the role of a member.

        Raises:
            NotFoundError: There is no such membership.
        """
        with self.workspace.database.read() as connection:
            return _require_member(connection, team_id, user_id).role

    def update(self, team_id: str, user_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change what *values* name of a member, and return the member as it is now.

        Who administers the team sets plain members' limits; those of who administers it are for
        admins.

        Raises:
            NotFoundError: There is no such team, user, membership or budget.
            DeniedError: The caller may not.
        """
        action = "team_member_update_denied"
        with (
            denials.recorded(self.workspace, action, "team", team_id),
            writing(self.workspace) as unit,
        ):
            connection, caller = unit.connection, unit.caller
            check_route(caller, action)
            team = require(connection, Team, team_id, lock=True)
            require_administrator(caller, team)
            require(connection, User, user_id, lock=True)
            before = _require_member(connection, team_id, user_id)
            if not caller.is_admin and before.role != "user":
                raise DeniedError(
                    "only an admin may change the limits of who administers the team",
                    hint="ask an admin",
                )
            if values.get("budget_id") is not None:
                require_tier(connection, values["budget_id"], lock=True)
            after = replace(before, **values)
            if after.budget_duration != before.budget_duration:
                after = replace(after, budget_anchor_at=unit.now if after.budget_duration else None)
            directory.change_member(connection, after)
            unit.record(
                "team_member_updated",
                "team",
                team_id,
                before=_row(before),
                after=_row(after),
            )
            purse = member_purse(team_id, user_id)
            meters, _ = queries.find_meters(connection, [purse])
        spend = meters[purse].spend if purse in meters else 0
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
        }


def _require_member(connection: Connection, team_id: str, user_id: str) -> Member:
    member = directory.find_member(connection, team_id, user_id)
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
