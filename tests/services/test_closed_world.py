"""A closed world: whatever callers who are no admins do, none of them ends up with more."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from coalition import Coalition
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.policy.facts import Caller
from keyctl.services.workspace import Workspace


@pytest.fixture(name="fresh")
def _fresh(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, clock: Any
) -> Iterator[Callable[[], Workspace]]:
    """What makes a new, empty database each time."""
    with ExitStack() as opened:

        def make() -> Workspace:
            if kind == "sqlite":
                path = tmp_path / f"{uuid4().hex}.db"
                shutil.copy(request.getfixturevalue("template"), path)
                url = f"sqlite:///{path}"
            else:
                url = opened.enter_context(request.getfixturevalue("postgres").database())
            database = Database(url, clock=clock)
            opened.callback(database.engine.dispose)
            return Workspace(
                database=database,
                settings=Settings(bcrypt_cost=4),
                caller=Caller(actor="local:tester@host", role="proxy_admin"),
                runs_folder=tmp_path / "runs",
            )

        yield make


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
