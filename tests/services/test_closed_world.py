"""A closed world: whatever callers who are no admins do, none of them ends up with more."""

from collections.abc import Callable

import pytest
from clock import Clock
from coalition import Coalition
from fresh_worlds import fresh_worlds
from honest_admin import WithAnHonestAdmin
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from keyctl.services.workspace import Workspace

fresh = fresh_worlds


@pytest.mark.parametrize("machine", [Coalition, WithAnHonestAdmin])
def test_a_coalition_gains_nothing(
    fresh: Callable[[], Workspace], clock: Clock, kind: str, machine: type[Coalition]
) -> None:
    """Some hundreds of steps here, ten thousand in the soak."""
    run = type("Run", (machine,), {"make": staticmethod(fresh), "clock": clock})
    run_state_machine_as_test(
        run,
        settings=settings(
            max_examples=4 if kind == "sqlite" else 1,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            # To make a failure smaller costs minutes; the notes tell every step.
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
