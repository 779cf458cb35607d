"""Run migrations on the connection that keyctl hands over, or on KEYCTL_DATABASE_URL."""

import os

from alembic import context
from sqlalchemy import Connection, create_engine

from keyctl.db import indexes  # noqa: F401  # declares them on the tables
from keyctl.db.tables import metadata


def run(connection: Connection) -> None:
    """Run the migrations inside the transaction that *connection* is in."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=True,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:  # plain `alembic revision`, for developers
    with create_engine(os.environ["KEYCTL_DATABASE_URL"]).begin() as opened:
        run(opened)
