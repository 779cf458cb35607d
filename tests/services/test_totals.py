"""Sums of live keys while many are judged: each counts once, however many there are."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from keyctl.policy.facts import Caller, Facts, Layers
from keyctl.records import Key, Team
from keyctl.services.authorize.totals import RunningSums
from keyctl.services.workspace import Workspace

AT = datetime(2026, 11, 1, tzinfo=UTC)
STAMPS: dict[str, Any] = {"created_at": AT, "created_by": "x", "updated_at": AT, "updated_by": "x"}
MANY = 2345


def test_every_counted_key_is_in_the_sum(workspace: Workspace) -> None:
    """Also those that were counted before anything asked for the sum, and those that came after."""
    key = Key(
        id="key_1", team_id="t", rpm_limit=2, rpm_limit_type="guaranteed_throughput", **STAMPS
    )
    facts = Facts(
        operation="generate",
        key=key,
        caller=Caller(actor="local:test", role="proxy_admin"),
        team=Team(id="t", **STAMPS),
        layers=Layers(),
        now=AT,
    )
    ledger = RunningSums(now=AT)
    for _ in range(MANY):
        ledger.count(key)
        ledger.count(replace(key, team_id="other"))

    with workspace.database.read() as connection:
        before = ledger.read(connection, facts).team_sums
        ledger.count(key)
        after = ledger.read(connection, facts).team_sums

    assert (before.keys, before.rpm) == (MANY, 2 * MANY)
    assert (after.keys, after.rpm) == (MANY + 1, 2 * MANY + 2)
