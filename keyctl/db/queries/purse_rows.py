"""Address the rows of budgets by owner and meter, and split long lists of budgets into statements."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Table,
    tuple_,
)

from keyctl.portions import portions
from keyctl.purses import PurseName

_CHUNK: Final = 500


def columns_of(name: PurseName) -> dict[str, str]:
    """Return the columns that name a budget."""
    return {"object_table": name.table, "object_id": name.object_id, "meter": name.meter}


def is_of(table: Table, name: PurseName) -> ColumnElement[bool]:
    """Return the condition that a row is of this budget."""
    return (
        (table.c.object_table == name.table)
        & (table.c.object_id == name.object_id)
        & (table.c.meter == name.meter)
    )


def among(table: Table, names: Sequence[PurseName] | BindParameter[Any]) -> ColumnElement[bool]:
    """Return the condition that a row is of one of these budgets, or of those that a parameter names."""
    columns = tuple_(table.c.object_table, table.c.object_id, table.c.meter)
    if isinstance(names, BindParameter):
        return columns.in_(names)
    return columns.in_([tuple(name) for name in names])


def in_chunks(names: Iterable[PurseName]) -> Iterator[Sequence[PurseName]]:
    """Yield the budgets in lists that a statement can take."""
    return portions(names, _CHUNK)
