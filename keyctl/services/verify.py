"""Verify a presented key string: whose it is, and whether it is valid.  It only reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyctl import hashing, keystring, lifecycle, purses
from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.db.schema import VERIFIABLE
from keyctl.lifecycle import SECRET_STATES
from keyctl.purses import Budget
from keyctl.records import Presented, Secret
from keyctl.services.spent import Spent, spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a presented key string is worth.  Only one that matched tells whose it is.

    `reason` is None for a valid key, else one of `malformed unknown revoked blocked expired
    team_blocked org_blocked user_blocked budget_exceeded`.  `spent` are the budgets that are, when
    that is the reason.
    """

    valid: bool
    reason: str | None
    key_id: str | None = None
    key_alias: str | None = None
    team_id: str | None = None
    user_id: str | None = None
    secret_id: str | None = None
    secret_state: str | None = None
    expires: datetime | None = None
    spent: tuple[Spent, ...] = ()


def verify(database: Database, text: str) -> Verdict:
    """Return the verdict on *text*.  One that is malformed or unknown costs no bcrypt.

    Raises:
        DatabaseError: It cannot be reached or read.
    """
    verdict, _ = identify(database, text)
    return verdict


def identify(database: Database, text: str) -> tuple[Verdict, Presented | None]:
    """Return the verdict on *text*, and what the database holds about it if it matched."""
    key_string = keystring.parse(text)
    if key_string is None:
        return Verdict(valid=False, reason="malformed"), None
    with database.read(oldest=VERIFIABLE) as connection:
        found = queries.find_presented(connection, key_string.lookup)
        if found is None and (
            ended := queries.find_secret_by_lookup(connection, key_string.lookup)
        ):
            return _revoked(ended), None
        now = database.now(connection)
        budgets = [] if found is None else budgets_of(connection, found)
    if found is None or not hashing.matches(key_string, hashed=found.secret.hash):
        return Verdict(valid=False, reason="unknown"), None
    reason = lifecycle.suspension_of(found, now=now)
    gone = spent_of(budgets, now=now) if reason is None else ()
    if gone:
        reason = "budget_exceeded"
    names = names_of(found, now=now)
    return Verdict(valid=reason is None, reason=reason, **names, spent=gone), found


def _revoked(secret: Secret) -> Verdict:
    """Return the verdict on a secret of which only is known whose it was."""
    return Verdict(
        valid=False,
        reason="revoked",
        key_id=secret.key_id,
        secret_id=secret.id,
        secret_state=SECRET_STATES[-1],
    )


def spent_of(budgets: Iterable[Budget], *, now: datetime) -> tuple[Spent, ...]:
    """Return the spent ones of a key's *budgets*; those of single models say nothing about the key."""
    return spent((budget for budget in budgets if budget.model is None), now=now)


def budgets_of(connection: Connection, found: Presented) -> list[Budget]:
    """Return the budgets of a key and what is spent of each; one query more for those with meters."""
    metered = [budget.name for budget in purses.budgets(found) if budget.name.meter]
    meters, _ = queries.find_meters(connection, metered)
    return purses.budgets(found, meters)


def names_of(found: Presented, *, now: datetime) -> dict[str, Any]:
    """Return what a verdict tells about a key string that matched: whose it is, and until when."""
    return {
        "key_id": found.key.id,
        "key_alias": found.key.key_alias,
        "team_id": found.key.team_id,
        "user_id": found.key.user_id,
        "secret_id": found.secret.id,
        "secret_state": lifecycle.secret_state(found.secret, now=now),
        "expires": found.key.expires,
    }
