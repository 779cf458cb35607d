"""Add a team's tokens a day, and what an organization limits as a team does.

Only additions: a program from before verifies and records as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0013"
down_revision = "1_0012"
branch_labels = None
depends_on = None

_LIMITS = {"teams": ("tpd_limit",), "organizations": ("tpd_limit", "max_parallel_requests")}


def upgrade() -> None:
    """Add the columns."""
    column = sa.Column(
        "model_max_budget", sa.Text(), server_default=sa.text("'{}'"), nullable=False
    )
    op.add_column("organizations", column)
    for name, limits in _LIMITS.items():
        with op.batch_alter_table(name) as table:
            for limit in limits:
                table.add_column(sa.Column(limit, sa.BigInteger(), nullable=True))
                table.create_check_constraint(op.f(f"ck_{name}_{limit}"), f"{limit} >= 0")


def downgrade() -> None:
    """Drop them: these limits are lost, and no longer hold."""
    for name, limits in _LIMITS.items():
        with op.batch_alter_table(name) as table:
            for limit in limits:
                table.drop_constraint(op.f(f"ck_{name}_{limit}"), type_="check")
                table.drop_column(limit)
    op.drop_column("organizations", "model_max_budget")
