"""Add groups of models, under the names that keys and their owners use for them.

Only an addition: what verifies keys on an older schema knows no groups.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0010"
down_revision = "1_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "access_groups",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_groups")),
    )


def downgrade() -> None:
    """Drop it: what keys were given by a group they lose."""
    op.drop_table("access_groups")
