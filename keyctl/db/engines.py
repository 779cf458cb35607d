"""Make engines: set up every connection, and say how long it waits."""

from contextlib import nullcontext
from datetime import timedelta
from math import ceil
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from keyctl.db.watch import Watch
from keyctl.errors import DatabaseError

WRITE: Final[dict[str, Any]] = {"keyctl_write": True}
READ: Final[dict[str, Any]] = {"postgresql_readonly": True}
# SQLite's readers see one snapshot anyway; PostgreSQL's a new one with every statement.
SNAPSHOT: Final[dict[str, Any]] = {**READ, "isolation_level": "REPEATABLE READ"}
_BUSY: Final = timedelta(seconds=20)


def engine_of(url: URL, watch: Watch, *, patience: timedelta | None = None) -> Engine:
    """Return an engine whose connections give up after *patience*; a command is rather patient.

    What a new connection is set to is set under the *watch*.

    Raises:
        DatabaseError: The driver is missing.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, busy=patience or _BUSY)
    return _postgres_engine(url, watch, patience)


def _sqlite_engine(url: URL, *, busy: timedelta) -> Engine:
    engine = create_engine(url, hide_parameters=True)

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
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    # A read that turns into a write under plain BEGIN fails busy at once, whatever the timeout.
    writes = connection.get_execution_options().get("keyctl_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgres_engine(url: URL, watch: Watch, patience: timedelta | None) -> Engine:
    waits: dict[str, Any] = {"connect_timeout": 10}
    limits = [f"SET lock_timeout = {_milliseconds(patience or _BUSY)}"]
    if patience is not None:
        waits = {
            # libpq takes 1 for 2.
            "connect_timeout": max(2, ceil(patience.total_seconds())),
            "tcp_user_timeout": _milliseconds(patience),
        }
        limits.append(f"SET statement_timeout = {_milliseconds(patience)}")
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            connect_args={
                "application_name": "keyctl",
                # Prepared statements do not survive a transaction pooler such as PgBouncer.
                "prepare_threshold": None,
                **waits,
            },
        )
    except ModuleNotFoundError as error:
        raise DatabaseError(
            f"the PostgreSQL driver is missing: {error}",
            hint="install it with: pip install 'keyctl[postgres]'",
        ) from error

    def configure(dbapi: Any, _record: object) -> None:
        cursor = dbapi.cursor()
        with nullcontext() if patience is None else watch.over(dbapi.fileno(), patience):
            cursor.execute("; ".join(["SET timezone = 'UTC'", *limits]))
            dbapi.commit()
        cursor.close()

    event.listen(engine, "connect", configure)
    return engine


def _milliseconds(length: timedelta) -> int:
    return max(1, round(length.total_seconds() * 1000))
