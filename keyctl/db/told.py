"""Keep, beside the database, what the audit chain last said of each object, and compare rows with it.

On disk and not in memory: there may be millions.  It is gone when the comparison is over.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Connection, Table, select, tuple_

from keyctl import jsontext
from keyctl.db import rows
from keyctl.db.tables import (
    budgets,
    keys,
    organization_members,
    organizations,
    secrets,
    team_members,
    teams,
    users,
)
from keyctl.errors import UnreadableRowError

_BATCH: Final = 500
# What the audit trail calls an object, and its rows.  The policies are columns of their owners.
TABLES: Final[Mapping[str, Table]] = {
    "organization": organizations,
    "user": users,
    "team": teams,
    "organization_member": organization_members,
    "team_member": team_members,
    "budget": budgets,
    "key": keys,
    "secret": secrets,
}
# What a gateway records is no change: it has no audit row.
USAGE: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("organization", "user", "team"), frozenset({"spend", "budget_reset_at"})),
    "key": frozenset({"spend", "budget_reset_at", "last_used_at"}),
    **dict.fromkeys(("organization_member", "team_member", "budget", "secret"), frozenset[str]()),
}


@cache
def compared(word: str) -> tuple[str, ...]:
    """Return the columns that are held against the audit chain: all but usage and the identity."""
    table = TABLES[word]
    return tuple(
        column.name
        for column in table.c
        if not column.primary_key and column.name not in USAGE[word]
    )


def identity_of(word: str, row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a row of this kind is known by; the second part is a member's user."""
    first, *rest = (str(row[column.name]) for column in TABLES[word].primary_key.columns)
    return first, rest[0] if rest else ""


class Told:
    """What was last said of each object: its columns, and by which event."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute(
            "CREATE TABLE told (word TEXT, first TEXT, second TEXT, seq INT, columns TEXT,"
            " PRIMARY KEY (word, first, second)) WITHOUT ROWID"
        )
        connection.execute("CREATE INDEX by_user ON told (second, word) WHERE second <> ''")

    def find(self, word: str, identity: tuple[str, str]) -> tuple[dict[str, Any], int] | None:
        """Return the columns and the number of the last event, None if nothing was said."""
        found = self._connection.execute(
            "SELECT columns, seq FROM told WHERE word = ? AND first = ? AND second = ?",
            (word, *identity),
        ).fetchone()
        return None if found is None else (jsontext.loads(found[0]), found[1])

    def say(
        self, word: str, identity: tuple[str, str], columns: Mapping[str, Any], seq: int
    ) -> None:
        """Note columns; those that are not named stay as they were said before."""
        wanted = {name: columns[name] for name in compared(word) if name in columns}
        if len(wanted) < len(compared(word)) and (known := self.find(word, identity)):
            wanted = {**known[0], **wanted}
        self._connection.execute(
            "INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?)",
            (word, *identity, seq, jsontext.dumps(wanted)),
        )

    def drop(self, word: str, *, first: str | None = None, second: str | None = None) -> None:
        """Note that objects are gone: the one of both names, or all of one of them."""
        named = {"word": word, "first": first, "second": second}
        parts = [f"{name} = :{name}" for name, value in named.items() if value is not None]
        if second:
            parts.append("second <> ''")  # what the index holds
        self._connection.execute(f"DELETE FROM told WHERE {' AND '.join(parts)}", named)  # noqa: S608  # ours

    def left(self) -> Iterator[tuple[str, tuple[str, str], int]]:
        """Yield what was not dropped: kind, identity and the number of the last event."""
        for word, first, second, seq in self._connection.execute(
            "SELECT word, first, second, seq FROM told ORDER BY word, first, second"
        ):
            yield word, (first, second), seq


@contextmanager
def nothing_told() -> Iterator[Told]:
    """Yield an empty memory that is gone after the block."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="keyctl-state-"))
            connection = sqlite3.connect(f"{folder}/told.db", isolation_level=None)
        except FileNotFoundError:  # a container with a read-only system has no such place
            connection = sqlite3.connect(":memory:", isolation_level=None)
        try:
            # Nobody else reads it, and nothing of it outlives the process.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            yield Told(connection)
        finally:
            connection.close()


def stored(connection: Connection) -> Iterator[tuple[str, dict[str, Any] | UnreadableRowError]]:
    """Yield every row of the compared tables with its kind; the error for one that cannot be read."""
    for word in TABLES:
        after: tuple[Any, ...] | None = None
        while True:
            found, after = page(connection, word, after=after)
            yield from ((word, item) for item in found)
            if after is None:
                break


def page(
    connection: Connection, word: str, *, after: tuple[Any, ...] | None, lock: bool = False
) -> tuple[list[dict[str, Any] | UnreadableRowError], tuple[Any, ...] | None]:
    """Return some rows of one kind, and the identity to go on behind, None at the end."""
    table = TABLES[word]
    own = list(table.primary_key.columns)
    names = select(*own).order_by(*own).limit(_BATCH)
    if after is not None:
        names = names.where(tuple_(*own) > tuple_(*after))
    found = [tuple(row) for row in connection.execute(names)]
    if not found:
        return [], None
    whole = select(table).where(tuple_(*own).in_(found)).order_by(*own)
    if lock:
        whole = whole.with_for_update()
    return rows.each(connection, whole, table, dict), found[-1]
