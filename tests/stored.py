"""All that a database holds, as whoever steals it would read it."""

from sqlalchemy import text

from keyctl.db.database import Database


def everything_stored(database_url: str) -> str:
    """Return all that the database holds: each page of the files, or each column as text."""
    database = Database(database_url)
    if database.path is not None:
        folder = database.path.parent
        return "".join(
            item.read_bytes().decode("latin-1") for item in folder.rglob("*") if item.is_file()
        )
    with database.engine.connect() as connection:
        tables = connection.execute(
            text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        ).scalars()
        rows = [
            connection.execute(text(f'SELECT t::text FROM "{table}" t')).scalars().all()
            for table in tables
        ]
    database.engine.dispose()
    return "\n".join(str(row) for found in rows for row in found)
