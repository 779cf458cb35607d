"""Read who acts from the database: once when a command begins, and again in every transaction."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from keyctl import lifecycle
from keyctl.config.document import everywhere
from keyctl.config.settings import Settings
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.errors import CallerDeniedError, Violation
from keyctl.policy.documents import granted, stored_policy
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Presented, Team

ISSUED_BY_ANOTHER: Final = "caller.issued_by_another"


def caller_of(
    connection: Connection,
    found: Presented | None,
    settings: Settings,
    *,
    changed_by: str | None,
    now: datetime,
) -> Caller:
    """Return the caller who holds this secret, with its owner's role and memberships.

    Raises:
        CallerDeniedError: There is no such secret, the key is blocked, expired or deleted, the secret is revoked, or
            somebody else took it for its owner.  A spent budget stops no administrator.
    """
    found = _require_authority(found, now=now)
    key, user, secret = found.key, found.user, found.secret
    ends = [moment for moment in (key.expires, secret.not_after) if moment is not None]
    caller = Caller(
        actor=f"key:{key.id}",
        role=None,
        key=key,
        secret_id=secret.id,
        ends_at=min(ends, default=None),
        key_team=found.team,
        key_organization=found.organization,
        key_user=user,
        key_member=found.member,
        key_tier=None if key.budget_id is None else found.tiers.get(key.budget_id),
        groups={**queries.find_groups(connection), **settings.access_groups},
        service_team=key.team_id if key.service_account and user is None else None,
        changed_by=changed_by,
    )
    if user is None:
        return caller
    teams = directory.memberships(connection, Team, user.id)
    plain = [team_id for team_id, role in teams.items() if role == "user"]
    return replace(
        caller,
        role=user.role,
        user_id=user.id,
        team_roles=teams,
        organization_roles=directory.memberships(connection, Organization, user.id),
        team_grants=_grants(connection, settings, plain),
    )


def _require_authority(found: Presented | None, *, now: datetime) -> Presented:
    """Return what is known of the caller's secret, unless it may not act.

    Raises:
        CallerDeniedError: As `caller_of`.
    """
    if found is None:
        raise CallerDeniedError(
            "the caller's key does not authenticate",
            hint="check KEYCTL_API_KEY, or ask an admin for a new key",
        )
    reason = lifecycle.suspension_of(found, now=now)
    if reason is not None:
        raise CallerDeniedError(
            f"the caller's key is {reason.replace('_', ' ')}",
            hint="check KEYCTL_API_KEY, or ask an admin for a new key",
        )
    if not found.secret.administers:
        raise _issued_by_another(found)
    return found


def current(connection: Connection, caller: Caller, settings: Settings, *, now: datetime) -> Caller:
    """Return the caller as the database knows it now; the local operator is who it was.

    Raises:
        CallerDeniedError: Its key, its secret or its owner lost what a caller needs, or it began as an admin and is
            none any more: what it asked for and was shown then was an admin's.
    """
    if caller.secret_id is None:
        return caller
    found = queries.find_presented_secret(connection, caller.secret_id)
    now_is = caller_of(connection, found, settings, changed_by=caller.changed_by, now=now)
    if caller.is_admin and not now_is.is_admin:
        raise CallerDeniedError(
            "the caller's key is no admin's any more", hint="ask an admin, or use an admin's key"
        )
    return now_is


def _grants(
    connection: Connection, settings: Settings, team_ids: Collection[str]
) -> dict[str, frozenset[str]]:
    """Return what the policies grant plain members of these teams."""
    if not team_ids:
        return {}
    teams = directory.find_all(connection, Team, team_ids)
    owners = {team.organization_id for team in teams.values() if team.organization_id}
    organizations = directory.find_all(connection, Organization, owners)
    general = everywhere(settings, of_team=True)
    return {
        team.id: granted(
            [
                stored_policy(team),
                stored_policy(organizations[team.organization_id])
                if team.organization_id in organizations
                else None,
                general,
            ]
        )
        for team in teams.values()
    }


def _issued_by_another(found: Presented) -> CallerDeniedError:
    secret = found.secret
    return CallerDeniedError(
        f"the secret {secret.id} of key {found.key.id} administers nothing:"
        f" it was not issued to its owner",
        hint=f"rotate it with a secret of your own, or let an admin run: keyctl update"
        f" {found.key.id} --administers {secret.id}",
        violations=[
            Violation(
                rule=ISSUED_BY_ANOTHER,
                field="caller",
                message="the secret was not issued to its owner, so it administers nothing",
                bound=True,
                value=False,
            )
        ],
    )
