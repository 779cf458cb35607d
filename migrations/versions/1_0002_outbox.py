"""Add the outbox, the recorders of usage, and an index to find the graces that end.

Only additions: what verifies keys does not read them, so it goes on working on 1_0001 too.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0002"
down_revision = "1_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables and the index."""
    op.create_table(
        "outbox",
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("hook", sa.String(length=300), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_outbox_attempts")),
        sa.PrimaryKeyConstraint("event_id", "hook", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_due",
        "outbox",
        ["next_at", "seq"],
        unique=False,
        sqlite_where=sa.text("delivered_at IS NULL"),
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_delivered",
        "outbox",
        ["delivered_at"],
        unique=False,
        sqlite_where=sa.text("delivered_at IS NOT NULL"),
        postgresql_where=sa.text("delivered_at IS NOT NULL"),
    )
    op.create_index("ix_outbox_seq", "outbox", ["seq", "hook"], unique=False)
    op.create_table(
        "recorders",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("flushed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recorders")),
    )
    op.create_index(
        "ix_secrets_retiring",
        "secrets",
        ["not_after"],
        unique=False,
        sqlite_where=sa.text("state = 'retiring'"),
        postgresql_where=sa.text("state = 'retiring'"),
    )


def downgrade() -> None:
    """Drop them: what was not sent is lost, the changes themselves are not."""
    op.drop_index("ix_secrets_retiring", table_name="secrets")
    op.drop_table("recorders")
    op.drop_table("outbox")
