"""Thousands of honest commands, and every field edited past keyctl."""

import os
import random
from typing import Any

import pytest
from clock import Clock
from honest import Honest
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError
from tampering import another, differing
from world import World

from keyctl.db import told
from keyctl.services.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.mark.timeout(3600)
def test_ten_thousand_honest_commands(workspace: Workspace, clock: Clock, kind: str) -> None:
    """Nothing is ever named that keyctl wrote itself; on PostgreSQL two thousand, or KEYCTL_LONG_WORLDS=5 times those."""
    # A thousand take PostgreSQL three times as long; the services do the same on both.
    most = 10_000 if kind == "sqlite" else 2_000 * int(os.environ.get("KEYCTL_LONG_WORLDS", "1"))
    world = World(workspace)
    honest = Honest(world, clock, random.Random(0))  # noqa: S311  # repeatable

    for number in range(most):
        honest.step()
        if number % 1000 == 999:
            assert differing(workspace) == []

    assert differing(workspace) == []


@pytest.mark.timeout(3600)
def test_two_hundred_edits(workspace: Workspace, clock: Clock) -> None:
    """Any field of any row, edited by SQL, is named, and nothing else is."""
    choice = random.Random(1)  # noqa: S311  # repeatable
    honest = Honest(World(workspace), clock, choice)
    honest.furnish()
    for _ in range(300):
        honest.step()
    places: list[tuple[str, Any, str]] = []
    with workspace.database.read() as connection:
        for word, row in told.stored(connection):
            if isinstance(row, dict) and row.get("deleted_at") is None:
                places += [(word, row, name) for name in told.compared(word)]

    edited = 0
    for word, row, name in choice.sample(places, len(places)):
        table = told.TABLES[word]
        where = [key == row[key.name] for key in table.primary_key.columns]
        try:
            with workspace.database.engine.begin() as connection:
                changed = another(table.c[name], row[name])
                connection.execute(update(table).where(*where).values({name: changed}))
        except DBAPIError:
            continue  # a constraint stands in the way: as good
        identity = "/".join(str(row[key.name]) for key in table.primary_key.columns)
        assert differing(workspace) == [f"{word} {identity}: {name}"]
        with workspace.database.engine.begin() as connection:
            connection.execute(update(table).where(*where).values({name: row[name]}))
        edited += 1
        if edited == 200:
            return
    raise AssertionError(edited)
