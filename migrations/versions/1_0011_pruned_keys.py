"""Find keys that ended and still have their details, and those that a caller's key has made.

Only indexes: what verifies keys and records usage reads what it read before.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0011"
down_revision = "1_0010"
branch_labels = None
depends_on = None

UNPRUNED = sa.text("deleted_at IS NOT NULL AND updated_at <= deleted_at")
MADE = sa.text("created_by LIKE 'key:%'")


def upgrade() -> None:
    """Create the indexes."""
    op.create_index(
        "ix_keys_unpruned",
        "keys",
        ["id"],
        unique=False,
        sqlite_where=UNPRUNED,
        postgresql_where=UNPRUNED,
    )
    op.create_index(
        "ix_keys_made",
        "keys",
        ["created_by"],
        unique=False,
        sqlite_where=MADE,
        postgresql_where=MADE,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_keys_made", table_name="keys")
    op.drop_index("ix_keys_unpruned", table_name="keys")
