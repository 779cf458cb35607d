"""Add what is kept of secrets that ended long ago, when their rows leave the table of secrets.

Only additions: what verifies keys and records usage before it reads none of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0009"
down_revision = "1_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and the index that says what may be pruned."""
    op.create_table(
        "ended_secrets",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("lookup", sa.String(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_ended_secrets_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ended_secrets")),
    )
    op.create_index("ix_ended_secrets_lookup", "ended_secrets", ["lookup"], unique=False)


def downgrade() -> None:
    """Drop it: the strings of these secrets are unknown then."""
    op.drop_table("ended_secrets")
