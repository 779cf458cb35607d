"""Requests and tokens a minute, and requests at the same time, of a key and of everybody above it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

from keyctl.gateway import Verifier, clock, rates

MODEL = "gpt-4o"
OWNERS = {
    "keys": "keys",
    "members": "team_members",
    "teams": "teams",
    "users": "users",
    "organizations": "organizations",
}
PER_MODEL = ("keys", "teams", "organizations")


@pytest.fixture(name="gate")
def _gate(emptied_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(emptied_url, tmp_path)
    yield gate
    gate.close()


@pytest.fixture(name="minutes")
def _minutes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Minutes that pass when a test says so."""
    passed = [0.0]
    monkeypatch.setattr(rates, "ticks", lambda: clock.ticks() + 60 * sum(passed))
    return passed


def with_limit(gate: Gate, table: str, column: str, value: Any) -> str:
    """Make a key, with a limit of its own or of an owner."""
    key = gate.key(**gate.owners())
    gate.execute(f"UPDATE {table} SET {column} = :value", value=value)
    return key


class TestRates:
    @pytest.mark.parametrize("table", OWNERS.values())
    def test_requests_a_minute(self, gate: Gate, minutes: list[float], table: str) -> None:
        """Of all keys of the owner together; the minute after has new ones."""
        key = with_limit(gate, table, "rpm_limit", 2)
        other = gate.key(team_id="web", user_id="ada")
        with Verifier(gate.url) as verifier:
            first = verifier.verify(key).admit()
            second = verifier.verify(key if table == "keys" else other).admit()
            third = verifier.verify(key).admit()
            assert (first, second) == (None, None)
            assert third is not None
            assert (third.rate.field, third.rate.limit) == ("rpm_limit", 2)
            assert 0 < third.retry_after <= 60
            minutes.append(1)
            assert verifier.verify(key).admit() is None

    @pytest.mark.parametrize("table", OWNERS.values())
    def test_tokens_a_minute(self, gate: Gate, minutes: list[float], table: str) -> None:
        """As many as a request may use count while it runs, and what it used when it has."""
        key = with_limit(gate, table, "tpm_limit", 1000)
        with Verifier(gate.url) as verifier:
            running = verifier.verify(key)
            assert running.admit(tokens=800) is None
            assert verifier.verify(key).admit(tokens=300) is not None
            running.record(0, tokens=600)
            again = verifier.verify(key)
            assert again.admit(tokens=300) is None
            again.record(0, tokens=400)
            assert verifier.verify(key).admit() is not None
            minutes.append(1)
            assert verifier.verify(key).admit(tokens=1000) is None

    @pytest.mark.parametrize("table", ["keys", "teams"])
    def test_requests_at_the_same_time(self, gate: Gate, minutes: list[float], table: str) -> None:
        """A team's are those of all its keys; one that ends, or fails, makes room."""
        key = with_limit(gate, table, "max_parallel_requests", 1)
        other = key if table == "keys" else gate.key(team_id="web", user_id="ada")
        with Verifier(gate.url) as verifier:
            running = verifier.verify(key)
            assert running.admit() is None
            minutes.append(1)
            refused = verifier.verify(other).admit()
            assert refused is not None
            assert refused.rate.kind == "parallel"
            running.record(0)
            failed = verifier.verify(other)
            assert failed.admit() is None
            failed.release()
            assert verifier.verify(key).admit() is None

    @pytest.mark.parametrize("table", PER_MODEL)
    @pytest.mark.parametrize("column", ["model_rpm_limit", "model_tpm_limit"])
    def test_of_one_model(self, gate: Gate, table: str, column: str) -> None:
        """Other models go on."""
        key = with_limit(gate, table, column, '{"gpt-4o":1}')
        with Verifier(gate.url) as verifier:
            assert verifier.verify(key, model=MODEL).admit(tokens=1) is None
            refused = verifier.verify(key, model=f"openai/{MODEL}").admit(tokens=1)
            assert refused is not None
            assert (refused.rate.field, refused.rate.model) == (column, MODEL)
            assert verifier.verify(key, model="o1").admit(tokens=1) is None

    @pytest.mark.parametrize("field", ["rpm_limit", "tpm_limit"])
    def test_within_the_budget_of_a_model(self, gate: Gate, field: str) -> None:
        """LiteLLM keeps them there."""
        key = gate.key(model_max_budget={MODEL: {field: 1}})
        with Verifier(gate.url) as verifier:
            assert verifier.verify(key, model=MODEL).admit(tokens=1) is None
            assert verifier.verify(key, model=MODEL).admit(tokens=1) is not None
            assert verifier.verify(key, model="o1").admit(tokens=1) is None

    @pytest.mark.parametrize("column", ["rpm_limit", "tpm_limit", "max_parallel_requests"])
    @pytest.mark.parametrize("table", ["keys", "users", "team_members"])
    def test_of_a_tier(self, gate: Gate, table: str, column: str) -> None:
        """Each who names it has its own."""
        key = with_limit(gate, table, "budget_id", "small")
        gate.execute(
            f"INSERT INTO budgets (id, {column}, model_max_budget, created_at, created_by,"
            " updated_at, updated_by) VALUES ('small', 1, '{}', '2026-01-01 00:00:00.000000',"
            " 't', '2026-01-01 00:00:00.000000', 't')"
        )
        with Verifier(gate.url) as verifier:
            assert verifier.verify(key).admit(tokens=1) is None
            assert verifier.verify(key).admit(tokens=1) is not None

    def test_all_or_none(self, gate: Gate, minutes: list[float]) -> None:
        """What one rate refuses is counted under no other."""
        key = with_limit(gate, "keys", "rpm_limit", 2)
        gate.execute("UPDATE teams SET max_parallel_requests = 1")
        with Verifier(gate.url) as verifier:
            running = verifier.verify(key)
            assert running.admit() is None
            for _ in range(5):
                assert verifier.verify(key).admit() is not None
            running.release()
            assert verifier.verify(key).admit() is None

    def test_none_is_no_limit_and_zero_is_one(self, gate: Gate) -> None:
        """A limit of nothing admits nothing."""
        free, closed = gate.key(), gate.key(rpm_limit=0)
        with Verifier(gate.url) as verifier:
            assert all(verifier.verify(free).admit() is None for _ in range(100))
            assert verifier.verify(closed).admit() is not None
            with pytest.raises(ValueError, match="no key"):
                verifier.verify("nonsense").admit()
