"""Check with one SELECT, and without Alembic, whether this version works with the schema."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from keyctl.errors import BeingMovedError, BusyError, SchemaError

# The newest revision under migrations/versions; a test compares the two.
HEAD: Final = "1_0013"
# The oldest revision that keys can be verified on: a column that came later says `since` when, and
# has its record's default before.
VERIFIABLE: Final = "1_0001"
# Under which a connection tells the revision that its transaction has found.
REVISION: Final = "keyctl_revision"
_REVISIONS: Final = re.compile(r"([0-9]+_[0-9]{4})(?:_(moving|moved|filling)_([0-9a-z]{8}))?")
_REVISION: Final = text("SELECT version_num FROM alembic_version")
_REVISION_AND_TIME: Final = text("SELECT version_num, clock_timestamp() FROM alembic_version")
# The oldest revision that usage can be recorded in: it has the table of recorders.
RECORDABLE: Final = "1_0002"
# The oldest revision that budgets can be reserved in: it has the tables of leases and meters.
RESERVABLE: Final = "1_0005"
# The oldest revision that batches and background answers can be kept in: it has their table.
KEEPABLE: Final = "1_0008"
# The revision from which on there are groups of models.
GROUPED: Final = "1_0010"


# What is said of a database that is moved, and what helps.
_TOLD: Final = {
    "moving": (
        "the database is being moved to another one, and closed to writers",
        "use the new one when keyctl db copy is done; keyctl db copy --abort opens this one again",
    ),
    "moved": (
        "the database was moved: all of it is in another one, and this one is closed to writers",
        (
            "name the new one in KEYCTL_DATABASE_URL_FILE or the configuration; if the new one is given up,"
            " keyctl db copy --abort opens this one again"
        ),
    ),
    "filling": (
        "the database is being filled by keyctl db copy",
        "run the same keyctl db copy again until it is done",
    ),
}


@dataclass(frozen=True, slots=True)
class Move:
    """What stands behind the revision of a database that is moved: how far it is, and which move it is.

    There, because every writer of every version looks at the revision first, and leaves a database
    alone whose revision it does not know.
    """

    stage: str
    id: str
    revision: str = HEAD

    @property
    def mark(self) -> str:
        """Return what stands in the table of the revision."""
        return f"{self.revision}_{self.stage}_{self.id}"

    @property
    def told(self) -> str:
        """Return what is said to who reads the database."""
        return "; ".join(_TOLD[self.stage])


def move_of(revision: str | None) -> Move | None:
    """Return the move that a database is part of, None if it is part of none."""
    found = None if revision is None else _REVISIONS.fullmatch(revision)
    return Move(found[2], found[3], found[1]) if found is not None and found[2] else None


def mark(connection: Connection, revision: str, *, before: str) -> None:
    """Write the database's revision; no other transaction is under way then, and none missed it.

    Raises:
        BusyError: Others are at work for too long, or somebody else has marked it.
    """
    if connection.dialect.name == "postgresql":
        # Every transaction reads this table first, and keeps it locked to its end.
        connection.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
    changed = connection.execute(
        text("UPDATE alembic_version SET version_num = :revision WHERE version_num = :before"),
        {"revision": revision, "before": before},
    )
    if changed.rowcount != 1:
        raise BusyError(
            "another keyctl db copy is at work on the database", hint="wait for it, or end it"
        )


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the database is at, or None when keyctl was never installed in it.

    After None the transaction is over on PostgreSQL: a failed statement ends it.
    """
    return revision_and_time(connection)[0]


def revision_and_time(connection: Connection) -> tuple[str | None, datetime | None]:
    """Return the revision, and on PostgreSQL what the server's clock says, in one question."""
    asked = _REVISION_AND_TIME if connection.dialect.name == "postgresql" else _REVISION
    try:
        row = connection.execute(asked).first()
    except DBAPIError as error:
        if _is_missing_table(error):
            return None, None
        raise
    if row is None:
        return None, None
    return row[0], row[1].astimezone(UTC) if len(row) > 1 else None


def check_writable(revision: str | None) -> None:
    """Refuse to write to any schema but this version's.

    Raises:
        SchemaError: The schema is missing, older or newer.
    """
    if revision == HEAD:
        return
    if revision is None:
        raise SchemaError("the database has no keyctl schema", hint="run: keyctl db upgrade")
    if _REVISIONS.fullmatch(revision) is None:
        raise SchemaError(
            "the database is another application's: keyctl never gave it its schema version",
            hint="check which database KEYCTL_DATABASE_URL names; keyctl changed nothing",
        )
    if (move := move_of(revision)) is not None:
        raise BeingMovedError(*_TOLD[move.stage])
    if revision > HEAD:
        raise SchemaError(
            f"the database is at schema {revision}, newer than this keyctl's {HEAD}",
            hint="install the keyctl version that upgraded it",
        )
    raise SchemaError(
        f"the database is at schema {revision}, this keyctl needs {HEAD}",
        hint="run: keyctl db upgrade",
    )


def check_readable(revision: str | None, *, oldest: str = HEAD) -> None:
    """Refuse to read anything but *oldest* or a newer schema of the same major version.

    Revisions are named ``MAJOR_NUMBER``, so they sort, and migrations of one major version
    only add to what readers use.

    Raises:
        SchemaError: The schema is missing, older, or of another major version.
    """
    known = revision is not None and _REVISIONS.fullmatch(revision) is not None
    if revision is None or not known or revision < oldest or _major(revision) != _major(HEAD):
        check_writable(revision)
    if (move := move_of(revision)) is not None and move.stage == "filling":
        raise BeingMovedError(*_TOLD[move.stage])


def check_recordable(revision: str | None, *, oldest: str) -> None:
    """Refuse to record usage where it would be left behind.

    Raises:
        SchemaError: The schema is older than usage records, of another major version, or closed.
    """
    check_readable(revision, oldest=oldest)
    if move_of(revision) is not None:
        check_writable(revision)


def refuse_foreign(connection: Connection, shown: str) -> None:
    """Refuse a database without keyctl's schema in which another application has tables.

    A SQLite file is one application's.  A PostgreSQL schema may be shared, but not the names.

    Raises:
        SchemaError: There are such tables.
    """
    from sqlalchemy import inspect  # noqa: PLC0415  # only before a schema is made

    from keyctl.db.tables import metadata  # noqa: PLC0415  # likewise

    present = set(inspect(connection).get_table_names())
    # Since the caller saw no schema, another upgrade may have made it, with all of these tables.
    if "alembic_version" in present and current_revision(connection) is not None:
        return
    present.discard("alembic_version")
    in_the_way = sorted(
        present if connection.dialect.name == "sqlite" else present & set(metadata.tables)
    )
    if in_the_way:
        raise SchemaError(
            f"the database {shown} holds tables of another application, such as {in_the_way[0]}",
            hint="name another database, or on PostgreSQL another schema: ?schema=keyctl",
        )


def _major(revision: str) -> str:
    return revision.partition("_")[0]


def _is_missing_table(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return state == "42P01" or "no such table" in str(error.orig)
