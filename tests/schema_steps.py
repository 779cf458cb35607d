"""Take a schema back to an older revision, as a test of what an upgrade does needs it."""

from alembic import command
from alembic.config import Config

from keyctl.db import migrate
from keyctl.db.database import Database
from keyctl.db.engines import WRITE


def downgrade(database: Database, revision: str) -> None:
    """Take the schema back to *revision*."""
    config = Config(migrate.alembic_home() / "alembic.ini")
    with (
        database.engine.connect().execution_options(**WRITE) as connection,
        connection.begin(),
    ):
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
