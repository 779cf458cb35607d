"""Bring a schema up to date with Alembic: wholly, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from keyctl.db.engines import WRITE
from keyctl.db.schema import HEAD, current_revision
from keyctl.errors import SchemaError

_PACKAGE = Path(__file__).resolve().parent.parent
_ADVISORY_LOCK = 0x6B657963746C  # "keyctl": one upgrade at a time on PostgreSQL


def alembic_home() -> Path:
    """Return the directory that holds alembic.ini and migrations/.

    A wheel carries both under ``keyctl/_alembic``; a checkout keeps them at the top level, next
    to the package.
    """
    bundled = _PACKAGE / "_alembic"
    return bundled if (bundled / "alembic.ini").is_file() else _PACKAGE.parent


def upgrade(engine: Engine, revision: str = "head", *, home: Path | None = None) -> None:
    """Upgrade the schema to *revision*, or leave it as it was."""
    config = Config((home or alembic_home()) / "alembic.ini")
    with (
        engine.connect().execution_options(**WRITE) as connection,
        _rebuilding(connection),
        connection.begin(),
    ):
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _ADVISORY_LOCK})
            there = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar()
            if there is not None and current_revision(connection) != HEAD:
                # Every transaction reads this table first, and keeps it locked to its end: others
                # are over now, so none holds a table that a migration alters after one it waits for.
                connection.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
        # Handing over a connection, not a URL, keeps the password out of the config
        # parser, which would also choke on a percent sign in it.
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            raise SchemaError(
                "the database is at a schema that this keyctl does not know",
                hint="install the keyctl version that made it; keyctl db status tells which it is",
            ) from error


@contextmanager
def _rebuilding(connection: Connection) -> Iterator[None]:
    """Let SQLite rebuild tables without deleting the rows that refer to them.

    SQLite alters a table by copying and dropping it, and with foreign keys enforced a drop
    deletes the children first.  The switch is ignored inside a transaction, so it has to be
    thrown before one begins.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    raw = connection.connection.cursor()
    raw.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys = ON")
        raw.close()
