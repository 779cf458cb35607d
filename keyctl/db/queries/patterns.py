"""Compare texts with what people type, the same on both databases."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import JSON, ColumnElement, Text, cast, func, literal, select, type_coerce

from keyctl import jsontext


def matches(column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Return the condition that a text is *pattern*, or fits it where it has a ``*``: any characters.

    A pattern takes capital and small letters for the same.
    """
    if "*" not in pattern:
        return column == pattern
    escaped = "".join(f"\\{char}" if char in "\\%_" else char for char in pattern.lower())
    return func.lower(column).like(escaped.replace("*", "%"), escape="\\")


def contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the condition that a text has *text* in it, exactly.

    Not by LIKE, for which capital and small letters are the same on SQLite.
    """
    whole = type_coerce(column, Text)
    return func.replace(whole, text, "") != whole


def lists(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a list kept as JSON text has *name* in it.

    Quotes within a name are escaped in the text, so that a quoted name fits nothing but itself.
    """
    return contains(column, jsontext.dumps(name))


def mentions(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the condition that a text has *text* in it, in capital or small letters."""
    return func.lower(type_coerce(column, Text)).contains(text.lower(), autoescape=True)


def any_of(column: ColumnElement[str], names: Collection[str], dialect: str) -> ColumnElement[bool]:
    """Return the condition that a text is one of *names*, of any number of them: they are one parameter."""
    given = literal(jsontext.dumps(sorted(names)))
    if dialect == "postgresql":
        listed = func.json_array_elements_text(cast(given, JSON)).table_valued("value")
    else:
        listed = func.json_each(given).table_valued("value")
    return column.in_(select(listed.c.value))
