"""A closed world for long: thousands of steps of a coalition that gains nothing.

KEYCTL_LONG_WORLDS=5 asks for five times as many: ten thousand steps of each on each database.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from clock import Clock
from coalition import Coalition
from fresh_worlds import fresh_worlds
from honest_admin import WithAnHonestAdmin
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from keyctl import purses
from keyctl.policy import ceiling, engine
from keyctl.purses import Budget, PurseName
from keyctl.records import Presented
from keyctl.services.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

fresh = fresh_worlds
TIMES = int(os.environ.get("KEYCTL_LONG_WORLDS", "1"))


def run(
    machine: type[Coalition], fresh: Callable[[], Workspace], clock: Clock, worlds: int
) -> None:
    """Run the machine in so many worlds of a hundred steps."""
    run_state_machine_as_test(
        type("Run", (machine,), {"make": staticmethod(fresh), "clock": clock}),
        settings=settings(
            max_examples=worlds * TIMES,
            stateful_step_count=100,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate),
        ),
    )


@pytest.mark.parametrize("machine", [Coalition, WithAnHonestAdmin])
def test_a_coalition_gains_nothing_for_long(
    fresh: Callable[[], Workspace], clock: Clock, machine: type[Coalition]
) -> None:
    """Twenty worlds of a hundred steps of each machine, on each database."""
    run(machine, fresh, clock, 20)


@pytest.mark.parametrize("kind", ["sqlite"])  # rules know no database
def test_the_rules_that_close_nothing_are_not_needed(
    fresh: Callable[[], Workspace], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any rule of callers that `schema rules` does not mark, nobody gains anything either."""
    kept = tuple(rule for rule in engine.RULES if not rule.guards)
    assert len(kept) < len(engine.RULES)
    monkeypatch.setattr(engine, "RULES", kept)
    rows = tuple(row for row in ceiling._ROWS if row.rule in {rule.id for rule in kept})
    monkeypatch.setattr(ceiling, "_ROWS", rows)
    run(Coalition, fresh, clock, 10)


def _kind_of(name: PurseName) -> str:
    return "members" if name.meter.startswith("member:") else name.table


# What is spent within a few worlds: the other purses are larger, or lie within one of these.
@pytest.mark.parametrize("unheld", ["organizations"])
@pytest.mark.parametrize("kind", ["sqlite"])  # which budgets are held knows no database
def test_a_purse_that_the_gateway_does_not_hold_is_found(
    fresh: Callable[[], Workspace],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    unheld: str,
) -> None:
    """A gateway that forgets one kind of purse admits more than it had, and the machine says so."""
    real = purses.budgets

    def forgetful(found: Presented, meters: Mapping[PurseName, Any] | None = None) -> list[Budget]:
        return [each for each in real(found, meters) if _kind_of(each.name) != unheld]

    monkeypatch.setattr(purses, "budgets", forgetful)
    one = unheld.removesuffix("s")
    with pytest.raises(AssertionError, match=f"spend .*'{one}:"):
        run(Coalition, fresh, clock, 100)
