"""Mark what a fleet file describes: whose it is.

Only additions, and nothing that verifies keys reads them.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0004"
down_revision = "1_0003"
branch_labels = None
depends_on = None

TABLES = ("organizations", "users", "teams", "keys")
LIVE = "managed_by IS NOT NULL AND deleted_at IS NULL"


def upgrade() -> None:
    """Add the mark, and an index to find what a fleet has."""
    for table in TABLES:
        op.add_column(table, sa.Column("managed_by", sa.String(length=64), nullable=True))
        op.create_index(
            f"ix_{table}_managed_by",
            table,
            ["managed_by", "id"],
            unique=False,
            sqlite_where=sa.text(LIVE),
            postgresql_where=sa.text(LIVE),
        )


def downgrade() -> None:
    """Forget the marks: the objects stay, and no fleet has them."""
    for table in TABLES:
        op.drop_index(f"ix_{table}_managed_by", table_name=table)
        op.drop_column(table, "managed_by")
