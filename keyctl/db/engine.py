"""Open the database, and begin each transaction the way its kind needs."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, OperationalError

from keyctl.db.failures import translated
from keyctl.db.schema import HEAD, check_readable, check_writable, current_revision
from keyctl.errors import DatabaseError, UsageError

Clock = Callable[[], datetime]

WRITE: Final[dict[str, Any]] = {"keyctl_write": True}
_READ: Final[dict[str, Any]] = {"postgresql_readonly": True}
# SQLite's readers see one snapshot anyway; PostgreSQL's a new one with every statement.
_SNAPSHOT: Final[dict[str, Any]] = {**_READ, "isolation_level": "REPEATABLE READ"}
_BUSY_MS: Final = 20_000


def utcnow() -> datetime:
    """Return the host's time; the only place that asks for it."""
    return datetime.now(UTC)


class Database:
    """One SQL database, SQLite or PostgreSQL.  Every block of `read` and `write` is one transaction."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self.url = parse_url(url)
        self._clock = clock
        self._prepared = False
        self.is_swept = False  # set by who has archived what crashed runs left
        self.engine = _engine(self.url)

    @property
    def is_sqlite(self) -> bool:
        """Tell whether this is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path | None:
        """Return the SQLite file's path, None for a server."""
        return Path(self.url.database or "") if self.is_sqlite else None

    @property
    def shown(self) -> str:
        """Return the URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(
        self, *, fresh: bool = False, oldest: str = HEAD, snapshot: bool = False
    ) -> Iterator[Connection]:
        """Read in one transaction that cannot write; on a new connection if *fresh*.

        *oldest* is the oldest schema revision that what is read has been in; with *snapshot* all
        statements see the database as it was at the first.

        Raises:
            DatabaseError: It cannot be reached or read.
            SchemaError: Its schema cannot be read by this version.
        """
        with self._translated():
            if self.path is not None and not self.path.exists():
                raise DatabaseError(
                    f"there is no database at {self.path}",
                    hint="the first writing command creates it: keyctl generate, or keyctl db upgrade",
                )
            if fresh:
                self.engine.dispose()
            options = _SNAPSHOT if snapshot and not self.is_sqlite else _READ
            with (
                self.engine.connect().execution_options(**options) as connection,
                connection.begin(),
            ):
                check_readable(current_revision(connection), oldest=oldest)
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Write in one transaction; a SQLite file is created and migrated first if need be.

        Raises:
            DatabaseError: It cannot be reached or written.
            SchemaError: Its schema is not this version's.
            BusyError: Somebody else held a lock for too long.
        """
        with self._translated():
            if self.is_sqlite and not self._prepared:
                self._prepare()
            with (
                self.engine.connect().execution_options(**WRITE) as connection,
                connection.begin(),
            ):
                check_writable(current_revision(connection))
                self._prepared = True
                yield connection

    def now(self, connection: Connection) -> datetime:
        """Return the time that deadlines count by: the server's on PostgreSQL, else the host's."""
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return utcnow()
        moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return moment.astimezone(UTC)

    def revision(self) -> str | None:
        """Return the schema revision, None for a database that keyctl was not installed in."""
        if self.path is not None and not self.path.exists():
            return None
        with translated(self.shown), self.engine.connect() as connection:
            return current_revision(connection)

    def upgrade(self) -> tuple[str | None, str]:
        """Bring the schema to this version; return the revisions before and after.

        Raises:
            SchemaError: The schema is newer than this version.
        """
        from keyctl.db.migrate import upgrade  # noqa: PLC0415  # Alembic costs 350 ms

        if self.path is not None:
            _create_file(self.path)
        before = self.revision()
        if before is not None and before > HEAD:
            check_writable(before)
        with translated(self.shown):
            if before != HEAD:
                if self.path is not None and before is not None:
                    _back_up(self.path, before)
                upgrade(self.engine)
        return before, HEAD

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate the block's errors; after one of the database the next try connects anew."""
        try:
            with translated(self.shown):
                yield
        except DatabaseError:
            self.engine.dispose()
            raise

    def _prepare(self) -> None:
        if self.revision() != HEAD:
            self.upgrade()
        # On the driver's connection: the mode cannot change inside a transaction, and SQLAlchemy
        # begins one before the first statement.
        raw = self.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
        except sqlite3.Error as error:
            raise OperationalError("PRAGMA journal_mode", None, error) from error
        finally:
            raw.close()


def parse_url(text_url: str) -> URL:
    """Return the URL of a database that keyctl can use.

    Raises:
        UsageError: It is no URL, or of another kind of database.  It is not repeated: it may
            hold a password.
    """
    accepted = "give sqlite:////path/to/file.db or postgresql://user@host/database"
    try:
        url = make_url(text_url)
    except ArgumentError:
        raise UsageError("the database URL is not a URL", hint=accepted) from None
    if url.drivername in ("postgres", "postgresql"):
        # SQLAlchemy's default driver has changed before; ours is psycopg 3.
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise UsageError(f"keyctl does not work with {url.drivername!r} databases", hint=accepted)
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise UsageError("the database URL names no SQLite file", hint=accepted)
        url = url.set(database=os.path.abspath(os.path.expanduser(url.database)))
    return url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, hide_parameters=True)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            # Prepared statements do not survive a transaction pooler such as PgBouncer.
            connect_args={
                "connect_timeout": 10,
                "application_name": "keyctl",
                "prepare_threshold": None,
            },
        )
    except ModuleNotFoundError as error:
        raise DatabaseError(
            f"the PostgreSQL driver is missing: {error}",
            hint="install it with: pip install 'keyctl[postgres]'",
        ) from error
    event.listen(engine, "connect", _configure_postgres)
    return engine


def _configure_sqlite(dbapi: Any, _record: object) -> None:
    # Stop the driver from deciding when transactions start: it does not open one for DDL, so a
    # failed migration would be left half applied.
    dbapi.isolation_level = None
    cursor = dbapi.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A read that turns into a write under plain BEGIN fails busy at once, whatever the timeout.
    writes = connection.get_execution_options().get("keyctl_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _configure_postgres(dbapi: Any, _record: object) -> None:
    cursor = dbapi.cursor()
    cursor.execute(f"SET lock_timeout = {_BUSY_MS}")
    cursor.execute("SET timezone = 'UTC'")
    cursor.close()
    dbapi.commit()


def _create_file(path: Path) -> None:
    """Create *path* with mode 0600, and its folder with 0700, if they are not there."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise DatabaseError(
            f"the database {path} cannot be created: {error.strerror}",
            hint="check the folder's permissions, or set KEYCTL_DATABASE_URL",
        ) from error


def _back_up(path: Path, revision: str) -> None:
    """Copy the database to ``NAME.bak-REVISION`` before it is migrated; an older copy is kept."""
    target = path.with_name(f"{path.name}.bak-{revision}")
    if target.exists():
        return
    part = path.with_name(f"{target.name}.{os.getpid()}.part")
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        source, copy = sqlite3.connect(path), sqlite3.connect(part)
        try:
            source.backup(copy)
        finally:
            source.close()
            copy.close()
        os.replace(part, target)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise
