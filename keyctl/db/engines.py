"""Make engines: set up every connection, say how transactions begin, and how long they wait."""

import os
import shlex
import sqlite3
import sys
import time
from contextlib import nullcontext
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError

from keyctl.db.urls import DatabaseAddress
from keyctl.db.watch import Watch
from keyctl.errors import DatabaseError, UsageError

# How a transaction begins: SQLite's and PostgreSQL's word for it.
WRITE: Final[dict[str, Any]] = {"keyctl_begin": ("BEGIN IMMEDIATE", "BEGIN")}
READ: Final[dict[str, Any]] = {"keyctl_begin": ("BEGIN", "BEGIN READ ONLY")}
# SQLite's readers see one snapshot anyway; PostgreSQL's a new one with every statement.
SNAPSHOT: Final[dict[str, Any]] = {
    "keyctl_begin": ("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
}
_PLAIN: Final = ("BEGIN", "BEGIN")
_BUSY: Final = timedelta(seconds=20)


def engine_of(
    address: DatabaseAddress, watch: Watch, *, patience: timedelta | None = None
) -> Engine:
    """Return an engine whose connections give up after *patience*; a command is rather patient.

    What a new connection is set to is set under the *watch*.

    Raises:
        DatabaseError: The driver is missing.
        UsageError: The URL has parameters that the driver does not know.
    """
    if address.path is not None:
        return _sqlite_engine(address.path, busy=patience or _BUSY)
    return _postgres_engine(address, watch, patience)


def _sqlite_engine(path: Path, *, busy: timedelta) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", creator=lambda: connected(path), hide_parameters=True
    )

    def configure(dbapi: Any, _record: object) -> None:
        # Stop the driver from deciding when transactions start: it does not open one for DDL, so
        # a failed migration would be left half applied.
        dbapi.isolation_level = None
        cursor = dbapi.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA busy_timeout = {_milliseconds(busy)}")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    event.listen(engine, "connect", configure)
    # A read that turns into a write under plain BEGIN fails busy at once, whatever the timeout.
    event.listen(
        engine, "begin", lambda connection: connection.exec_driver_sql(_begin_of(connection)[0])
    )
    return engine


def use_write_ahead_log(cursor: Any, *, patience: timedelta | None = None) -> None:
    """Switch a SQLite file to its write-ahead log, outside any transaction, however busy it is.

    Raises:
        sqlite3.Error: It cannot be, or others were at work on it for longer than *patience*.
    """
    end = time.monotonic() + (patience or _BUSY).total_seconds()
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # While another process writes in the file's first mode, SQLite refuses to switch at
            # once: its own busy_timeout counts for the beginning of a transaction only.
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() >= end:
                raise
            time.sleep(0.01)
        else:
            return


def is_read_only(path: Path) -> bool:
    """Tell whether this process cannot write to the SQLite file, or not beside it."""
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def connected(path: Path) -> sqlite3.Connection:
    """Return a connection to a SQLite file, for reading only where this process cannot write."""
    if not is_read_only(path):
        return sqlite3.connect(path, check_same_thread=False)
    # The path's own ? and % are no options.
    name = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(f"file:{name}?mode=ro", uri=True, check_same_thread=False)
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1")
    except sqlite3.OperationalError as error:
        # Nobody can put the index of a write-ahead log here.  Without a log the file is whole.
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise DatabaseError(
                f"the database {path} is read-only, and changes stand only in its write-ahead log",
                hint="make the copy with keyctl db backup, or copy both files to a place to write",
            ) from error
        connection.close()
        name += "?mode=ro&immutable=1"
        connection = sqlite3.connect(f"file:{name}", uri=True, check_same_thread=False)
    return connection


def _begin_of(connection: Connection) -> tuple[str, str]:
    words: tuple[str, str] = connection.get_execution_options().get("keyctl_begin", _PLAIN)
    return words


def _postgres_engine(address: DatabaseAddress, watch: Watch, patience: timedelta | None) -> Engine:
    waits: dict[str, Any] = {"connect_timeout": 10}
    if patience is not None:
        waits = {
            # libpq takes 1 for 2.
            "connect_timeout": max(2, ceil(patience.total_seconds())),
            "tcp_user_timeout": _milliseconds(patience),
        }
    try:
        from psycopg import pq  # noqa: PLC0415  # not for SQLite

        address.check_parameters({item.keyword.decode() for item in pq.Conninfo.get_defaults()})
        engine = create_engine(
            address.url,
            hide_parameters=True,
            connect_args={
                "application_name": "keyctl",
                # Prepared statements do not survive a transaction pooler such as PgBouncer.
                "prepare_threshold": None,
                **waits,
            },
        )
    except ImportError as error:
        raise DatabaseError(
            "the PostgreSQL driver is not installed",
            hint="install it with: "
            f"{shlex.quote(sys.executable)} -m pip install 'llm-keyctl[postgres]'",
        ) from error
    except ArgumentError:
        raise UsageError(
            "the database URL has hosts and ports that do not fit together",
            hint="give each host its port: postgresql://user@host1:5432,host2:5432/database",
        ) from None
    settings = "".join(f"; SET LOCAL {item}" for item in _settings(address, patience))

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            return
        dbapi: Any = connection.connection.dbapi_connection
        if not dbapi.autocommit:
            # The driver would ask for BEGIN alone, and the settings would be a question of their own.
            dbapi.autocommit = True
        with nullcontext() if patience is None else watch.over(dbapi.fileno(), patience):
            connection.exec_driver_sql(_begin_of(connection)[1] + settings)

    event.listen(engine, "begin", begin)
    return engine


def _settings(address: DatabaseAddress, patience: timedelta | None) -> list[str]:
    """Return what holds for one transaction: behind a pooler the next one is somebody else's."""
    settings = ["TimeZone = 'UTC'", f"lock_timeout = {_milliseconds(patience or _BUSY)}"]
    if patience is not None:
        settings.append(f"statement_timeout = {_milliseconds(patience)}")
    if address.schema is not None:
        settings.append(f"search_path = {address.schema}")
    return settings


def _milliseconds(length: timedelta) -> int:
    return max(1, round(length.total_seconds() * 1000))
