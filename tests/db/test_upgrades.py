"""Every schema that ever was, with keys in it, is upgraded to this one, and every promise holds there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from clock import Clock
from databases import Postgres
from sqlalchemy import Connection, DateTime, MetaData, Table, insert, select
from world import Hand, World

from keyctl.db import migrate
from keyctl.db.database import Database
from keyctl.db.schema import HEAD
from keyctl.db.tables import metadata
from keyctl.fields import parse_grace
from keyctl.policy.facts import Caller
from keyctl.services.audit import AuditService
from keyctl.services.keys.end import EndingService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace

# What released programs wrote: the rows, and the key strings that belong to them.
RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))
REVISIONS = sorted(
    script.revision
    for script in ScriptDirectory(str(migrate.alembic_home() / "migrations")).walk_revisions()
)


@pytest.fixture(name="older")
def _older(kind: str, postgres: Postgres, tmp_path: Path, clock: Clock) -> Iterator[Database]:
    """An empty database without a schema."""
    if kind == "sqlite":
        folder = tmp_path / "older"
        folder.mkdir(mode=0o700)
        (folder / "k.db").touch(0o600)
        database = Database(f"sqlite:///{folder}/k.db", clock=clock)
        yield database
        database.engine.dispose()
        return
    with postgres.database(migrated=False) as url:
        database = Database(url, clock=clock)
        yield database
        database.engine.dispose()


def fill(database: Database, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write rows into a schema of its own time: only tables and columns that are there."""
    reflected = MetaData()
    with database.engine.begin() as connection:
        reflected.reflect(connection)
        connection.execute(reflected.tables["audit_head"].delete())
        for table in metadata.sorted_tables:
            if (there := reflected.tables.get(table.name)) is not None:
                _insert(connection, there, rows.get(table.name, ()))


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    instants = {column.name for column in table.c if isinstance(column.type, DateTime)}
    for row in rows:
        values = {name: value for name, value in row.items() if name in table.c}
        for name in instants & values.keys():
            if isinstance(values[name], str):
                values[name] = datetime.fromisoformat(values[name])
        connection.execute(insert(table), values)


def rows_of(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Return everything that a database holds, JSON documents as the text that is stored."""
    with database.read() as connection:
        reflected = MetaData()
        reflected.reflect(connection, only=list(metadata.tables))
        return {
            name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for name, table in reflected.tables.items()
        }


def acting_on(database: Database, workspace: Workspace) -> Workspace:
    """Return what services work with on another database."""
    return Workspace(
        database=database,
        settings=workspace.settings,
        caller=Caller(actor="local:tester@host", role="proxy_admin"),
        runs_folder=workspace.runs_folder,
    )


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_revision_with_keys_in_it(
    older: Database, workspace: Workspace, revision: str
) -> None:
    """Key strings verify as before, the chain holds, and keys are made, rotated and ended."""
    world = World(workspace)
    first, second = Hand(), Hand()
    world.make({"key_alias": "a", "team_id": "web", "max_budget": 5}, hand=first)
    world.rotate("a", second)
    world.make({"key_alias": "gone"})
    EndingService(workspace).delete(["gone"])
    migrate.upgrade(older.engine, revision)
    fill(older, rows_of(workspace.database))

    before = older.upgrade()[0]

    assert (before, older.revision()) == (revision, HEAD)
    moved = acting_on(older, workspace)
    assert all(verify(older, item.held).valid for item in (first, second))
    AuditService(moved).verify(state=False, step=lambda: None)
    third = Hand()
    RotateService(moved).rotate(RotateOrder(given="a", grace=parse_grace("1h")), third)
    assert verify(older, third.held).valid
    (ended,) = EndingService(moved).delete(["a"])
    assert ended.result == "deleted"
    assert verify(older, third.held).reason == "revoked"


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_a_released_program_wrote(older: Database, workspace: Workspace, path: Path) -> None:
    """Its key strings are answered as it answered them, and its audit trail is unbroken."""
    recorded = json.loads(path.read_text())
    migrate.upgrade(older.engine, recorded["revision"])
    fill(older, recorded["tables"])

    older.upgrade()

    verdicts = {name: verify(older, key).reason for name, key in recorded["key_strings"].items()}
    assert verdicts == {
        "plain": None,
        "rotated": None,
        "rotated-old": None,
        "supplied": None,
        "gone": "revoked",
        "blocked": "blocked",
    }
    moved = acting_on(older, workspace)
    AuditService(moved).verify(state=False, step=lambda: None)
    hand = Hand()
    RotateService(moved).rotate(RotateOrder(given="rotated", grace=parse_grace("1h")), hand)
    assert verify(older, hand.held).valid
