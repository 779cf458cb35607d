"""Read what somebody may have written past keyctl: nothing that is stored stops the reading."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Dialect, Table, Text, cast, type_coerce
from sqlalchemy.types import TypeDecorator

from keyctl.db.types import UtcDateTime


class StoredInstant(TypeDecorator[Any]):
    """An instant as it lies in the database, or what lies there instead."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the aware UTC instant that keyctl wrote, anything else as it is."""
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return value  # `infinity`, a year before or behind Python's, no date at all
        if dialect.name != "sqlite":
            return value if moment.tzinfo is None else moment.astimezone(UTC)
        # A text is easily changed into another one that reads as the same instant.
        as_written = moment.tzinfo is None and moment.isoformat(" ", "microseconds") == value
        return moment.replace(tzinfo=UTC) if as_written else value


def columns(table: Table, connection: Connection) -> list[Any]:
    """Return the columns of *table*, its instants as `StoredInstant`."""
    return [_readable(column, connection.dialect.name) for column in table.c]


def plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return *row* with texts for what is of a kind that keyctl never writes."""
    return {name: _plain(value) for name, value in row.items()}


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Read bytes that are not UTF-8, which SQLite takes for text, as `\\xff`."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    driver.text_factory = _decoded
    try:
        yield
    finally:
        driver.text_factory = str


def _readable(column: Any, dialect: str) -> Any:
    if not isinstance(column.type, UtcDateTime):
        return column
    text = column if dialect == "sqlite" else cast(column, Text)
    return type_coerce(text, StoredInstant()).label(column.name)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _decoded(value)
    return str(value) if isinstance(value, float) else value


def _decoded(text: bytes) -> str:
    return text.decode(errors="backslashreplace")
