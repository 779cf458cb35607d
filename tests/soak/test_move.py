"""SIGKILL in the middle of db copy, each way: the same command ends it, and nothing differs."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from databases import Postgres
from harness import KEYCTL, Cli
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from keyctl.db import moving
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Event

pytestmark = pytest.mark.slow
EVENTS = int(os.environ.get("KEYCTL_MOVE_EVENTS", "12000"))
# What a finished copy has more of: the event that says so.
GROWING = {"audit_events", "audit_head", "alembic_version"}


@pytest.fixture(name="target_url", params=["sqlite", "postgresql"])
def _target_url(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path
) -> Iterator[str]:
    """An empty database of each kind, without a schema."""
    with ExitStack() as stack:
        if request.param == "postgresql":
            yield stack.enter_context(postgres.database(migrated=False))
        else:
            yield f"sqlite:///{tmp_path}/target/keyctl.db"


def add_events(database: Database, count: int) -> None:
    """Append events to the chain."""
    document: dict[str, Any] = {"max_budget": "1.5", "models": ["gpt-4o"], "text": "Ünï\\code\t"}
    events = [
        Event(
            actor="local:tester@host",
            changed_by=None,
            action="key_spend_changed",
            object_type="key",
            object_id=f"key_{number:020d}",
            before=document,
            after=document,
        )
        for number in range(count)
    ]
    with database.write() as connection:
        audit.append(connection, events, at=database.began_at(connection))


def copied(database: Database) -> int:
    """Return how many events a target has that is being filled."""
    try:
        with database.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM audit_events")).scalar_one())
    except DBAPIError:  # no file, no table: nothing yet
        return 0


def test_killed_and_run_again_everything_is_there(
    cli: Cli, database: Database, target_url: str
) -> None:
    """Equal by count and by content; the chain and the key strings hold; the source is closed."""
    keys = [cli.key("--alias", f"k{number}") for number in range(3)]
    add_events(database, EVENTS)
    environment = {**cli.environment, "KEYCTL_TARGET_URL": target_url}
    target = Database(target_url)
    kills = 0
    for share in (0.2, 0.6):
        process = subprocess.Popen(
            [*KEYCTL, "db", "copy"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while copied(target) < share * EVENTS and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills
    assert cli("generate").exit_code == 6
    done = cli("db", "copy", "-o", "json", environment={"KEYCTL_TARGET_URL": target_url})
    assert done.exit_code == 0, done
    assert done.json["rows"]["audit_events"] >= EVENTS

    with database.read() as source, target.read() as copy:
        for table in moving.TABLES:
            if table.name not in GROWING:
                of_source = moving.contents_of(source, table, step=lambda _: None)
                assert moving.contents_of(copy, table, step=lambda _: None) == of_source
        assert len(list(audit.check_chain(copy))) == done.json["rows"]["audit_events"] + 1
    moved = Cli(cli.home, target_url)
    assert all(moved.verdict(key)["valid"] for key in keys)
    assert moved.verdict(moved.key())["valid"]
    assert cli("generate").exit_code == 6
    target.engine.dispose()
