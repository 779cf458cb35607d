"""What requests reserve before they run: never more than is left, by any number of threads and processes."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from gate import Gate
from sqlalchemy import Engine, event

from keyctl.gateway import AsyncVerifier, UnavailableError, Verifier
from keyctl.services.budgets import BudgetService

NEVER: dict[str, Any] = {"flush_interval": 3600.0}
TABLES = ("keys", "teams", "users", "organizations")
CENT = 10_000_000


@pytest.fixture(name="gate")
def _gate(database_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(database_url, tmp_path)
    yield gate
    gate.close()


@contextmanager
def counted() -> Iterator[list[str]]:
    """Collect every statement that any engine executes meanwhile."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def expire(gate: Gate) -> None:
    """Let every lease be over, as if its process had been gone for long."""
    gate.execute("UPDATE recorders SET leased_until = '2020-01-01 00:00:00.000000'")


class TestReserve:
    def test_holds_what_is_left_and_then_nothing(self, gate: Gate) -> None:
        """Of $0.50: $0.30, then the $0.20 that is left, then it is false."""
        key = gate.key(max_budget=0.5)
        with Verifier(gate.url, **NEVER) as verifier:
            first, second, third = (verifier.verify(key) for _ in range(3))
            assert [each.reserve(0.3) for each in (first, second, third)] == [True, True, False]
            first.record(0.3)
            second.record(0.3)
            assert verifier.verify(key).reason == "budget_exceeded"
        assert gate.spends()[0] == 60 * CENT
        assert gate.value("SELECT count(*) FROM leases") == 0

    def test_what_is_released_is_there_again(self, gate: Gate) -> None:
        """For the same process at once."""
        key = gate.key(max_budget=0.5)
        with Verifier(gate.url, **NEVER) as verifier:
            first, second = verifier.verify(key), verifier.verify(key)
            assert first.reserve(0.5)
            assert not second.reserve(0.1)
            first.release()
            assert second.reserve(0.1)
        assert gate.spends()[0] == 0

    def test_what_costs_less_than_reserved_leaves_the_rest(self, gate: Gate) -> None:
        """And what costs more is charged all the same."""
        key = gate.key(max_budget=1)
        with Verifier(gate.url, **NEVER) as verifier:
            cheap, dear = verifier.verify(key), verifier.verify(key)
            assert cheap.reserve(0.9)
            cheap.record(0.1)
            assert dear.reserve(0.9)
            dear.record(5)
        assert gate.spends()[0] == 510 * CENT

    def test_all_or_none(self, gate: Gate) -> None:
        """A spent budget of an owner leaves nothing held of the key's own."""
        key = gate.key(max_budget=1, **gate.owners())
        gate.execute(f"UPDATE teams SET max_budget = {50 * CENT}")
        with Verifier(gate.url, **NEVER) as verifier:
            first, second = verifier.verify(key), verifier.verify(key)
            assert first.reserve(0.6)
            assert not second.reserve(0.6)
            verifier.flush()
            held = gate.value("SELECT held FROM leases WHERE object_table = 'keys'")
            assert held == 60 * CENT
            first.release()

    def test_one_verdict_may_reserve_several_times(self, gate: Gate) -> None:
        """Each is settled, or given back, once."""
        key = gate.key(max_budget=0.5)
        with Verifier(gate.url, **NEVER) as verifier:
            verdict = verifier.verify(key)
            assert [verdict.reserve(0.2) for _ in range(4)] == [True, True, True, False]
            verdict.record(0.2)
            verdict.release()
            verdict.release()
            verdict.release()
            assert verdict.reserve(0.3)
            verdict.record(0.3)
        assert gate.spends()[0] == 50 * CENT

    def test_what_costs_nothing_needs_no_budget(self, gate: Gate) -> None:
        """Nor does a key without one."""
        spent, free = gate.key(max_budget=0), gate.key()
        with Verifier(gate.url, **NEVER) as verifier, counted() as statements:
            verdicts = verifier.verify(spent), verifier.verify(free)
            statements.clear()
            assert verdicts[0].reserve(0)
            assert verdicts[1].reserve(1e6)
            assert statements == []

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_what_is_no_amount_is_refused(self, gate: Gate) -> None:
        """As it is when it is recorded; and nobody reserves for an unknown key."""
        key = gate.key(max_budget=1)
        with Verifier(gate.url, **NEVER) as verifier:
            for nonsense in (-1, float("nan"), True, "1"):
                with pytest.raises(ValueError, match="dollars"):
                    verifier.verify(key).reserve(nonsense)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="no key to charge"):
                verifier.verify("nonsense").reserve(1)
        with pytest.raises(UnavailableError, match="closed"):
            verifier.verify(key).reserve(1)

    def test_an_event_loop_reserves_too(self, gate: Gate) -> None:
        """It is awaited, and many wait at once."""
        key = gate.key(max_budget=0.5)

        async def use() -> int:
            async with AsyncVerifier(gate.url, **NEVER) as verifier:

                async def request() -> bool:
                    verdict = await verifier.verify(key)
                    if granted := await verdict.reserve(0.3):
                        verdict.record(0.3)
                    return granted

                return sum(await asyncio.gather(*(request() for _ in range(40))))

        assert asyncio.run(use()) == 2
        assert gate.spends()[0] == 60 * CENT


class TestRaces:
    @pytest.mark.parametrize("table", TABLES)
    def test_two_workers_of_24_threads(self, gate: Gate, table: str) -> None:
        """Exactly $0.60 of $0.50 is served: the last request holds what is left."""
        key = gate.key(**gate.owners())
        gate.execute(f"UPDATE {table} SET max_budget = {50 * CENT}")
        with (
            Verifier(gate.url) as one,
            Verifier(gate.url) as other,
            ThreadPoolExecutor(48) as threads,
        ):
            begin = threading.Barrier(48)

            def work(verifier: Verifier) -> int:
                begin.wait(30)
                served = 0
                for _ in range(2):
                    verdict = verifier.verify(key)
                    if verdict.valid and verdict.reserve(0.3):
                        verdict.record(0.3)
                        served += 1
                return served

            workers = [threads.submit(work, (one, other)[n % 2]) for n in range(48)]
            assert sum(worker.result(60) for worker in workers) == 2
        assert gate.spends() == [60 * CENT] * 4
        assert gate.value("SELECT count(*) FROM leases") == 0

    def test_small_requests_fill_a_budget_to_the_brim(self, gate: Gate) -> None:
        """Two workers spend exactly what there is, although they lease far more than one request."""
        key = gate.key(max_budget=10)
        with (
            Verifier(gate.url, flush_interval=0.05) as one,
            Verifier(gate.url, flush_interval=0.05) as other,
            ThreadPoolExecutor(8) as threads,
        ):

            def work(verifier: Verifier) -> int:
                served = 0
                while (verdict := verifier.verify(key)).reserve(Decimal("0.003")):
                    verdict.record(Decimal("0.003"))
                    served += 1
                return served

            workers = [threads.submit(work, (one, other)[n % 2]) for n in range(8)]
            assert sum(worker.result(60) for worker in workers) == 3334
        assert gate.spends()[0] == 3334 * 3_000_000


class TestStatements:
    def test_far_from_the_limit_a_request_costs_none(self, gate: Gate) -> None:
        """Not the first one either, and whoever has leased once serves many."""
        key = gate.key(max_budget=1_000_000, **gate.owners())
        windows = '[{"budget_duration":"1d","max_budget":1000000}]'
        models = '{"gpt-4o":{"max_budget":1000000}}'
        gate.execute("UPDATE teams SET budget_limits = :windows", windows=windows)
        gate.execute("UPDATE teams SET model_max_budget = :models", models=models)
        with Verifier(gate.url, **NEVER) as verifier, counted() as statements:
            verifier.verify(key)
            statements.clear()
            for _ in range(1000):
                verdict = verifier.verify(key, model="gpt-4o")
                assert verdict.reserve(Decimal("0.01"))
                verdict.record(Decimal("0.01"))
            assert statements == []

    def test_less_far_the_database_is_asked_now_and_then(self, gate: Gate) -> None:
        """A lease is a hundredth of what is left: of $100, a hundred requests of a cent."""
        key = gate.key(max_budget=100)
        with Verifier(gate.url, **NEVER) as verifier, counted() as statements:
            verifier.verify(key)
            statements.clear()
            for _ in range(300):
                verdict = verifier.verify(key)
                assert verdict.reserve(Decimal("0.01"))
                verdict.record(Decimal("0.01"))
            asked = [each for each in statements if "FROM leases" in each]
            assert len(asked) <= 4

    def test_near_the_limit_one_request_costs_five(self, gate: Gate) -> None:
        """BEGIN, the schema, the budget, its leases, and the own one; until when it is kept stands there already."""
        key = gate.key(max_budget=0.5)
        with Verifier(gate.url, **NEVER) as verifier, counted() as statements:
            assert verifier.verify(key).reserve(Decimal("0.01"))
            verdict = verifier.verify(key)
            statements.clear()
            assert verdict.reserve(Decimal("0.01"))
        assert len(statements) == 5

    def test_near_the_limit_what_waits_is_asked_together(self, gate: Gate) -> None:
        """However many wait: one transaction decides."""
        key = gate.key(max_budget=0.5)

        async def use() -> list[bool]:
            async with AsyncVerifier(gate.url, **NEVER) as verifier:
                verdicts = [await verifier.verify(key) for _ in range(50)]
                return await asyncio.gather(*(each.reserve(0.01) for each in verdicts))

        with counted() as statements:
            assert all(asyncio.run(use()))
        assert len([each for each in statements if "FROM leases" in each]) <= 4


class TestLeases:
    def test_what_a_dead_process_held_is_charged_when_its_lease_is_over(self, gate: Gate) -> None:
        """As it was reserved, and marked; until then it is nobody else's."""
        key = gate.key(max_budget=0.5)
        with Verifier(gate.url, **NEVER) as dead, Verifier(gate.url, **NEVER) as alive:
            assert dead.verify(key).reserve(0.3)
            verdict = alive.verify(key)
            assert verdict.reserve(0.3)
            verdict.release()
            alive.flush()
            expire(gate)
            assert verdict.reserve(0.3)
            assert gate.spends()[0] == 30 * CENT
            assert gate.value("SELECT charged FROM leases WHERE unsettled_at IS NOT NULL") == (
                30 * CENT
            )
            verdict.record(0.2)

    def test_or_given_back(self, gate: Gate) -> None:
        """Where the gateway is told so."""
        key = gate.key(max_budget=0.5)
        with (
            Verifier(gate.url, **NEVER) as dead,
            Verifier(gate.url, unsettled="release", **NEVER) as alive,
        ):
            assert dead.verify(key).reserve(0.5)
            expire(gate)
            assert alive.verify(key).reserve(0.5)
            assert gate.spends()[0] == 0
            assert gate.value("SELECT charged FROM leases WHERE unsettled_at IS NOT NULL") == 0

    @pytest.mark.parametrize(("cost", "spent"), [(0.1, 10), (0.3, 30), (0.4, 40), (None, 0)])
    def test_who_comes_back_is_charged_once(
        self, gate: Gate, cost: float | None, spent: int
    ) -> None:
        """What it records after its lease was charged is the difference, whichever its sign."""
        key = gate.key(max_budget=1)
        with Verifier(gate.url, **NEVER) as late, Verifier(gate.url, **NEVER) as other:
            verdict = late.verify(key)
            assert verdict.reserve(0.3)
            expire(gate)
            rival = other.verify(key)
            assert rival.reserve(0.1)
            rival.release()
            assert gate.spends()[0] == 30 * CENT
            if cost is None:
                verdict.release()
            else:
                verdict.record(cost)
            late.flush()
            assert gate.spends()[0] == spent * CENT
        assert gate.spends()[0] == spent * CENT

    def test_a_live_process_renews(self, gate: Gate) -> None:
        """Without having anything to write."""
        key = gate.key(max_budget=1)
        with Verifier(gate.url, lease=0.6, **NEVER) as verifier:
            verdict = verifier.verify(key)
            assert verdict.reserve(0.5)
            until = gate.value("SELECT leased_until FROM recorders")
            for _ in range(300):
                if gate.value("SELECT leased_until FROM recorders") != until:
                    break
                threading.Event().wait(0.01)
            assert gate.value("SELECT leased_until FROM recorders") != until
            verdict.release()

    def test_a_gateway_settles_for_those_that_are_gone(self, gate: Gate) -> None:
        """Also when nobody asks for their budgets any more."""
        key, other = gate.key(max_budget=1), gate.key(max_budget=1)
        with Verifier(gate.url, **NEVER) as dead:
            assert dead.verify(key).reserve(0.4)
            dead._core.ledger.books.release  # noqa: B018  # it never gives it back
            expire(gate)
            with Verifier(gate.url, flush_interval=0.05, lease=0.2) as alive:
                alive.verify(other).record(0.1)
                for _ in range(300):
                    if gate.spends()[0] == 50 * CENT:
                        break
                    threading.Event().wait(0.01)
                assert gate.spends()[0] == 50 * CENT

    def test_a_schema_without_leases_is_a_503(self, gate: Gate) -> None:
        """For keys with a budget; what has none goes on."""
        key, free = gate.key(max_budget=1), gate.key()
        gate.execute("UPDATE alembic_version SET version_num = '1_0002'")
        with Verifier(gate.url, **NEVER) as verifier:
            with pytest.raises(UnavailableError, match="schema 1_0002"):
                verifier.verify(key).reserve(1)
            assert verifier.verify(free).reserve(1)

    def test_cron_settles_where_no_gateway_is_left(self, gate: Gate) -> None:
        """`budget reset --due` charges what is over, once, and leaves what is alive."""
        key = gate.key(max_budget=1)
        with Verifier(gate.url, **NEVER) as gone:
            assert gone.verify(key).reserve(0.4)
            service = BudgetService(gate.workspace)
            assert list(service.reset_due()) == []
            assert gate.spends()[0] == 0
            expire(gate)
            for _ in range(2):
                assert list(service.reset_due()) == []
                assert gate.spends()[0] == 40 * CENT
