"""Databases where people put them: another application's, read-only media, mounts of all kinds."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from harness import KEYCTL, Cli
from sqlalchemy import create_engine

from keyctl.db.database import Database
from keyctl.db.filesystems import refuse_unsafe
from keyctl.db.urls import parse_url
from keyctl.errors import DatabaseError, SchemaError

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="mounting is root's")


class TestAnotherApplicationsDatabase:
    @pytest.mark.parametrize("versioned", [False, True])
    def test_is_refused_and_stays_as_it_is(
        self, database_url: str, kind: str, tmp_path: Path, *, versioned: bool
    ) -> None:
        """A `users` table of somebody else, also one that Alembic made."""
        if kind == "sqlite":
            database_url = f"sqlite:///{tmp_path / 'app.db'}"
        engine = create_engine(parse_url(database_url).url)
        with engine.begin() as connection:
            if kind == "postgresql":
                connection.exec_driver_sql("DROP SCHEMA public CASCADE")
                connection.exec_driver_sql("CREATE SCHEMA public")
            connection.exec_driver_sql("CREATE TABLE users (id INTEGER PRIMARY KEY, password TEXT)")
            if versioned:
                connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
                connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('ae1027a6acf')")
        engine.dispose()
        before = (tmp_path / "app.db").read_bytes() if kind == "sqlite" else b""
        database = Database(database_url)
        with pytest.raises(SchemaError, match="another application") as caught:
            database.upgrade()
        assert caught.value.exit_code == 6
        with pytest.raises(SchemaError), database.write():
            pass
        with pytest.raises(SchemaError), database.read():
            pass
        database.engine.dispose()
        assert before == ((tmp_path / "app.db").read_bytes() if kind == "sqlite" else b"")

    @pytest.mark.parametrize("kind", ["postgresql"])
    def test_is_shared_with_a_schema_of_keyctl_s_own(self, database_url: str) -> None:
        """With `?schema=` keyctl keeps to its schema, whatever lies in the others."""
        engine = create_engine(parse_url(database_url).url)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
            connection.exec_driver_sql("CREATE TABLE public.users (id INTEGER)")
        mark = "&" if "?" in database_url else "?"
        own = Database(f"{database_url}{mark}schema=keyctl_own")
        with pytest.raises(DatabaseError, match="no schema of that name"):
            own.upgrade()
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA keyctl_own")
        own.upgrade()
        with own.write() as connection:
            tables = connection.exec_driver_sql(
                "SELECT schemaname FROM pg_tables WHERE tablename IN ('users', 'secrets') ORDER BY 1"
            ).scalars()
            assert list(tables) == ["keyctl_own", "keyctl_own", "public"]
        own.engine.dispose()
        engine.dispose()


class TestNetworkFileSystems:
    @pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "ceph"])
    def test_are_refused_for_writing(self, tmp_path: Path, kind: str) -> None:
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            "22 1 0:21 / / rw,relatime - ext4 /dev/vda rw\n"
            f"57 22 0:50 / /srv/all\\040data rw,relatime shared:1 - {kind} nas:/export rw\n"
            "58 57 0:51 / /srv/all\\040data/local rw - ext4 /dev/vdb rw\n"
        )
        with pytest.raises(DatabaseError, match="network file system"):
            refuse_unsafe(Path("/srv/all data/keyctl.db"), mounts=mounts)
        refuse_unsafe(Path("/srv/all data/local/keyctl.db"), mounts=mounts)
        refuse_unsafe(Path("/srv/keyctl.db"), mounts=mounts)


@ROOT_ONLY
@pytest.mark.parametrize("kind", ["sqlite"])
class TestMounts:
    def in_namespace(self, cli: Cli, script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["unshare", "-m", "sh", "-euc", script, "sh", *KEYCTL],
            env={**cli.environment, "DB": str(cli.database_url).removeprefix("sqlite:///")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def test_a_read_only_medium_can_be_read(self, cli: Cli, tmp_path: Path) -> None:
        """`list` and `verify` work there; writing is exit 6."""
        key = cli.key("--alias", "burned")
        (tmp_path / "key").write_text(key)
        done = self.in_namespace(
            cli,
            f'dir=$(dirname "$DB"); mount --bind "$dir" "$dir"; mount -o remount,bind,ro "$dir"\n'
            f'"$@" list; "$@" verify - <{tmp_path}/key; "$@" audit verify\n'
            '"$@" generate || echo "exit $?"',
        )
        assert "burned" in done.stdout, done
        assert "valid" in done.stdout
        assert done.stdout.endswith("exit 6\n")
        assert "read-only" in done.stderr

    def test_a_log_that_was_left_on_a_read_only_medium_is_read_too(
        self, cli: Cli, database_url: str, tmp_path: Path
    ) -> None:
        """What stands only in the write-ahead log is never left out without a word."""
        cli.key("--alias", "whole")
        path = Path(database_url.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(path)) as holder:
            holder.execute("PRAGMA wal_autocheckpoint = 0")
            holder.execute("BEGIN")
            holder.execute("SELECT count(*) FROM keys").fetchone()
            cli.key("--alias", "in-the-log")
            copy = path.with_name("copy")
            copy.mkdir()
            for name in (path.name, f"{path.name}-wal"):
                shutil.copy(path.with_name(name), copy / name)
        cli.environment["KEYCTL_DATABASE_URL"] = f"sqlite:///{copy / path.name}"
        done = self.in_namespace(
            cli,
            f'mount --bind {copy} {copy}; mount -o remount,bind,ro {copy}\n"$@" list || echo "exit $?"',
        )
        assert "in-the-log" in done.stdout or (
            done.stdout == "exit 6\n" and "write-ahead log" in done.stderr
        ), done

    def test_a_single_file_is_not_written(self, cli: Cli) -> None:
        """Its write-ahead log would stay behind in the container."""
        cli.key("--alias", "inside")
        done = self.in_namespace(
            cli,
            'mount --bind "$DB" "$DB"\n"$@" list; "$@" generate || echo "exit $?"',
        )
        assert "inside" in done.stdout, done
        assert done.stdout.endswith("exit 6\n")
        assert "mount the folder" in done.stderr
