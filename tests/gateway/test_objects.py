"""Batches and background answers: kept with who made them, charged once, whatever happens between."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from gate import Gate

from keyctl.db.queries import Address
from keyctl.gateway import Verifier
from keyctl.gateway.accounts import Amount

BATCH = Address("model:gpt-4o", "batch", "batch_1")
DOLLAR = 1_000_000_000


@pytest.fixture(name="gate")
def _gate(database_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(database_url, tmp_path)
    yield gate
    gate.close()


def keep(verifier: Verifier, key: str, *, reserved: int = DOLLAR) -> str | None:
    """Keep a batch of this key."""
    verdict = verifier.verify(key)
    return verifier.objects.keep(
        BATCH, key_id=str(verdict.key_id), budgets=verdict.budgets, reserved=Amount(reserved)
    )


class TestKeeping:
    def test_an_id_has_one_maker(self, gate: Gate) -> None:
        """Who made it first; keeping it again changes nothing, and another key's is refused."""
        key, other = gate.key(), gate.key()
        with Verifier(gate.url) as verifier:
            kept = keep(verifier, key)

            assert keep(verifier, key) == kept
            assert keep(verifier, other) is None
            assert verifier.objects.find([BATCH])[BATCH].key_id == verifier.verify(key).key_id

    def test_what_is_reserved_is_nobody_else_s(self, gate: Gate) -> None:
        """Until it is charged the budget has that much less left, in every process."""
        key = gate.key(max_budget=1.5)
        with Verifier(gate.url) as verifier, Verifier(gate.url) as another:
            kept = keep(verifier, key)

            assert another.verify(key).reserve(Decimal("0.5"))
            assert not another.verify(key).reserve(Decimal("0.1"))
            verifier.objects.charge(str(kept), Amount(DOLLAR // 2))
            assert another.verify(key).reserve(Decimal("0.1"))


class TestCharging:
    def test_many_at_once_charge_once(self, gate: Gate) -> None:
        """The key, its team, user and organization have each spent the cost of one."""
        key = gate.key(**gate.owners())
        with Verifier(gate.url) as verifier, ThreadPoolExecutor(8) as pool:
            kept = str(keep(verifier, key))

            charged = list(pool.map(lambda _: verifier.objects.charge(kept, Amount(7)), range(16)))

        assert sorted(charged) == [False] * 15 + [True]
        assert gate.spends() == [7] * 4
        assert gate.value("SELECT count(*) FROM leases") == 0

    def test_what_nobody_settles_is_charged_as_it_was_reserved(self, gate: Gate) -> None:
        """And a cost that comes later is charged with what is missing only, or given back."""
        key = gate.key(max_budget=5)
        with Verifier(gate.url) as verifier:
            kept = str(keep(verifier, key))
            gate.execute("DELETE FROM recorders WHERE id = :id", id=kept)  # its time is over

            assert verifier.verify(key).reserve(Decimal(5))  # whoever comes across it charges it
            assert gate.value("SELECT spend FROM keys") == DOLLAR

            assert verifier.objects.charge(kept, Amount(DOLLAR // 4))
            assert gate.value("SELECT spend FROM keys") == DOLLAR // 4
