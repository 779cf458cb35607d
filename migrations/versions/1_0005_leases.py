"""Add the leases that running gateways hold on budgets, and the meters of budgets beside the owner's own.

Only additions: what verifies keys and records usage before it reads none of it.
"""

import sqlalchemy as sa
from alembic import op

from keyctl.money import MAX_NANO

revision = "1_0005"
down_revision = "1_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables and the column."""
    op.create_table(
        "meters",
        sa.Column("object_table", sa.String(length=16), nullable=False),
        sa.Column("object_id", sa.String(length=255), nullable=False),
        sa.Column("meter", sa.String(length=300), nullable=False),
        sa.Column("spend", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("budget_duration", sa.String(length=16), nullable=True),
        sa.Column("budget_anchor_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("budget_reset_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(f"spend BETWEEN 0 AND {MAX_NANO}", name=op.f("ck_meters_spend")),
        sa.PrimaryKeyConstraint("object_table", "object_id", "meter", name=op.f("pk_meters")),
    )
    op.create_table(
        "leases",
        sa.Column("object_table", sa.String(length=16), nullable=False),
        sa.Column("object_id", sa.String(length=255), nullable=False),
        sa.Column("meter", sa.String(length=300), nullable=False),
        sa.Column("recorder_id", sa.String(length=32), nullable=False),
        sa.Column("amount", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("held", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unsettled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("charged", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(f"amount BETWEEN 0 AND {MAX_NANO}", name=op.f("ck_leases_amount")),
        sa.CheckConstraint(f"held BETWEEN 0 AND {MAX_NANO}", name=op.f("ck_leases_held")),
        sa.CheckConstraint(f"charged BETWEEN 0 AND {MAX_NANO}", name=op.f("ck_leases_charged")),
        sa.PrimaryKeyConstraint(
            "object_table", "object_id", "meter", "recorder_id", name=op.f("pk_leases")
        ),
    )
    op.create_index("ix_leases_recorder_id", "leases", ["recorder_id"], unique=False)
    op.add_column("recorders", sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Drop them: what is reserved at that moment is forgotten, and so is what windows have spent."""
    op.drop_column("recorders", "leased_until")
    op.drop_table("leases")
    op.drop_table("meters")
