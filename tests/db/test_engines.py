"""How connections are set up, while others are at work on the same file."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from keyctl.db.database import Database
from keyctl.errors import BusyError


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
