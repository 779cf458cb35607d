"""`keyctl db backup` copies a SQLite database whole while others write, and never over a file."""

import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from harness import Cli


def reading(cli: Cli, file: Path) -> Cli:
    """Return the program on a copy."""
    return Cli(cli.home, f"sqlite:///{file}")


@pytest.mark.parametrize("kind", ["sqlite"])
class TestSqlite:
    def test_the_copy_is_whole_though_changes_stand_in_the_log(
        self, cli: Cli, database_url: str, tmp_path: Path
    ) -> None:
        """What `cp` would miss is there; the file is alone and private."""
        path, file = database_url.removeprefix("sqlite:///"), tmp_path / "copy.db"
        with closing(sqlite3.connect(path)) as holder:
            holder.execute("PRAGMA journal_mode = WAL")
            holder.execute("BEGIN")
            holder.execute("SELECT count(*) FROM keys").fetchone()  # so that nobody empties the log
            key = cli.key("--alias", "late")
            answer = cli("db", "backup", str(file), "-o", "json", check=True).json
        assert answer == {
            "file": str(file),
            "bytes": file.stat().st_size,
            "revision": answer["revision"],
            "audit": cli("audit", "head", "-o", "json").json,
        }
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert sorted(os.listdir(tmp_path)) == sorted({"copy.db", "data", "home"})
        copy = reading(cli, file)
        assert copy.verdict(key)["valid"]
        copy("audit", "verify", check=True)

    def test_backups_during_writes_are_whole(self, cli: Cli, tmp_path: Path) -> None:
        """Each holds a chain without a gap, at some moment of the writing."""
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                cli.key()

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            for number in range(3):
                cli("db", "backup", str(tmp_path / f"{number}.db"), check=True)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        for number in range(3):
            reading(cli, tmp_path / f"{number}.db")("audit", "verify", check=True)

    @pytest.mark.parametrize("there", ["file", "link", "folder"])
    def test_nothing_is_replaced(self, cli: Cli, tmp_path: Path, there: str) -> None:
        cli.key()
        file = tmp_path / "copy.db"
        if there == "file":
            file.write_text("mine")
        elif there == "link":
            file.symlink_to(tmp_path / "nowhere")
        else:
            file.mkdir()
        assert cli("db", "backup", str(file)).exit_code == 5
        assert there != "file" or file.read_text() == "mine"

    def test_a_broken_chain_is_exit_11_and_leaves_no_file(self, cli: Cli, tmp_path: Path) -> None:
        cli.key()
        cli.execute("UPDATE audit_events SET actor = 'nobody' WHERE seq = 1")
        assert cli("db", "backup", str(tmp_path / "copy.db")).exit_code == 11
        assert sorted(os.listdir(tmp_path)) == ["data", "home"]

    def test_a_folder_that_is_not_there_is_exit_6(self, cli: Cli, tmp_path: Path) -> None:
        cli.key()
        assert cli("db", "backup", str(tmp_path / "no" / "copy.db")).exit_code == 6


@pytest.mark.parametrize("kind", ["postgresql"])
def test_postgresql_is_backed_up_by_its_own_tools(cli: Cli, tmp_path: Path) -> None:
    done = cli("db", "backup", str(tmp_path / "copy.db"), "-o", "json")
    assert (done.exit_code, "pg_dump" in done.error["hint"]) == (2, True)
