"""Add who issued a secret and whether it administers, what a key may issue, and stepped-over rules.

A secret from before administers only if the local operator staged it, it was not imported, and
its key's user did not change since.  `issued_by` stays null for one that does not.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "1_0003"
down_revision = "1_0002"
branch_labels = None
depends_on = None

_ISSUED = sa.text("issued_with IS NOT NULL")
_AT_ONCE = 500


def upgrade() -> None:
    """Add the columns, and find the secrets that go on to administer."""
    op.add_column(
        "secrets",
        sa.Column("administers", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("secrets", sa.Column("issued_by", sa.String(length=300), nullable=True))
    op.add_column("secrets", sa.Column("issued_with", sa.String(length=32), nullable=True))
    op.add_column(
        "keys",
        sa.Column("blocked_by_admin", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("keys", sa.Column("may_issue", sa.Text(), nullable=True))
    op.add_column(
        "keys", sa.Column("overrides", sa.Text(), server_default=sa.text("'[]'"), nullable=False)
    )
    for column in ("issued_by", "issued_with"):
        op.create_index(
            f"ix_secrets_{column}",
            "secrets",
            [column],
            unique=False,
            sqlite_where=_ISSUED,
            postgresql_where=_ISSUED,
        )
    connection = op.get_bind()
    # Nobody knows who blocked them: so an admin lets them in again.
    keys = sa.table("keys", sa.column("blocked"), sa.column("blocked_by_admin"))
    connection.execute(
        sa.update(keys).where(keys.c.blocked == sa.true()).values(blocked_by_admin=sa.true())
    )
    secrets = sa.table("secrets", sa.column("id"), sa.column("administers"), sa.column("issued_by"))
    kept = _administering(connection)
    for first in range(0, len(kept), _AT_ONCE):
        connection.execute(
            sa.update(secrets)
            .where(secrets.c.id.in_(kept[first : first + _AT_ONCE]))
            .values(administers=sa.true(), issued_by="local")
        )


def downgrade() -> None:
    """Drop them: every secret of an owner administers again."""
    for column in ("issued_by", "issued_with"):
        op.drop_index(f"ix_secrets_{column}", table_name="secrets")
        op.drop_column("secrets", column)
    op.drop_column("secrets", "administers")
    for column in ("blocked_by_admin", "may_issue", "overrides"):
        op.drop_column("keys", column)


def _administering(connection: sa.Connection) -> list[str]:
    """Return the ids of the secrets that the local operator staged and that nothing moved since."""
    events = sa.table(
        "audit_events",
        *(sa.column(name) for name in ("seq", "actor", "action", "object_id", "before", "after")),
    )
    told = (
        sa.select(
            events.c.action, events.c.actor, events.c.object_id, events.c.before, events.c.after
        )
        .where(events.c.action.in_(("key_staged", "key_rotation_staged", "key_updated")))
        .order_by(events.c.seq)
    )
    kept: dict[str, set[str]] = {}
    for action, actor, key_id, before, after in connection.execute(
        told, execution_options={"yield_per": 1000}
    ):
        now = json.loads(after or "{}")
        if action == "key_updated":
            if now.get("user_id") != json.loads(before or "{}").get("user_id"):
                kept.pop(key_id, None)
        elif actor.startswith("local:") and now.get("secret_id"):
            kept.setdefault(key_id, set()).add(now["secret_id"])
        elif now.get("secret_id") and key_id in kept:
            kept[key_id].discard(now["secret_id"])
    return sorted(secret for secrets in kept.values() for secret in secrets)
