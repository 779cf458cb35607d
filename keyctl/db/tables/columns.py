"""Declare the kinds of columns that tables share: names, money, limits, flags and stamps."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    MetaData,
    String,
    false,
    text,
)

from keyctl.db.types import UtcDateTime
from keyctl.money import MAX_NANO

metadata = MetaData(
    # Named constraints are what lets Alembic alter them on SQLite.
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def name(column: str, *, primary: bool = False) -> Column[str]:
    """Return a column for an id or a name that people choose."""
    return Column(column, String(255), primary_key=primary)


def money(column: str, *, required: bool = False, since: str | None = None) -> list[Any]:
    """Return a column of nano-dollars with its bounds."""
    rest = {"nullable": False, "server_default": text("0")} if required else {"nullable": True}
    return [
        Column(column, BigInteger, **rest, info=there_since(since) if since else {}),
        CheckConstraint(f"{column} BETWEEN 0 AND {MAX_NANO}", name=column),
    ]


def limit(column: str, *, since: str | None = None) -> list[Any]:
    """Return a column of a whole number from 0 with its bound."""
    return [
        Column(column, BigInteger, info=there_since(since) if since else {}),
        CheckConstraint(f"{column} >= 0", name=column),
    ]


def flag(column: str, *, since: str | None = None) -> Column[bool]:
    """Return a column that is true or false, and false where nobody says."""
    return Column(
        column,
        Boolean,
        nullable=False,
        server_default=false(),
        info=there_since(since) if since else {},
    )


def there_since(revision: str) -> dict[str, Any]:
    """Return what marks a column as one that came with *revision*."""
    return {"since": revision}


def stamps() -> list[Any]:
    """Return the columns that say who made and changed a row, and when."""
    return [
        Column("created_at", UtcDateTime, nullable=False),
        Column("created_by", String(300), nullable=False),
        Column("updated_at", UtcDateTime, nullable=False),
        Column("updated_by", String(300), nullable=False),
        Column("deleted_at", UtcDateTime),
        # The fleet whose files describe it.
        Column("managed_by", String(64), info=there_since("1_0004")),
    ]
