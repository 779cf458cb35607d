"""Turn what the drivers raise into what a person can act on; the only place that reads their codes."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from keyctl.db.urls import DatabaseAddress
from keyctl.errors import BusyError, DatabaseError, DatabaseLostError, KeyctlError
from keyctl.keystring import redact

_TRY_LATER = "another process holds a lock; try again"


@contextmanager
def translated(
    address: DatabaseAddress, *, variable: str = "KEYCTL_DATABASE_URL"
) -> Iterator[None]:
    """Translate driver errors of the block, which asks the database at *address*.

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
                f"the database {address.shown} holds what cannot be read: {_line(error, address)}",
                hint="restore it from a backup; keyctl audit verify tells whether an event is damaged",
            ) from error
        raise (_sqlite(error, address) or _postgres(error, address, variable) or error) from error


def is_unreadable(error: DBAPIError) -> bool:
    """Tell whether the driver itself, and not the database, could make nothing of a value."""
    kind = type(error.orig).__module__.partition(".")[0]
    if kind == "sqlite3":  # text that is not UTF-8
        return type(error.orig).__name__ == "OperationalError" and _code(error) is None
    return isinstance(error, DataError) and _code(error) is None


def _code(error: DBAPIError) -> str | None:
    """Return the database's own code for what went wrong, None if it was not asked."""
    return getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)


def _sqlite(error: DBAPIError, address: DatabaseAddress) -> KeyctlError | None:
    name, shown = getattr(error.orig, "sqlite_errorname", None), address.shown
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


def _postgres(error: DBAPIError, address: DatabaseAddress, variable: str) -> KeyctlError | None:
    state, shown = getattr(error.orig, "sqlstate", None) or "", address.shown
    said = _line(error, address)
    if state in ("55P03", "40P01", "40001", "57014"):
        return BusyError(f"the database {shown} is busy", hint=_TRY_LATER)
    # During recovery some statements are refused as not supported, and not as writing.
    if state == "25006" or (state in ("0A000", "55000") and "recovery" in said):
        return DatabaseError(
            f"the database {shown} is a standby, or read-only",
            hint="use the primary server to write; reading works here",
        )
    if state == "42501":
        return DatabaseError(
            f"the database {shown} refuses: {said}",
            hint="grant the database user the rights on keyctl's tables",
        )
    if state == "3F000":
        return DatabaseError(
            f"the database {shown} has no schema of that name",
            hint="create it with: CREATE SCHEMA keyctl AUTHORIZATION keyctl",
        )
    if error.connection_invalidated or state.startswith(("08", "57P")):
        return DatabaseLostError(f"the connection to {shown} was lost: {said}")
    if not state and type(error.orig).__module__.startswith("psycopg"):
        return DatabaseError(
            f"the database {shown} cannot be reached: {said}",
            hint=f"check {variable} and that the server is up",
        )
    if state.startswith(("28", "3D", "53")):
        return DatabaseError(f"the database {shown} refuses the connection: {said}")
    return None


def _line(error: DBAPIError, address: DatabaseAddress) -> str:
    """Return the first line that says something, without anything of the URL that is not shown."""
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    # With several servers the first line only counts the attempts.
    said = next((line for line in lines if not line.startswith("Multiple connection attempts")), "")
    return address.hide(redact(said.removeprefix("- ")))[:200]


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
