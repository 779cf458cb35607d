"""What a key and a secret are at an instant, and why a presented key is refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyctl import lifecycle
from keyctl.records import Key, Organization, Secret, Team, User

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
PAST, FUTURE = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
STAMPS: Any = {"created_at": PAST, "created_by": "t", "updated_at": PAST, "updated_by": "t"}
KEY = Key(id="key_1", confirmed_at=PAST, **STAMPS)
SECRET = Secret(
    id="s",
    key_id="key_1",
    lookup="s",
    hash="h",
    state="active",
    supplied=False,
    run_id="r",
    created_at=PAST,
    not_after=None,
)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "active"),
        ({"expires": FUTURE}, "active"),
        ({"expires": NOW}, "expired"),
        ({"blocked": True, "expires": PAST}, "blocked"),
        ({"confirmed_at": None, "blocked": True}, "pending"),
        ({"deleted_at": PAST, "confirmed_at": None}, "deleted"),
    ],
)
def test_the_state_of_a_key(changes: dict[str, Any], state: str) -> None:
    """One word, the one that says most."""
    assert lifecycle.key_state(replace(KEY, **changes), now=NOW) == state


@pytest.mark.parametrize("stored", lifecycle.SECRET_STATES)
@pytest.mark.parametrize(("not_after", "over"), [(None, False), (FUTURE, False), (NOW, True)])
def test_the_state_of_a_secret(stored: str, not_after: datetime | None, over: bool) -> None:
    """Past its end a secret is revoked, whether or not anything has swept it."""
    secret = replace(SECRET, state=stored, not_after=not_after)
    assert lifecycle.secret_state(secret, now=NOW) == ("revoked" if over else stored)
    assert lifecycle.authenticates(secret, now=NOW) is (stored != "revoked" and not over)


BLOCKED: Any = {"blocked": True}
SPENT: Any = {"max_budget": 5, "spend": 5}


@pytest.mark.parametrize(
    ("key", "secret", "owners", "reason"),
    [
        ({}, {}, {}, None),
        ({}, {"state": "staged"}, {}, None),
        ({}, {"state": "retiring", "not_after": FUTURE}, {}, None),
        ({}, {"state": "retiring", "not_after": NOW}, {}, "revoked"),
        ({"deleted_at": PAST, **BLOCKED}, {}, {}, "revoked"),
        ({"expires": PAST, **BLOCKED}, {}, {}, "blocked"),
        ({"expires": PAST, **SPENT}, {"not_after": PAST}, {}, "expired"),
        (SPENT, {}, {"team": BLOCKED}, "team_blocked"),
        ({}, {}, {"team": BLOCKED, "organization": BLOCKED}, "team_blocked"),
        ({}, {}, {"organization": BLOCKED, "user": BLOCKED}, "org_blocked"),
        ({}, {}, {"user": BLOCKED}, "user_blocked"),
        ({}, {}, {"user": {"deleted_at": PAST}}, "user_blocked"),
        (SPENT, {}, {}, None),
    ],
)
def test_why_a_key_is_refused(
    key: dict[str, Any], secret: dict[str, Any], owners: dict[str, Any], reason: str | None
) -> None:
    """The first reason of the fixed order wins; what is spent is no reason here."""
    kinds: Any = {"team": Team, "organization": Organization, "user": User}
    around = {
        name: kind(id=name, **{**STAMPS, **owners[name]}) if name in owners else None
        for name, kind in kinds.items()
    }
    assert (
        lifecycle.suspension(replace(SECRET, **secret), replace(KEY, **key), now=NOW, **around)
        == reason
    )
