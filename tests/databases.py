"""Databases on a PostgreSQL server: make one, drop one, name one."""

from collections.abc import Callable

from sqlalchemy import create_engine, make_url, text


class administered:  # noqa: N801  # reads like a function
    """A connection to the server's maintenance database that runs statements outside transactions."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )

    def __enter__(self) -> Callable[[str], None]:
        self._connection = self._engine.connect()
        return lambda statement: (self._connection.execute(text(statement)), None)[1]

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._engine.dispose()


def at(url: str, name: str) -> str:
    """Return *url* with another database's name."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)
