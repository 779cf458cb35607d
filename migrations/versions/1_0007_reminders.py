"""Add what people have been reminded of, so that each reminder comes once.

Only additions: what verifies keys and records usage before it reads none of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0007"
down_revision = "1_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "reminders",
        sa.Column("object_type", sa.String(length=32), nullable=False),
        sa.Column("object_id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("about", sa.String(length=255), nullable=False),
        sa.Column("reminded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("object_type", "object_id", "kind", name=op.f("pk_reminders")),
    )


def downgrade() -> None:
    """Drop it: everything that is so then is told again."""
    op.drop_table("reminders")
