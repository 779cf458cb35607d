"""Say which state a key or secret is in at an instant, and whether a presented key is valid.  Pure."""

from collections.abc import Sequence
from datetime import datetime

from keyctl.records import Key, Organization, Presented, Principal, Secret, Team, User

KEY_STATES = ("active", "blocked", "expired", "pending", "deleted")
SECRET_STATES = ("staged", "active", "retiring", "revoked")


def key_state(key: Key, *, now: datetime) -> str:
    """Return the one word of `KEY_STATES` that says most about *key* at *now*."""
    if key.deleted_at is not None:
        return "deleted"
    if key.confirmed_at is None:
        return "pending"
    if key.blocked:
        return "blocked"
    if is_past(key.expires, now=now):
        return "expired"
    return "active"


def secret_state(secret: Secret, *, now: datetime) -> str:
    """Return the state of *secret* at *now*.  Past its `not_after` a secret is revoked, also while the database still says otherwise."""
    return "revoked" if is_past(secret.not_after, now=now) else secret.state


def authenticates(secret: Secret, *, now: datetime) -> bool:
    """Tell whether *secret* is accepted at *now*, whatever its key's state."""
    return secret_state(secret, now=now) != "revoked"


def is_past(moment: datetime | None, *, now: datetime) -> bool:
    """Tell whether *moment* is reached; None never is."""
    return moment is not None and moment <= now


def suspension_of(presented: Presented, *, now: datetime) -> str | None:
    """Return what `suspension` does, for a secret that is known with its key and the key's owners."""
    return suspension(
        presented.secret,
        presented.key,
        team=presented.team,
        organization=presented.organization,
        user=presented.user,
        now=now,
    )


def suspension(
    secret: Secret,
    key: Key,
    *,
    team: Team | None,
    organization: Organization | None,
    user: User | None,
    now: datetime,
) -> str | None:
    """Return why a key whose secret matched is refused at *now*, or None: the first reason wins.

    Neither the request nor a budget plays a part.  The order is LiteLLM's at request time
    with expiry right after block, so that an expired key never gets a budget error.
    """
    if secret.state == "revoked" or key.deleted_at is not None:
        return "revoked"
    if key.blocked:
        return "blocked"
    if is_past(key.expires, now=now):
        return "expired"
    if not authenticates(secret, now=now):
        return "revoked"
    owners: Sequence[tuple[str, Principal | None]] = (
        ("team_blocked", team),
        ("org_blocked", organization),
        ("user_blocked", user),
    )
    for reason, owner in owners:
        if owner is not None and (owner.blocked or owner.deleted_at is not None):
            return reason
    return None
