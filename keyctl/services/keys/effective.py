"""Tell what a key may do in effect: its own limits and what its owners leave it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import lifecycle, purses
from keyctl.db import queries
from keyctl.records import Key, Presented, Secret
from keyctl.services.spent import WORDS, left_of
from keyctl.services.verify import budgets_of, spent_of

_RATES: Final = ("rpm_limit", "tpm_limit", "max_parallel_requests")


def effective(
    connection: Connection, key: Key, secrets: list[Secret], *, now: datetime
) -> dict[str, Any]:
    """Return whether the key works and why not, the smallest of each limit, and what is left of the money.

    `models` are the lists that a model must be on, all of them; each limit names whose it is.
    """
    found = _presented(connection, secrets, now=now)
    if found is None:
        return {"works": False, "reason": "revoked", "until": None, "models": [], "budgets": []}
    budgets = budgets_of(connection, found)
    reason = lifecycle.suspension(
        found.secret,
        key,
        team=found.team,
        organization=found.organization,
        user=found.user,
        now=now,
    )
    if reason is None and spent_of(budgets, now=now):
        reason = "budget_exceeded"
    return {
        "works": reason is None,
        "reason": reason,
        **_remedy(reason, found),
        "until": key.expires,
        "models": [
            {"of": WORDS[table], "id": record.id, "models": record.models}
            for table, record in purses.charged(found)
            if record.models
        ],
        **{name: _smallest(found, name) for name in _RATES},
        "budgets": [left_of(item, now) for item in budgets],
    }


def _remedy(reason: str | None, found: Presented) -> dict[str, str]:
    """Return what lets the key of a deleted user work again: its reason is that of a blocked one."""
    gone = found.user is not None and found.user.deleted_at is not None
    if reason != "user_blocked" or not gone:
        return {}
    return {"remedy": f"its user was deleted; keyctl update {found.key.id} --user NEW"}


def _presented(connection: Connection, secrets: list[Secret], *, now: datetime) -> Presented | None:
    for secret in secrets:
        if lifecycle.authenticates(secret, now=now):
            return queries.find_presented(connection, secret.lookup)
    return None


def _smallest(found: Presented, name: str) -> dict[str, Any] | None:
    def limits() -> Iterator[tuple[int, str, str]]:
        for table, record in purses.charged(found):
            value = getattr(record, name, None)
            if value is not None:
                yield value, WORDS[table], record.id

    first = min(limits(), default=None)
    return None if first is None else {"limit": first[0], "of": first[1], "id": first[2]}
