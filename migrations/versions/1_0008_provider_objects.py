"""Add what gateways answered with an id: batches, background answers and files, with who made them.

Only an addition: what verifies keys and records usage does not read it.
"""

import sqlalchemy as sa
from alembic import op

from keyctl.money import MAX_NANO

revision = "1_0008"
down_revision = "1_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "provider_objects",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("deployment", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("provider_id", sa.String(length=255), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("charged_to", sa.Text(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("charged_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            f"reserved BETWEEN 0 AND {MAX_NANO}", name=op.f("ck_provider_objects_reserved")
        ),
        sa.CheckConstraint(f"cost BETWEEN 0 AND {MAX_NANO}", name=op.f("ck_provider_objects_cost")),
        sa.CheckConstraint(
            "kind IN ('batch', 'response', 'file')", name=op.f("ck_provider_objects_kind")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_objects")),
        sa.UniqueConstraint(
            "deployment", "kind", "provider_id", name="uq_provider_objects_provider_id"
        ),
    )
    op.create_index("ix_provider_objects_key_id", "provider_objects", ["key_id"], unique=False)


def downgrade() -> None:
    """Drop it: batches and background answers that are under way are forgotten, and never charged."""
    op.drop_index("ix_provider_objects_key_id", table_name="provider_objects")
    op.drop_table("provider_objects")
