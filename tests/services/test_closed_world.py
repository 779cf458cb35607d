"""A closed world: whatever callers who are no admins do, none of them ends up with more."""

from collections.abc import Callable

from coalition import Coalition
from fresh_worlds import fresh_worlds
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from keyctl.services.workspace import Workspace

fresh = fresh_worlds


def test_a_coalition_gains_nothing(fresh: Callable[[], Workspace], kind: str) -> None:
    """Some hundreds of steps here, ten thousand in the soak."""
    machine = type("Run", (Coalition,), {"make": staticmethod(fresh)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=6 if kind == "sqlite" else 2,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            # To make a failure smaller costs minutes; the notes tell every step.
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
