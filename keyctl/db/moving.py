"""Copy every row of one database into another one, resumably, and compare the two."""

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    tuple_,
)

from keyctl.db.database import Database
from keyctl.db.tables import audit_head, metadata
from keyctl.db.types import JsonText
from keyctl.portions import portions

CHUNK: Final = 5000
# A statement has room for some thirty thousand values in SQLite.
_ASKED: Final = 2000


@dataclass(frozen=True, slots=True)
class Contents:
    """How many rows a table has, and a sum over all of them that their order does not matter for."""

    rows: int = 0
    digest: int = 0

    def with_rows(self, rows: Sequence[Sequence[Any]]) -> "Contents":
        """Return the contents with these rows more."""
        total = self.digest
        for row in rows:
            # Each value is text, a number, a truth value or an instant: it reads the same from both.
            data = repr(tuple(row)).encode("utf-8", "surrogatepass")
            total += int.from_bytes(hashlib.sha256(data).digest()[:16])
        return Contents(self.rows + len(rows), total % 2**128)


class _Passed:
    """Counts and sums what is passed: in one order from both, so that it is hashed as one text."""

    def __init__(self, step: Callable[[int], None]) -> None:
        self._step = step
        self._rows = 0
        self._hash = hashlib.sha256()

    def hear(self, part: bytes, count: int) -> None:
        """Take so many rows more."""
        self._rows += count
        self._hash.update(part)
        self._step(count)

    @property
    def contents(self) -> Contents:
        """Return what was heard."""
        return Contents(self._rows, int.from_bytes(self._hash.digest()))


def _plain(table: Table) -> Table:
    """Return the table with JSON documents as the text that is stored."""
    columns: list[Column[Any]] = [
        Column(
            column.name,
            Text() if isinstance(column.type, JsonText) else column.type,
            primary_key=column.primary_key,
        )
        for column in table.c
    ]
    return Table(table.name, MetaData(), *columns)


# Parents before their children.
TABLES: Final = tuple(_plain(table) for table in metadata.sorted_tables)


def is_empty(connection: Connection) -> bool:
    """Tell whether a migrated database holds nothing yet; the head of an empty chain is nothing."""
    heads = connection.execute(select(audit_head.c.seq)).scalars().all()
    return heads in ([0], []) and not any(
        connection.execute(select(table).limit(1)).first() is not None
        for table in TABLES
        if table.name != audit_head.name
    )


def count_rows(connection: Connection) -> int:
    """Return how many rows there are in all tables."""
    return sum(
        connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES
    )


def is_passed(source: Connection, target: Database) -> bool:
    """Tell whether rows are passed as they are, which is several times as fast as to read them."""
    return source.dialect.name == "postgresql" and not target.is_sqlite


def copy_table(
    reading: Connection,
    source: Database,
    target: Database,
    table: Table,
    *,
    marked: str,
    step: Callable[[int], None],
) -> Contents:
    """Copy what *target* does not have yet, chunk by chunk, and return the source's contents.

    *reading* is a transaction of *source*.
    *marked* is the mark of the target; *step* is told how many rows were read.
    """
    if is_passed(reading, target):
        return _pass_table(reading, source, target, table, marked=marked, step=step)
    contents = Contents()
    with target.write(marked=marked) as connection:
        if table.name == audit_head.name:
            connection.execute(delete(table))  # every new database has one
        has_rows = connection.execute(select(table).limit(1)).first() is not None
    with closing(_chunks(reading, table)) as chunks:
        for chunk in chunks:
            contents = contents.with_rows(chunk)
            with target.write(marked=marked) as connection:
                new = _missing(connection, table, chunk) if has_rows else chunk
                _insert(connection, table, new)
            step(len(chunk))
    return contents


def contents_of(
    connection: Connection, table: Table, *, step: Callable[[int], None], passed: bool = False
) -> Contents:
    """Return the contents of a table; *step* is told how many rows were read.

    With *passed* they compare with those of a copy that `is_passed`, else with those of others.
    """
    contents = Contents()
    if passed:
        from keyctl.db import passing  # noqa: PLC0415  # only where PostgreSQL is

        heard = _Passed(step)
        with closing(passing.written(connection, table)) as parts:
            for part, count in parts:
                heard.hear(part, count)
        return heard.contents
    with closing(_chunks(connection, table)) as chunks:
        for chunk in chunks:
            contents = contents.with_rows(chunk)
            step(len(chunk))
    return contents


def _pass_table(
    reading: Connection,
    source: Database,
    target: Database,
    table: Table,
    *,
    marked: str,
    step: Callable[[int], None],
) -> Contents:
    from keyctl.db import passing  # noqa: PLC0415  # only where PostgreSQL is

    heard = _Passed(step)
    if table.name == audit_head.name:
        with target.write(marked=marked) as connection:
            connection.execute(delete(table))  # every new database has one
    passing.pass_rows(reading, source, target, table, marked=marked, heard=heard.hear)
    return heard.contents


def _chunks(connection: Connection, table: Table) -> Generator[Sequence[Sequence[Any]]]:
    query = select(table).order_by(*table.primary_key.columns)
    with connection.execute(query.execution_options(yield_per=CHUNK)) as rows:
        yield from rows.partitions()


def _missing(
    connection: Connection, table: Table, chunk: Sequence[Sequence[Any]]
) -> list[Sequence[Any]]:
    """Return the rows that an earlier run of the copy did not come to."""
    keys = list(table.primary_key.columns)
    places = [list(table.c).index(key) for key in keys]
    present: set[tuple[Any, ...]] = set()
    for part in portions(chunk, _ASKED):
        names = [tuple(row[place] for place in places) for row in part]
        query = select(*keys).where(tuple_(*keys).in_(names))
        present.update(tuple(row) for row in connection.execute(query))
    return [row for row in chunk if tuple(row[place] for place in places) not in present]


def _insert(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        from keyctl.db import passing  # noqa: PLC0415  # only where PostgreSQL is

        passing.insert_rows(connection, table, rows)
        return
    names = table.c.keys()
    connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
