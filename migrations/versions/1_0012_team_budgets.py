"""Add a team's budget windows and its budgets of single models.

Only additions, with a default: a program from before verifies and records as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0012"
down_revision = "1_0011"
branch_labels = None
depends_on = None

# Each with what it holds where nothing is said.
_COLUMNS = {"budget_limits": "'[]'", "model_max_budget": "'{}'"}


def upgrade() -> None:
    """Add the columns."""
    for name, empty in _COLUMNS.items():
        column = sa.Column(name, sa.Text(), server_default=sa.text(empty), nullable=False)
        op.add_column("teams", column)


def downgrade() -> None:
    """Drop them: these budgets are lost, and no longer hold."""
    for name in _COLUMNS:
        op.drop_column("teams", name)
