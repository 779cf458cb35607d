"""Write rows by COPY, and pass them so from one PostgreSQL to another without looking into them."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from select import select
from typing import Any, Final

from psycopg import Error, sql
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from sqlalchemy import Connection, String, Table, text
from sqlalchemy.exc import OperationalError

from keyctl.db.database import Database

# The form of what is passed: both servers write and read it alike, whatever they are set to.
_FORM: Final = "SET LOCAL client_encoding = 'UTF8'; SET LOCAL DateStyle = 'ISO, MDY'"
# What is passed at once: so many rows, or about so many bytes, because a row may hold megabytes.
ROWS: Final = 1000
_BYTES: Final = 4 * 1024 * 1024
# So often in a transaction: a commit takes as long as some thousand rows.
PARTS: Final = 20
_ALL: Final = sql.SQL("")
_WRITE: Final = "COPY {table} ({columns}) FROM STDIN"


def insert_rows(connection: Connection, table: Table, found: Sequence[Sequence[Any]]) -> None:
    """Insert rows, which takes a fraction of the time of an INSERT."""
    driver: Any = connection.connection.dbapi_connection
    with _translated(), driver.cursor() as cursor, cursor.copy(_statement(_WRITE, table)) as copy:
        for row in found:
            copy.write_row(tuple(row))


def pass_rows(
    reading: Connection,
    source: Database,
    target: Database,
    table: Table,
    *,
    marked: str,
    heard: Callable[[bytes, int], None],
) -> None:
    """Write what *target* does not have yet, in order, some rows a transaction.

    What a killed run wrote is the beginning: every transaction of it was of the rows that came next.
    *reading* is a transaction of *source*.
    *heard* is told of all rows, those that are there already too, as `written` yields them.
    """
    with target.write(marked=marked) as connection:
        last = _last(connection, table)
    if last is not None:
        for part, count in written(reading, table, _up_to(table, last)):
            heard(part, count)
    form = _statement(_WRITE, table)
    new = _ALL if last is None else _behind(table, last)
    with closing(_read(reading, source, table, new)) as parts:
        for first in parts:
            with (
                target.write(marked=marked) as connection,
                _translated(),
                _cursor(connection) as cursor,
                cursor.copy(form) as copy,
            ):
                # The one server reads on while the other one writes.
                for part, count in chain([first], islice(parts, PARTS - 1)):
                    copy.write(part)
                    heard(part, count)


def _read(
    reading: Connection, source: Database, table: Table, where: sql.Composable
) -> Generator[tuple[bytes, int]]:
    """Yield what `written` does; whoever asks for it writes to another database meanwhile."""
    with source.translated(), closing(written(reading, table, where)) as parts:
        yield from parts


def written(
    connection: Connection, table: Table, where: sql.Composable = _ALL
) -> Generator[tuple[bytes, int]]:
    """Yield the rows as COPY writes them, some at a time and how many, in the order of the primary key."""
    query = "COPY (SELECT {columns} FROM {table}{where} ORDER BY {keys}) TO STDOUT"
    with _cursor(connection), _translated():
        driver: Any = connection.connection.dbapi_connection
        command = _statement(query, table, where=where).as_bytes(driver)
        rows: list[memoryview] = []
        size = 0
        with closing(_rows_of(driver, command)) as found:
            for row in found:
                rows.append(row)
                size += len(row)
                if len(rows) >= ROWS or size >= _BYTES:
                    yield b"".join(rows), len(rows)
                    rows, size = [], 0
        if rows:
            yield b"".join(rows), len(rows)


def _rows_of(driver: Any, command: bytes) -> Generator[memoryview]:
    """Yield what a COPY to here writes.

    By libpq's own calls: the driver's take five times as long for a row, and there are millions.
    """
    pgconn = driver.pgconn
    result = pgconn.exec_(command)
    if result.status != ExecStatus.COPY_OUT:
        raise error_from_result(result)
    is_over = False
    try:
        while not is_over:
            size, row = pgconn.get_copy_data(1)
            if size > 0:
                yield row
            elif size == 0:
                select([pgconn.socket], [], [])
                pgconn.consume_input()
            else:
                is_over = True
    finally:
        if not is_over:
            with suppress(Error):
                driver.cancel()
            with suppress(Error):
                while pgconn.get_copy_data(0)[0] > 0:
                    pass
        results = list(iter(pgconn.get_result, None))
    for result in results:
        if result.status != ExecStatus.COMMAND_OK:
            raise error_from_result(result)


@contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    connection.execute(text(_FORM))
    driver: Any = connection.connection.dbapi_connection
    with driver.cursor() as cursor:
        yield cursor


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Error as error:
        raise OperationalError("COPY", None, error) from error


def _last(connection: Connection, table: Table) -> tuple[Any, ...] | None:
    """Return the primary key of the last row that is there."""
    query = "SELECT {keys} FROM {table} ORDER BY {keys_backwards} LIMIT 1"
    driver: Any = connection.connection.dbapi_connection
    with _translated():
        row: tuple[Any, ...] | None = driver.execute(_statement(query, table)).fetchone()
    return row


def _up_to(table: Table, last: tuple[Any, ...]) -> sql.Composable:
    return sql.SQL(" WHERE ({}) <= ({})").format(_keys(table), _literals(last))


def _behind(table: Table, last: tuple[Any, ...]) -> sql.Composable:
    return sql.SQL(" WHERE ({}) > ({})").format(_keys(table), _literals(last))


def _literals(values: tuple[Any, ...]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Literal, values))


def _keys(table: Table, order: str = "") -> sql.Composable:
    """Return the primary key's columns, compared byte by byte: two databases may sort differently."""
    return sql.SQL(", ").join(
        sql.Identifier(column.name)
        + sql.SQL((' COLLATE "C"' if isinstance(column.type, String) else "") + order)
        for column in table.primary_key.columns
    )


def _statement(form: str, table: Table, where: sql.Composable = _ALL) -> sql.Composable:
    return sql.SQL(form).format(
        table=sql.Identifier(table.name),
        columns=sql.SQL(", ").join(sql.Identifier(column.name) for column in table.c),
        keys=_keys(table),
        keys_backwards=_keys(table, " DESC"),
        where=where,
    )
