"""How connections are set up, while others are at work on the same file."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import Postgres, administered, at
from sqlalchemy import Connection, text

from keyctl.db.database import Database
from keyctl.db.queries.listing import allocations
from keyctl.db.queries.presented import find_all_presented, find_presented
from keyctl.errors import BusyError, DatabaseLostError


@pytest.fixture(name="path")
def _path(template: Path, tmp_path: Path) -> Path:
    """A migrated file that nobody has written to yet: the first writer switches to the log."""
    return Path(shutil.copy(template, tmp_path / "keyctl.db"))


def wrote(database: Database) -> bool:
    """Write nothing, in a transaction that writes."""
    with database.write():
        return True


class TestWriteAheadLog:
    def test_is_switched_to_when_another_writer_has_ended(self, path: Path) -> None:
        """SQLite itself refuses at once while the file is written in its first mode; keyctl waits."""
        database = Database(f"sqlite:///{path}")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor(1) as pool:
                writing = pool.submit(wrote, database)
                with pytest.raises(StillWaiting):
                    writing.result(timeout=0.2)
                other.execute("COMMIT")
                assert writing.result()
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        database.engine.dispose()

    def test_is_not_waited_for_longer_than_the_patience(self, path: Path) -> None:
        """The file stays busy: exit 7, as for every lock."""
        database = Database(f"sqlite:///{path}", patience=timedelta(milliseconds=50))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BusyError, match="is busy"):
                wrote(database)
        database.engine.dispose()


READINGS: dict[str, Callable[[Connection], Any]] = {
    "one presented key": lambda connection: find_presented(connection, "000000000000"),
    "many presented keys": lambda connection: find_all_presented(
        connection, ["000000000000"], recorder=None
    ),
    "what the keys of a team take": lambda connection: allocations(
        connection, now=datetime(2030, 1, 1, tzinfo=UTC), team_id="web"
    ),
}


@pytest.fixture(name="served")
def _served(postgres: Postgres) -> Iterator[Database]:
    """A database on a server, which may end connections and cancel queries."""
    with postgres.database() as url:
        database = Database(url)
        yield database
        database.engine.dispose()


def read_after(
    database: Database, before: Callable[[Connection], Any], reading: Callable[[Connection], Any]
) -> None:
    """Read in a transaction to which something happens first."""
    with database.read() as connection:
        before(connection)
        reading(connection)


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
class TestAQueryThatTheServerEnds:
    """It says nothing of the rows: to look for one that cannot be read would hide what happened."""

    def test_with_its_connection(
        self, served: Database, postgres_url: str, reading: Callable[[Connection], Any]
    ) -> None:
        """The connection is lost: a gateway asks once more over another, a command is exit 6."""

        def end(connection: Connection) -> None:
            own = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            with administered(postgres_url) as execute:
                execute(f"SELECT pg_terminate_backend({own}, 5000)")

        with pytest.raises(DatabaseLostError):
            read_after(served, end, reading)

    def test_alone(
        self, served: Database, postgres_url: str, reading: Callable[[Connection], Any]
    ) -> None:
        """The database is busy: exit 7, as for every lock."""
        name = str(served.engine.url.database)
        hurry = text("SET LOCAL lock_timeout = '50ms'")
        with administered(at(postgres_url, name)) as execute:
            execute("BEGIN; LOCK TABLE secrets, keys IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(BusyError):
                read_after(served, lambda connection: connection.execute(hurry), reading)
