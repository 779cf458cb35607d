"""Open the database, and begin each transaction the way its kind needs."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Pool, text
from sqlalchemy.exc import OperationalError

from keyctl.db.engines import (
    READ,
    SNAPSHOT,
    WRITE,
    engine_of,
    is_read_only,
    use_write_ahead_log,
)
from keyctl.db.failures import translated
from keyctl.db.filesystems import refuse_unsafe
from keyctl.db.schema import (
    HEAD,
    RECORDABLE,
    REVISION,
    Move,
    check_readable,
    check_recordable,
    check_writable,
    current_revision,
    move_of,
    refuse_foreign,
    revision_and_time,
)
from keyctl.db.urls import parse_url
from keyctl.db.watch import Watch
from keyctl.errors import BusyError, DatabaseError, SchemaError

Clock = Callable[[], datetime]
_BEGAN_AT: Final = "keyctl_began_at"


def utcnow() -> datetime:
    """Return the host's time; the only place that asks for it."""
    return datetime.now(UTC)


class Database:
    """One SQL database, SQLite or PostgreSQL.

    Every block of `read`, `write` and `recording` is one transaction.  With *patience* a server that
    does not answer for that long is given up, however it is that it does not answer.  *variable* is
    the one that people are told to look at.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        patience: timedelta | None = None,
        variable: str = "KEYCTL_DATABASE_URL",
    ) -> None:
        self.address = parse_url(url)
        self._variable = variable
        self._clock = clock
        self._patience = patience
        self._prepared = False
        self.upgraded_from: str | None = None  # the schema that this process has brought to its own
        self.move: Move | None = None  # that a reading transaction found it to be part of
        self.has_groups = False  # set by who has written the configuration's groups of models
        self.is_swept = False  # set by who has archived what crashed runs left
        self._watch = Watch()
        self.engine = engine_of(self.address, self._watch, patience=patience)
        self._inherited: list[Pool] = []

    @property
    def is_sqlite(self) -> bool:
        """Tell whether this is a SQLite file."""
        return self.address.path is not None

    @property
    def path(self) -> Path | None:
        """Return the SQLite file's path, None for a server."""
        return self.address.path

    @property
    def shown(self) -> str:
        """Return the URL without its password and parameters."""
        return self.address.shown

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
            self._require_file()
            if fresh:
                self.engine.dispose()
            options = SNAPSHOT if snapshot else READ
            with (
                self._left_alone(),
                self.engine.connect().execution_options(**options) as connection,
                self._watched(connection),
                connection.begin(),
            ):
                connection.info[REVISION] = revision = current_revision(connection)
                check_readable(revision, oldest=oldest)
                self.move = None if revision == HEAD else move_of(revision)
                yield connection

    @contextmanager
    def write(self, *, marked: str | None = None) -> Iterator[Connection]:
        """Write in one transaction; a SQLite file is created and migrated first if need be.

        *marked* is the mark of a move that this transaction is part of, and that others stop at.

        Raises:
            DatabaseError: It cannot be reached or written.
            SchemaError: Its schema is not this version's.
            BusyError: Somebody else held a lock for too long.
        """
        with self._translated():
            if self.is_sqlite and not self._prepared and marked is None:
                self._prepare()
            with (
                self.engine.connect().execution_options(**WRITE) as connection,
                connection.begin(),
            ):
                revision, connection.info[_BEGAN_AT] = revision_and_time(connection)
                connection.info[REVISION] = revision
                if marked is None:
                    check_writable(revision)
                    self._prepared = True
                elif revision != marked:
                    raise BusyError(
                        "another keyctl db copy is at work on the database",
                        hint="wait for it, or end it",
                    )
                yield connection

    @contextmanager
    def recording(self, *, oldest: str = RECORDABLE) -> Iterator[Connection]:
        """Record usage in one transaction; nothing is created or migrated for it.

        *oldest* is the oldest schema revision that what is written has been in.

        Raises:
            DatabaseError: It cannot be reached or written.
            SchemaError: Its schema is of another major version, or older than usage records.
            BusyError: Somebody else held a lock for too long.
        """
        with self._translated():
            self._require_file()
            with (
                self.engine.connect().execution_options(**WRITE) as connection,
                # Nobody waits for it, and it may be of many statements.
                self._watched(connection, times=10),
                connection.begin(),
            ):
                revision, connection.info[_BEGAN_AT] = revision_and_time(connection)
                check_recordable(revision, oldest=oldest)
                yield connection

    def leave_connections(self) -> None:
        """Begin anew in a child process: the connections are the parent's."""
        # Kept: a connection that is collected would be closed, and the parent's with it.
        self._inherited.append(self.engine.pool)
        self.engine.dispose(close=False)
        self._watch.begin()

    def now(self, connection: Connection) -> datetime:
        """Return the time that deadlines count by: the server's on PostgreSQL, else the host's."""
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return utcnow()
        moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return moment.astimezone(UTC)

    def now_and_role(self, connection: Connection) -> tuple[datetime, bool]:
        """Return what `now` does, and whether the server is a standby that nothing can be written to."""
        if self.is_sqlite:
            return self.now(connection), False
        asked = text("SELECT clock_timestamp(), pg_is_in_recovery()")
        moment, is_standby = connection.execute(asked).one()
        return self._clock() if self._clock is not None else moment.astimezone(UTC), is_standby

    def time(self) -> datetime:
        """Return `now` outside any transaction; a SQLite file need not be there for it."""
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return utcnow()
        with self.read() as connection:
            return self.now(connection)

    def began_at(self, connection: Connection) -> datetime:
        """Return the time, as `now`, at which a transaction of `write` or `recording` began; it costs no question."""
        moment: datetime | None = connection.info.get(_BEGAN_AT)
        return self.now(connection) if moment is None or self._clock is not None else moment

    def revision(self) -> str | None:
        """Return the schema revision, None for a database that keyctl was not installed in."""
        if self.path is not None and not self.path.exists():
            return None
        with self.translated(), self.engine.connect() as connection:
            return current_revision(connection)

    def upgrade(self) -> tuple[str | None, str]:
        """Bring the schema to this version; return the revisions before and after.

        Raises:
            SchemaError: The schema is newer than this version.
        """
        from keyctl.db.migrate import upgrade  # noqa: PLC0415  # Alembic costs 350 ms

        if self.path is not None:
            _create_file(self.path)
            refuse_unsafe(self.path)
        before = self.revision()
        if before is not None and (before > HEAD or move_of(before) is not None):
            check_writable(before)
        with self.translated():
            if before is None:
                with self.engine.connect().execution_options(**READ) as connection:
                    refuse_foreign(connection, self.shown)
            if before != HEAD:
                if self.path is not None and before is not None:
                    _back_up(self.path, before)
                upgrade(self.engine)
                self.upgraded_from = before
        return before, HEAD

    def translated(self) -> AbstractContextManager[None]:
        """Tell driver errors of a block as this database's; `read`, `write` and `recording` do so."""
        return translated(self.address, variable=self._variable)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate the block's errors; after one of the database the next try connects anew."""
        try:
            with self.translated():
                yield
        except SchemaError:
            raise
        except DatabaseError:
            self.engine.dispose()
            raise

    @contextmanager
    def _watched(self, connection: Connection, *, times: int = 1) -> Iterator[None]:
        if self._patience is None or self.is_sqlite:
            yield
            return
        dbapi: Any = connection.connection.dbapi_connection
        with self._watch.over(dbapi.fileno(), self._patience * times):
            yield

    @contextmanager
    def _left_alone(self) -> Iterator[None]:
        """Notice when somebody else changes a SQLite file that this process reads without locks.

        Raises:
            BusyError: It was changed while the block read it.
        """
        path = self.path
        if path is None or not is_read_only(path):
            yield
            return
        before = _state(path)
        yield
        if _state(path) != before:
            raise BusyError(
                f"the database {self.shown} was changed while it was read", hint="try again"
            )

    def _require_file(self) -> None:
        if self.path is not None and not self.path.exists():
            raise DatabaseError(
                f"there is no database at {self.path}",
                hint="the first writing command creates it: keyctl generate, or keyctl db upgrade",
            )

    def _prepare(self) -> None:
        if self.path is not None and self.path.exists():
            refuse_unsafe(self.path)
        if self.revision() != HEAD:
            self.upgrade()
        # On the driver's connection: the mode cannot change inside a transaction, and SQLAlchemy
        # begins one before the first statement.
        raw = self.engine.raw_connection()
        try:
            use_write_ahead_log(raw.cursor(), patience=self._patience)
        except sqlite3.Error as error:
            raise OperationalError("PRAGMA journal_mode", None, error) from error
        finally:
            raw.close()


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


def _state(path: Path) -> tuple[int, int, int]:
    """Return what changes when somebody writes to the file."""
    now = path.stat()
    return now.st_ino, now.st_size, now.st_mtime_ns


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
