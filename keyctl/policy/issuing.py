"""Decide whether a new secret may be used as a caller, by who takes it.  Pure.

A secret that administers may be used as a caller.  One that somebody else took for its owner
authenticates at a gateway and nothing more.
"""

from datetime import datetime
from typing import Any, Final

from keyctl.errors import PolicyDeniedError, Violation
from keyctl.policy.facts import Caller
from keyctl.records import Key, Team

RAISE: Final = "caller.raises_administration"
# Who changes these chooses where a later rotation is delivered.
LEADS_AWAY: Final = (
    "key_alias",
    "team_id",
    "organization_id",
    "sink",
    "auto_rotate",
    "rotation_interval",
)


def is_own(caller: Caller, key: Key) -> bool:
    """Tell whether *key* is the caller's user's, or the service account that the caller is."""
    if caller.key is not None and caller.key.id == key.id:
        return True
    return caller.user_id is not None and caller.user_id == key.user_id


def new_key_administers(caller: Caller, key: Key, team: Team | None) -> bool:
    """Tell whether the first secret of *key*, which *caller* generates, administers."""
    if not ends_with_caller(caller, key.expires):
        return False
    if caller.is_admin:
        return True
    if caller.key is not None and caller.key.may_issue is not None:
        return False
    if key.service_account:
        return caller.administers_team(team)
    return caller.user_id is not None and caller.user_id == key.user_id


def rotation_administers(caller: Caller, key: Key, *, was: bool, to_own_sink: bool) -> bool:
    """Tell whether a new secret of *key* administers; *was* tells it of the one that it replaces."""
    if not was or to_own_sink:
        return was
    return is_own(caller, key) and ends_with_caller(caller, key.expires)


def change_ends_administration(caller: Caller, before: Key, after: Key) -> bool:
    """Tell whether the change makes *before*'s secrets administer no more."""
    if (before.user_id, before.service_account) != (after.user_id, after.service_account):
        return True
    if _is_prolonged(before, after) and not ends_with_caller(caller, after.expires):
        return True  # else a key that ends would give itself more time
    if caller.is_admin or is_own(caller, before):
        return False
    return any(getattr(before, name) != getattr(after, name) for name in LEADS_AWAY)


def _is_prolonged(before: Key, after: Key) -> bool:
    if before.expires is None:
        return False
    return after.expires is None or after.expires > before.expires


def ends_with_caller(caller: Caller, end: datetime | None) -> bool:
    """Tell whether *end* (None: never) is not later than the end of the secret that the caller presents."""
    if caller.ends_at is None:
        return True
    return end is not None and end <= caller.ends_at


def check_may_raise(caller: Caller, end: datetime | None) -> None:
    """Let only admins say that what ends at *end* administers, and only within their own key's life.

    Raises:
        PolicyDeniedError: The caller is none, or the secret in hand ends sooner.
    """
    if caller.is_admin and ends_with_caller(caller, end):
        return
    if not caller.is_admin:
        why = "only an admin may say that a secret administers"
    else:
        why = "a caller's key that ends gives nothing the right to administer beyond its own end"
    raise PolicyDeniedError(
        f"denied by {RAISE}: administers: {why}",
        hint="ask an admin whose key does not end",
        violations=[
            Violation(rule=RAISE, field="administers", message=why, bound=caller.ends_at, value=end)
        ],
    )


def issuer_of(caller: Caller) -> dict[str, Any]:
    """Return the columns of a secret that tell who took it."""
    return {
        "issued_by": caller.principal,
        "issued_with": caller.key.id if caller.key else None,
    }
