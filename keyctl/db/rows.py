"""Turn rows into records, and tell the rows apart that somebody else wrote.

A row that keyctl cannot have written (no JSON, another type, no instant) stops nobody who asks for
other rows.  The question is asked as a whole; only where the answer cannot be read is it asked
again, row by row.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Select, Table, select
from sqlalchemy.exc import DBAPIError

from keyctl.db.failures import is_unreadable
from keyctl.errors import UnreadableRowError
from keyctl.records import ForeignValueError

R = TypeVar("R")
Make = Callable[[Mapping[Any, Any]], R]

_WORDS: Final = {
    "keys": "key",
    "teams": "team",
    "users": "user",
    "organizations": "organization",
    "secrets": "secret",
}


def one(connection: Connection, query: Select[Any], table: Table, make: Make[R]) -> R | None:
    """Return the first record that *query* finds in *table*, None if there is none.

    Raises:
        UnreadableRowError: It cannot be read.
    """
    found = each(connection, query.limit(1), table, make)
    return _readable(found[0]) if found else None


def every(connection: Connection, query: Select[Any], table: Table, make: Make[R]) -> list[R]:
    """Return the records that *query* finds in *table*, in its order.

    Raises:
        UnreadableRowError: One of them cannot be read.
    """
    return [_readable(item) for item in each(connection, query, table, make)]


def each(
    connection: Connection, query: Select[Any], table: Table, make: Make[R]
) -> list[R | UnreadableRowError]:
    """Return the records that *query* finds, and in the place of one that cannot be read its error."""
    try:
        return [make(row) for row in connection.execute(query).mappings()]
    except (DBAPIError, ValueError, TypeError) as error:
        if isinstance(error, DBAPIError) and not is_unreadable(error):
            raise
        return list(_one_by_one(connection, query, table, make))


def explain(
    connection: Connection, table: Table, identity: Mapping[str, Any]
) -> UnreadableRowError:
    """Return the error for a row of *table* that cannot be read, with the columns that cannot."""
    where = [table.c[name] == value for name, value in identity.items()]
    spoiled, known = [], dict(identity)
    for column in table.c:
        try:
            known[column.name] = connection.execute(select(column).where(*where)).scalar()
        except (DBAPIError, ValueError, TypeError) as error:
            if isinstance(error, DBAPIError) and not is_unreadable(error):
                raise
            spoiled.append(column.name)
    return unreadable(table, known, spoiled)


def unreadable(table: Table, known: Mapping[str, Any], spoiled: list[str]) -> UnreadableRowError:
    """Return the error for a row whose columns *spoiled* are not what keyctl wrote.

    A secret is named by its public id and its key's.
    """
    word = _WORDS.get(table.name, table.name.removesuffix("s"))
    name = "/".join(str(known.get(column.name)) for column in table.primary_key.columns)
    whose = f" of key {known.get('key_id')}" if word == "secret" else ""
    columns = ", ".join(spoiled) or "values"
    return UnreadableRowError(
        f"{word} {name}{whose} cannot be read: its {columns} {'are' if len(spoiled) != 1 else 'is'} not what keyctl wrote",
        hint="keyctl db check lists such rows; compare them with a backup",
        object_type=word,
        object_id=name,
        columns=tuple(spoiled),
        known=known,
    )


def _one_by_one(
    connection: Connection, query: Select[Any], table: Table, make: Make[R]
) -> Iterator[R | UnreadableRowError]:
    primary = list(table.primary_key.columns)
    names = query.with_only_columns(*primary, maintain_column_froms=True)
    for values in connection.execute(names).all():
        identity = dict(zip((column.name for column in primary), values, strict=True))
        where = [table.c[name] == value for name, value in identity.items()]
        try:
            row = dict(connection.execute(select(table).where(*where)).mappings().one())
        except (DBAPIError, ValueError, TypeError) as error:
            if isinstance(error, DBAPIError) and not is_unreadable(error):
                raise
            yield explain(connection, table, identity)
            continue
        try:
            yield make(row)
        except ForeignValueError as error:
            yield unreadable(table, row, [error.column])


def _readable(item: R | UnreadableRowError) -> R:
    if isinstance(item, UnreadableRowError):
        raise item
    return item
