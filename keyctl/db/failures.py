"""Turn what the drivers raise into what a person can act on; the only place that reads their codes."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from keyctl.errors import BusyError, DatabaseError, DatabaseLostError, KeyctlError
from keyctl.keystring import redact

_TRY_LATER = "another process holds a lock; try again"


@contextmanager
def translated(shown: str, *, variable: str = "KEYCTL_DATABASE_URL") -> Iterator[None]:
    """Translate driver errors of the block; *shown* is the database's URL without its password.

    *variable* is the one that says which database it is.

    `IntegrityError` passes: only the service knows which fact it contradicts.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        if is_unreadable(error):
            raise DatabaseError(
                f"the database {shown} holds what cannot be read: {_line(error)}",
                hint="restore it from a backup; keyctl audit verify tells whether an event is damaged",
            ) from error
        raise (_sqlite(error, shown) or _postgres(error, shown, variable) or error) from error


def is_unreadable(error: DBAPIError) -> bool:
    """Tell whether the driver itself, and not the database, could make nothing of a value."""
    kind = type(error.orig).__module__.partition(".")[0]
    if kind == "sqlite3":  # text that is not UTF-8
        return type(error.orig).__name__ == "OperationalError" and _code(error) is None
    return isinstance(error, DataError) and _code(error) is None


def _code(error: DBAPIError) -> str | None:
    """Return the database's own code for what went wrong, None if it was not asked."""
    return getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)


def _sqlite(error: DBAPIError, shown: str) -> KeyctlError | None:
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is None:
        return None
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return BusyError(f"the database {shown} is busy", hint=_TRY_LATER)
    if name == "SQLITE_READONLY_DBMOVED":
        return DatabaseLostError(f"the database {shown} was moved or removed while it was in use")
    if name.startswith("SQLITE_READONLY"):
        return DatabaseError(
            f"the database {shown} is read-only",
            hint="check the permissions of the file and its folder",
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DatabaseError(
            f"{shown} is not a SQLite database, or a damaged one",
            hint="restore it from a backup; keyctl changed nothing",
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return DatabaseError(
            f"the database {shown} cannot be opened", hint="check the path and its permissions"
        )
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return DatabaseError(f"the database {shown} cannot be written: {error.orig}")
    return None


def _postgres(error: DBAPIError, shown: str, variable: str) -> KeyctlError | None:
    state = getattr(error.orig, "sqlstate", None)
    if state in ("55P03", "40P01", "40001", "57014"):
        return BusyError(f"the database {shown} is busy", hint=_TRY_LATER)
    if state == "25006":
        return DatabaseError(f"the database {shown} is read-only", hint="use the primary server")
    if state == "42501":
        return DatabaseError(
            f"the database {shown} refuses: {_line(error)}",
            hint="grant the database user the rights on keyctl's tables",
        )
    if error.connection_invalidated or (state or "").startswith(("08", "57P")):
        return DatabaseLostError(f"the connection to {shown} was lost: {_line(error)}")
    if state is None and type(error.orig).__module__.startswith("psycopg"):
        return DatabaseError(
            f"the database {shown} cannot be reached: {_line(error)}",
            hint=f"check {variable} and that the server is up",
        )
    if (state or "").startswith(("28", "3D", "53")):
        return DatabaseError(f"the database {shown} refuses the connection: {_line(error)}")
    return None


def _line(error: DBAPIError) -> str:
    return redact(str(error.orig).strip().split("\n", 1)[0])[:200]


def broken_constraint(error: IntegrityError) -> str:
    """Return the name of the constraint or unique index that *error* broke, "" if unknown."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None:
        return diagnosis.constraint_name or ""
    # SQLite names the columns of a unique index, not the index.
    _, _, column = str(error.orig).partition("UNIQUE constraint failed: ")
    return _BY_COLUMN.get(column, "")


_BY_COLUMN = {
    "keys.key_alias": "uq_keys_key_alias",
    "secrets.lookup": "uq_secrets_lookup",
    "secrets.id": "pk_secrets",
    "request_ids.request_id": "pk_request_ids",
    "claims.key_id": "pk_claims",
}
