"""Add budget tiers, and what the members of a team may spend.

Only additions: what verifies keys before it reads none of it.
"""

import sqlalchemy as sa
from alembic import op

from keyctl.money import MAX_NANO

revision = "1_0006"
down_revision = "1_0005"
branch_labels = None
depends_on = None

_LIMITS = ("tpm_limit", "rpm_limit", "tpd_limit", "max_parallel_requests")
_MEMBER = ("max_budget", "tpm_limit", "rpm_limit")


def upgrade() -> None:
    """Create the table and the columns."""
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("max_budget", sa.BigInteger(), nullable=True),
        sa.Column("soft_budget", sa.BigInteger(), nullable=True),
        sa.Column("budget_duration", sa.String(length=16), nullable=True),
        sa.Column("budget_anchor_at", sa.DateTime(timezone=True), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in _LIMITS),
        sa.Column("model_max_budget", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=300), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=300), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("managed_by", sa.String(length=64), nullable=True),
        *(
            sa.CheckConstraint(f"{name} BETWEEN 0 AND {MAX_NANO}", name=op.f(f"ck_budgets_{name}"))
            for name in ("max_budget", "soft_budget")
        ),
        *(sa.CheckConstraint(f"{name} >= 0", name=op.f(f"ck_budgets_{name}")) for name in _LIMITS),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
    )
    for table in ("keys", "users"):
        op.add_column(table, sa.Column("budget_id", sa.String(length=255), nullable=True))
    with op.batch_alter_table("team_members") as members:
        for name in _MEMBER:
            members.add_column(sa.Column(name, sa.BigInteger(), nullable=True))
        members.add_column(sa.Column("budget_duration", sa.String(length=16), nullable=True))
        members.add_column(sa.Column("budget_anchor_at", sa.DateTime(timezone=True), nullable=True))
        members.add_column(sa.Column("budget_id", sa.String(length=255), nullable=True))
        members.create_check_constraint(
            op.f("ck_team_members_max_budget"), f"max_budget BETWEEN 0 AND {MAX_NANO}"
        )
        for name in ("tpm_limit", "rpm_limit"):
            members.create_check_constraint(op.f(f"ck_team_members_{name}"), f"{name} >= 0")


def downgrade() -> None:
    """Drop them: tiers and members' limits are lost, and no longer hold."""
    with op.batch_alter_table("team_members") as members:
        for name in _MEMBER:
            members.drop_constraint(op.f(f"ck_team_members_{name}"), type_="check")
        for name in (*_MEMBER, "budget_duration", "budget_anchor_at", "budget_id"):
            members.drop_column(name)
    for table in ("keys", "users"):
        op.drop_column(table, "budget_id")
    op.drop_table("budgets")
