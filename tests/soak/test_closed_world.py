"""A closed world for long: ten thousand steps of a coalition that gains nothing."""

from collections.abc import Callable

import pytest
from coalition import Coalition
from fresh_worlds import fresh_worlds
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from keyctl.services.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

fresh = fresh_worlds


def test_a_coalition_gains_nothing_for_long(fresh: Callable[[], Workspace]) -> None:
    """A hundred worlds of a hundred steps."""
    machine = type("Run", (Coalition,), {"make": staticmethod(fresh)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=100,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate),
        ),
    )
