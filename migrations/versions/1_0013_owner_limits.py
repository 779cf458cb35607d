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
    # Each check stands in its column, which both databases add in place: a table made anew would have to be
    # dropped, and rows of others refer to it.
    for name, limits in _LIMITS.items():
        for limit in limits:
            check = sa.CheckConstraint(f"{limit} >= 0", name=op.f(f"ck_{name}_{limit}"))
            op.add_column(name, sa.Column(limit, sa.BigInteger(), check, nullable=True))


def downgrade() -> None:
    """Drop them: these limits are lost, and no longer hold."""
    for name, limits in _LIMITS.items():
        for limit in limits:
            op.drop_column(name, limit)
    op.drop_column("organizations", "model_max_budget")
