"""Workers that reserve at once, and one that is killed by SIGKILL in the middle."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from budget_kinds import CENT, KINDS, made
from gate import Gate

from keyctl.gateway import Verifier

pytestmark = pytest.mark.slow

# Serves on 24 threads once it is told to, says how many requests were served, and ends; what is
# reserved for a request that hangs is never settled.
WORKER = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from keyctl.gateway import Verifier

url, amount, rounds, hangs = sys.argv[1], Decimal(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "hangs"
key = sys.stdin.readline().strip()
verifier = Verifier(url, lease=2)
verifier.verify(key)
print("ready", flush=True)
sys.stdin.readline()

def work(_):
    served = 0
    for _ in range(rounds):
        verdict = verifier.verify(key, model="gpt-4o")
        if verdict.valid and verdict.reserve(amount):
            if not hangs:
                verdict.record(amount)
            served += 1
    return served

with ThreadPoolExecutor(24) as threads:
    print(sum(threads.map(work, range(24))), flush=True)
sys.stdin.readline()
verifier.close()
"""


@pytest.fixture(name="gate")
def _gate(database_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(database_url, tmp_path)
    yield gate
    gate.close()


class Worker:
    """A gateway in a process of its own."""

    def __init__(
        self, gate: Gate, key: str, *, amount: str, rounds: int, hangs: bool = False
    ) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WORKER,
                gate.url,
                amount,
                str(rounds),
                "hangs" if hangs else "-",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.tell(key)
        assert self.answer() == "ready"

    def tell(self, line: str = "") -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """Return what it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """Let it write what it recorded."""
        self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.mark.parametrize(("budget", "amount", "served"), [("0.5", "0.3", 2), ("3", "0.007", 429)])
@pytest.mark.parametrize("table", ["keys", "teams"])
def test_two_workers_of_24_threads_serve_exactly_what_there_is(
    gate: Gate, table: str, budget: str, amount: str, served: int
) -> None:
    """Neither more, but for what the last request cost beyond what was left, nor less."""
    key = gate.key(**gate.owners())
    gate.execute(f"UPDATE {table} SET max_budget = {int(Decimal(budget) * 100) * CENT}")
    workers = [Worker(gate, key, amount=amount, rounds=40) for _ in range(2)]
    for worker in workers:
        worker.tell()
    assert sum(int(worker.answer()) for worker in workers) == served
    for worker in workers:
        worker.end()
    assert gate.spends() == [int(Decimal(amount) * 1000) * served * CENT // 10] * 4


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_budget_is_served_whole_and_once(gate: Gate, name: str) -> None:
    """Of $0.50, requests of $0.30 in two processes of 24 threads get $0.60: at most, and at least."""
    kind = KINDS[name]
    key = made(gate, kind)
    workers = [Worker(gate, key, amount="0.3", rounds=3) for _ in range(2)]
    for worker in workers:
        worker.tell()
    assert sum(int(worker.answer()) for worker in workers) == 2
    for worker in workers:
        worker.end()
    assert gate.value(kind.spent) == 60 * CENT
    assert gate.spends() == [60 * CENT] * 4
    assert gate.value("SELECT count(*) FROM leases") == 0


def test_a_worker_that_is_killed_holds_nothing_for_longer_than_its_lease(gate: Gate) -> None:
    """What its requests held is charged, so that nothing it served is free."""
    key = gate.key(max_budget=0.5)
    worker = Worker(gate, key, amount="0.2", rounds=1, hangs=True)
    worker.tell()
    assert worker.answer() == "3"
    worker.kill()
    gate.execute("UPDATE keys SET max_budget = 1000000000")
    with Verifier(gate.url, cache_ttl=0.01) as verifier:
        held = verifier.verify(key)
        assert held.reserve(1)
        assert gate.value("SELECT sum(amount) FROM leases") == 100 * CENT
        held.release()
        verifier.flush()
        while gate.spends()[0] == 0:
            probe = verifier.verify(key)
            assert probe.reserve(1)
            probe.release()
            threading.Event().wait(0.1)
        assert gate.spends()[0] == 50 * CENT
        assert gate.value("SELECT sum(charged) FROM leases") == 50 * CENT
        rest = verifier.verify(key)
        assert rest.reserve(1)
        rest.record(Decimal("0.5"))
        verifier.flush()
    assert gate.spends()[0] == 100 * CENT
