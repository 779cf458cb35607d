"""Usage that a gateway records: exact sums, each batch once, budgets that count at once."""

import asyncio
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

from keyctl import money
from keyctl.db import queries
from keyctl.db.queries import Usage
from keyctl.gateway import AsyncVerifier, UnavailableError, Verifier
from keyctl.purses import PurseName
from keyctl.services.budgets import BudgetService

NEVER: dict[str, Any] = {"flush_interval": 3600.0}


@pytest.fixture(name="gate")
def _gate(database_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(database_url, tmp_path)
    yield gate
    gate.close()


class TestRecord:
    def test_a_cost_is_added_to_the_key_and_its_owners(self, gate: Gate) -> None:
        """Exactly, and the key's last use is noted; no audit row: usage is no change."""
        key = gate.key(**gate.owners())
        events = gate.value("SELECT count(*) FROM audit_events")
        with Verifier(gate.url, **NEVER) as verifier:
            verdict = verifier.verify(key)
            for cost in (Decimal("0.1"), 0.2, 3, 0):
                verdict.record(cost)
        assert gate.spends() == [3_300_000_000] * 4
        assert gate.value("SELECT last_used_at FROM keys") is not None
        assert gate.value("SELECT count(*) FROM audit_events") == events

    def test_who_only_has_its_name_charges_a_key_too(self, gate: Gate) -> None:
        """By the database's clock it was used now, although nothing was verified here."""
        gate.key()
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.record(0.5, key_id=gate.value("SELECT id FROM keys"))
        assert gate.value("SELECT spend FROM keys") == 500_000_000
        assert str(gate.value("SELECT last_used_at FROM keys")) >= "2026"

    def test_verification_alone_writes_nothing(self, gate: Gate) -> None:
        """Not even when the key was last used."""
        key = gate.key()
        with Verifier(gate.url) as verifier:
            assert verifier.verify(key).valid
        assert gate.value("SELECT last_used_at FROM keys") is None
        assert gate.value("SELECT count(*) FROM recorders") == 0

    def test_a_cost_is_rounded_up(self, gate: Gate) -> None:
        """To a nano-dollar: nothing is ever free."""
        key = gate.key()
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(key).record(1e-12)
        assert gate.spends()[0] == 1

    @pytest.mark.parametrize(
        "cost", [float("nan"), float("inf"), -1, -1e-9, Decimal("sNaN"), True, "1", 1e10]
    )
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_what_is_no_cost_is_refused(self, gate: Gate, cost: Any) -> None:
        """And nothing is recorded."""
        key = gate.key()
        with Verifier(gate.url) as verifier:
            verdict = verifier.verify(key)
            with pytest.raises(ValueError, match="dollars"):
                verdict.record(cost)
        assert gate.spends()[0] == 0

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_nobody_can_be_charged_for_an_unknown_key(self, gate: Gate) -> None:
        """There is no key."""
        gate.key()
        with Verifier(gate.url) as verifier:
            for text in ("nonsense", "sk-supplied-but-never-here"):
                with pytest.raises(ValueError, match="no key to charge"):
                    verifier.verify(text).record(1)

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_closed_verifier_takes_nothing(self, gate: Gate) -> None:
        """It could not be written any more."""
        verifier = Verifier(gate.url)
        verdict = verifier.verify(gate.key())
        verifier.close()
        with pytest.raises(UnavailableError, match="closed"):
            verdict.record(1)

    def test_spend_stops_at_the_most_that_can_be_counted(self, gate: Gate) -> None:
        """A request that was served is no error, and SQLite's integers do not turn into floats."""
        key = gate.key()
        with Verifier(gate.url, **NEVER) as verifier:
            for _ in range(3):
                verifier.verify(key).record(money.MAX_DOLLARS)
            verifier.flush()
            verifier.verify(key).record(1)
        assert gate.spends()[0] == money.MAX_NANO

    def test_eight_threads_and_two_verifiers_sum_exactly(self, gate: Gate) -> None:
        """While both flush all the time, and a command adds to the same key."""
        key = gate.key(**gate.owners())
        with (
            Verifier(gate.url, flush_interval=0.01) as one,
            Verifier(gate.url, flush_interval=0.01) as other,
            ThreadPoolExecutor(8) as threads,
        ):

            def work(verifier: Verifier) -> None:
                for _ in range(200):
                    verifier.verify(key).record(Decimal("0.000000001"))

            for done in [threads.submit(work, (one, other)[n % 2]) for n in range(8)]:
                done.result(60)
            key_id = str(one.verify(key).key_id)
            BudgetService(gate.workspace).add(key_id, 5)
        assert gate.spends() == [1605, 1600, 1600, 1600]

    def test_an_event_loop_records_too(self, gate: Gate) -> None:
        """What is recorded last is written when the verifier is closed."""
        key = gate.key()

        async def use() -> None:
            async with AsyncVerifier(gate.url, **NEVER) as verifier:
                (await verifier.verify(key)).record(1)
                await verifier.flush()
                (await verifier.verify(key)).record(1)

        asyncio.run(use())
        assert gate.spends()[0] == 2 * money.NANO


class TestBudgets:
    @pytest.mark.parametrize("table", ["keys", "teams", "users", "organizations"])
    def test_recorded_usage_counts_at_once(self, gate: Gate, table: str) -> None:
        """Against the budget of the key and of each owner, before anything is written."""
        key = gate.key(**gate.owners())
        gate.execute(f"UPDATE {table} SET max_budget = 1000000000")
        with Verifier(gate.url, **NEVER) as verifier:
            verifier.verify(key).record(Decimal("0.999999999"))
            assert verifier.verify(key).valid
            verifier.verify(key).record(Decimal("0.000000001"))
            assert verifier.verify(key).reason == "budget_exceeded"

    def test_nothing_is_counted_twice_or_not_at_all(self, gate: Gate) -> None:
        """While keys are read and usage is written all the time, the budget ends where it should."""
        key = gate.key(**gate.owners())
        gate.execute("UPDATE teams SET max_budget = 500")
        with Verifier(gate.url, cache_ttl=0.004, flush_interval=0.003) as verifier:
            for spent in range(500):
                verdict = verifier.verify(key)
                assert (spent, verdict.reason) == (spent, None)
                verdict.record(Decimal("0.000000001"))
            for _ in range(50):
                assert verifier.verify(key).reason == "budget_exceeded"
                threading.Event().wait(0.002)

    def test_a_reset_is_seen_when_the_key_is_read_again(self, gate: Gate) -> None:
        """And what was recorded before it does not come back."""
        key = gate.key(max_budget=1)
        with Verifier(gate.url, cache_ttl=0.05, **NEVER) as verifier:
            verdict = verifier.verify(key)
            verdict.record(1)
            assert verifier.verify(key).reason == "budget_exceeded"
            verifier.flush()
            BudgetService(gate.workspace).reset(str(verdict.key_id))
            threading.Event().wait(0.06)
            assert verifier.verify(key).valid
            verdict.record(Decimal("0.5"))
            assert verifier.verify(key).valid
            verdict.record(Decimal("0.5"))
            assert verifier.verify(key).reason == "budget_exceeded"

    def test_what_others_spend_is_seen_when_the_key_is_read_again(self, gate: Gate) -> None:
        """Two gateways share a budget, a flush and a refresh apart."""
        key = gate.key(max_budget=1)
        with Verifier(gate.url, cache_ttl=0.05) as here, Verifier(gate.url, **NEVER) as there:
            assert here.verify(key).valid
            there.verify(key).record(1)
            there.flush()
            threading.Event().wait(0.06)
            assert here.verify(key).reason == "budget_exceeded"


class TestBatches:
    def test_a_batch_is_written_once(self, gate: Gate) -> None:
        """The number under the recorder's id, in the same transaction, tells."""
        gate.key()
        usage = Usage(spend={PurseName("keys", gate.value("SELECT id FROM keys")): 7})
        written = []
        for batch in (1, 1, 2):
            with gate.database.recording() as connection:
                now = gate.database.now(connection)
                written.append(
                    queries.record_usage(connection, usage, recorder="r", batch=batch, at=now)
                )
        assert (written, gate.spends()[0]) == ([True, False, True], 14)

    def test_a_batch_of_many_keys(self, gate: Gate) -> None:
        """More than fit into one statement; objects that are gone are passed over."""
        gate.key()
        known = gate.value("SELECT id FROM keys")
        spend = {PurseName("keys", f"key_{number:020d}"): 1 for number in range(1200)}
        with gate.database.recording() as connection:
            now = gate.database.now(connection)
            usage = Usage(spend={PurseName("keys", known): 3, **spend}, used_at={known: now})
            assert queries.record_usage(connection, usage, recorder="r", batch=1, at=now)
        assert gate.spends()[0] == 3

    def test_recorders_that_are_gone_are_forgotten(self, gate: Gate) -> None:
        """A process leaves a row; after thirty days without a flush the next one removes it."""
        key = gate.key()
        for name, year in (("old", 2020), ("young", 2199)):
            gate.execute(
                "INSERT INTO recorders (id, batch, flushed_at) VALUES (:id, 1, :at)",
                id=name,
                at=f"{year}-01-01 00:00:00.000000",
            )
        with Verifier(gate.url) as verifier:
            verifier.verify(key).record(1)
        assert gate.value("SELECT count(*) FROM recorders") == 2
        assert gate.value("SELECT count(*) FROM recorders WHERE id = 'old'") == 0

    def test_a_schema_without_recorders_verifies_and_keeps_the_usage(
        self, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Until it is upgraded: then everything is written, once."""
        key = gate.key(max_budget=5)
        gate.execute("ALTER TABLE recorders RENAME TO later")
        gate.execute("UPDATE alembic_version SET version_num = '1_0001'")
        verifier = Verifier(gate.url, cache_ttl=0.01, flush_interval=0.01)
        verifier.verify(key).record(3)
        with pytest.raises(UnavailableError, match="kept"):
            verifier.flush()
        threading.Event().wait(0.05)
        with caplog.at_level(logging.WARNING, logger="keyctl.gateway"):
            assert verifier.verify(key).valid
            verifier.verify(key).record(2)
            assert verifier.verify(key).reason == "budget_exceeded"

        gate.execute("ALTER TABLE later RENAME TO recorders")
        gate.execute("UPDATE alembic_version SET version_num = '1_0002'")
        verifier.close()

        assert gate.spends()[0] == 5 * money.NANO


PRELUDE = """
import os, sys
from decimal import Decimal
from keyctl.gateway import Verifier
url, key = sys.argv[1], sys.stdin.readline().strip()
"""


def run(gate: Gate, key: str, program: str) -> subprocess.Popen[str]:
    """Start a program with a verifier of its own; the key string comes on stdin."""
    process = subprocess.Popen(
        # Since 3.12 Python warns of a fork beside threads, which is what the test is about.
        [sys.executable, "-W", "ignore:This process", "-c", PRELUDE + program, gate.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(key + "\n")
    process.stdin.flush()
    return process


class TestProcesses:
    def test_a_process_that_ends_writes_what_it_recorded(self, gate: Gate) -> None:
        """Without having closed anything."""
        key = gate.key(**gate.owners())
        process = run(
            gate,
            key,
            "Verifier(url, flush_interval=3600).verify(key).record(1)\n",
        )
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert gate.spends() == [money.NANO] * 4

    def test_a_process_that_ends_says_what_it_could_not_write(self, gate: Gate) -> None:
        """It is lost, and no traceback hides that."""
        key = gate.key()
        process = run(
            gate,
            key,
            "Verifier(url, flush_interval=3600).verify(key).record(1); print(flush=True); input()\n",
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        gate.execute("UPDATE alembic_version SET version_num = '2_0001'")
        _, errors = process.communicate("\n", timeout=60)
        assert "it is lost" in errors
        assert "Traceback" not in errors

    def test_a_killed_process_loses_one_interval_at_most(self, gate: Gate) -> None:
        """What was written stays, nothing is written in part."""
        key = gate.key(**gate.owners())
        program = """
verifier = Verifier(url, flush_interval=0.1)
for _ in range(100):
    verifier.verify(key).record(1)
print(flush=True); sys.stdin.readline()
for _ in range(50):
    verifier.verify(key).record(1)
os.kill(os.getpid(), 9)
"""
        process = run(gate, key, program)
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        while gate.spends()[0] != 100 * money.NANO:
            assert process.poll() is None
            threading.Event().wait(0.01)
        process.communicate("\n", timeout=60)

        assert process.returncode == -signal.SIGKILL
        spends = gate.spends()
        assert len(set(spends)) == 1
        assert 100 * money.NANO <= spends[0] <= 150 * money.NANO

    def test_a_forked_child_has_everything_of_its_own(self, gate: Gate) -> None:
        """Connections, threads, recorder and buffer: each writes its own, both go on verifying."""
        key = gate.key(**gate.owners())
        program = """
verifier = Verifier(url, flush_interval=3600, cache_ttl=0.001)
verdict = verifier.verify(key)
verdict.record(1)
verifier.flush()
verdict.record(10)
if (child := os.fork()) == 0:
    assert verifier.verify(key).valid
    verdict.record(100)
    verifier.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert verifier.verify(key).valid
verifier.verify(key).record(1000)
"""
        process = run(gate, key, program)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert gate.spends() == [1111 * money.NANO] * 4
        assert gate.value("SELECT count(*) FROM recorders") == 2
