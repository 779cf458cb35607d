"""New, empty databases, one for each world that a test makes."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.policy.facts import Caller
from keyctl.services.workspace import Workspace


@pytest.fixture(name="fresh")
def fresh_worlds(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, clock: Any
) -> Iterator[Callable[[], Workspace]]:
    """What makes a new, empty database each time; the world before it has ended then."""
    with ExitStack() as opened:

        def make() -> Workspace:
            # A hundred worlds that stay open have more connections than a server takes.
            opened.close()
            if kind == "sqlite":
                path = tmp_path / f"{uuid4().hex}.db"
                shutil.copy(request.getfixturevalue("template"), path)
                opened.callback(path.unlink)
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
