"""Create the first schema.

A revision is named MAJOR_NUMBER.  Within one major version a migration only adds to what
readers use, so that an older `verify` keeps working while it is rolled out.
"""

import sqlalchemy as sa
from alembic import op

revision = "1_0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    "audit_events",
    "audit_head",
    "organizations",
    "users",
    "organization_members",
    "teams",
    "keys",
    "team_members",
    "claims",
    "request_ids",
    "secrets",
)


def upgrade() -> None:
    """Create every table, and the head of an empty audit chain."""
    op.create_table(
        "audit_events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=300), nullable=False),
        sa.Column("changed_by", sa.String(length=255), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("object_type", sa.String(length=32), nullable=False),
        sa.Column("object_id", sa.String(length=600), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("prev_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_events")),
    )
    op.create_index(
        "ix_audit_events_object", "audit_events", ["object_type", "object_id", "seq"], unique=False
    )

    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "organizations",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("max_budget", sa.BigInteger(), nullable=True),
        sa.Column("spend", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("budget_duration", sa.String(length=16), nullable=True),
        sa.Column("budget_anchor_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("budget_reset_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tpm_limit", sa.BigInteger(), nullable=True),
        sa.Column("rpm_limit", sa.BigInteger(), nullable=True),
        sa.Column("model_tpm_limit", sa.Text(), nullable=False),
        sa.Column("model_rpm_limit", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("blocked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=300), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=300), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "max_budget BETWEEN 0 AND 9000000000000000000", name=op.f("ck_organizations_max_budget")
        ),
        sa.CheckConstraint("rpm_limit >= 0", name=op.f("ck_organizations_rpm_limit")),
        sa.CheckConstraint(
            "spend BETWEEN 0 AND 9000000000000000000", name=op.f("ck_organizations_spend")
        ),
        sa.CheckConstraint("tpm_limit >= 0", name=op.f("ck_organizations_tpm_limit")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("max_budget", sa.BigInteger(), nullable=True),
        sa.Column("spend", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("budget_duration", sa.String(length=16), nullable=True),
        sa.Column("budget_anchor_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("budget_reset_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tpm_limit", sa.BigInteger(), nullable=True),
        sa.Column("rpm_limit", sa.BigInteger(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("blocked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=300), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=300), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('proxy_admin', 'proxy_admin_viewer', 'org_admin', 'internal_user', 'internal_user_viewer')",
            name=op.f("ck_users_role"),
        ),
        sa.CheckConstraint(
            "max_budget BETWEEN 0 AND 9000000000000000000", name=op.f("ck_users_max_budget")
        ),
        sa.CheckConstraint("rpm_limit >= 0", name=op.f("ck_users_rpm_limit")),
        sa.CheckConstraint("spend BETWEEN 0 AND 9000000000000000000", name=op.f("ck_users_spend")),
        sa.CheckConstraint("tpm_limit >= 0", name=op.f("ck_users_tpm_limit")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_table(
        "organization_members",
        sa.Column("organization_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "role IN ('org_admin', 'internal_user')", name=op.f("ck_organization_members_role")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_organization_members_organization_id"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_organization_members_user_id")
        ),
        sa.PrimaryKeyConstraint("organization_id", "user_id", name=op.f("pk_organization_members")),
    )
    op.create_index(
        op.f("ix_organization_members_user_id"), "organization_members", ["user_id"], unique=False
    )

    op.create_table(
        "teams",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("organization_id", sa.String(length=255), nullable=True),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("max_budget", sa.BigInteger(), nullable=True),
        sa.Column("spend", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("budget_duration", sa.String(length=16), nullable=True),
        sa.Column("budget_anchor_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("budget_reset_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tpm_limit", sa.BigInteger(), nullable=True),
        sa.Column("rpm_limit", sa.BigInteger(), nullable=True),
        sa.Column("max_parallel_requests", sa.BigInteger(), nullable=True),
        sa.Column("model_tpm_limit", sa.Text(), nullable=False),
        sa.Column("model_rpm_limit", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("blocked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=300), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=300), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "max_budget BETWEEN 0 AND 9000000000000000000", name=op.f("ck_teams_max_budget")
        ),
        sa.CheckConstraint(
            "max_parallel_requests >= 0", name=op.f("ck_teams_max_parallel_requests")
        ),
        sa.CheckConstraint("rpm_limit >= 0", name=op.f("ck_teams_rpm_limit")),
        sa.CheckConstraint("spend BETWEEN 0 AND 9000000000000000000", name=op.f("ck_teams_spend")),
        sa.CheckConstraint("tpm_limit >= 0", name=op.f("ck_teams_tpm_limit")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_teams_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
    )
    op.create_index(op.f("ix_teams_organization_id"), "teams", ["organization_id"], unique=False)

    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("key_alias", sa.String(length=255), nullable=True),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("team_id", sa.String(length=255), nullable=True),
        sa.Column("organization_id", sa.String(length=255), nullable=True),
        sa.Column("key_type", sa.String(length=16), nullable=False),
        sa.Column("service_account", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("max_budget", sa.BigInteger(), nullable=True),
        sa.Column("soft_budget", sa.BigInteger(), nullable=True),
        sa.Column("spend", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("budget_duration", sa.String(length=16), nullable=True),
        sa.Column("budget_anchor_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("budget_reset_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("budget_limits", sa.Text(), nullable=False),
        sa.Column("model_max_budget", sa.Text(), nullable=False),
        sa.Column("budget_fallbacks", sa.Text(), nullable=False),
        sa.Column("tpm_limit", sa.BigInteger(), nullable=True),
        sa.Column("rpm_limit", sa.BigInteger(), nullable=True),
        sa.Column("tpd_limit", sa.BigInteger(), nullable=True),
        sa.Column("max_parallel_requests", sa.BigInteger(), nullable=True),
        sa.Column("model_tpm_limit", sa.Text(), nullable=False),
        sa.Column("model_rpm_limit", sa.Text(), nullable=False),
        sa.Column("tpm_limit_type", sa.String(length=32), nullable=True),
        sa.Column("rpm_limit_type", sa.String(length=32), nullable=True),
        sa.Column("allowed_routes", sa.Text(), nullable=False),
        sa.Column("permissions", sa.Text(), nullable=False),
        sa.Column("guardrails", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("blocked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("duration", sa.String(length=16), nullable=True),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=True),
        sa.Column("auto_rotate", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("rotation_interval", sa.String(length=16), nullable=True),
        sa.Column("key_rotation_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_rotation_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rotation_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("grace_period", sa.String(length=16), nullable=True),
        sa.Column("sink", sa.String(length=64), nullable=True),
        sa.Column("sink_suspect_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("send_invite_email", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=300), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=300), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("key_alias <> ''", name=op.f("ck_keys_key_alias")),
        sa.CheckConstraint(
            "auto_rotate = (rotation_interval IS NOT NULL)",
            name=op.f("ck_keys_auto_rotate_needs_interval"),
        ),
        sa.CheckConstraint(
            "max_budget BETWEEN 0 AND 9000000000000000000", name=op.f("ck_keys_max_budget")
        ),
        sa.CheckConstraint(
            "max_parallel_requests >= 0", name=op.f("ck_keys_max_parallel_requests")
        ),
        sa.CheckConstraint("rotation_count >= 0", name=op.f("ck_keys_rotation_count")),
        sa.CheckConstraint("rpm_limit >= 0", name=op.f("ck_keys_rpm_limit")),
        sa.CheckConstraint(
            "soft_budget BETWEEN 0 AND 9000000000000000000", name=op.f("ck_keys_soft_budget")
        ),
        sa.CheckConstraint("spend BETWEEN 0 AND 9000000000000000000", name=op.f("ck_keys_spend")),
        sa.CheckConstraint("tpd_limit >= 0", name=op.f("ck_keys_tpd_limit")),
        sa.CheckConstraint("tpm_limit >= 0", name=op.f("ck_keys_tpm_limit")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_keys_organization_id")
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_keys_team_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_keys_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    op.create_index(
        "ix_keys_deleted",
        "keys",
        ["created_at", "id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NOT NULL"),
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(
        "ix_keys_key_rotation_at",
        "keys",
        ["key_rotation_at", "id"],
        unique=False,
        sqlite_where=sa.text("key_rotation_at IS NOT NULL AND deleted_at IS NULL"),
        postgresql_where=sa.text("key_rotation_at IS NOT NULL AND deleted_at IS NULL"),
    )
    op.create_index(
        "ix_keys_sink_suspect",
        "keys",
        ["id"],
        unique=False,
        sqlite_where=sa.text("sink_suspect_at IS NOT NULL AND deleted_at IS NULL"),
        postgresql_where=sa.text("sink_suspect_at IS NOT NULL AND deleted_at IS NULL"),
    )
    for table in ("keys", "teams", "users", "organizations"):
        op.create_index(
            f"ix_{table}_budget_reset_at",
            table,
            ["budget_reset_at"],
            unique=False,
            sqlite_where=sa.text("budget_duration IS NOT NULL AND deleted_at IS NULL"),
            postgresql_where=sa.text("budget_duration IS NOT NULL AND deleted_at IS NULL"),
        )
    op.create_index(
        "ix_keys_live",
        "keys",
        ["created_at", "id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_keys_live_organization_id",
        "keys",
        ["organization_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_keys_live_team_id",
        "keys",
        ["team_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_keys_live_user_id",
        "keys",
        ["user_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_keys_pending",
        "keys",
        ["id"],
        unique=False,
        sqlite_where=sa.text("confirmed_at IS NULL AND deleted_at IS NULL"),
        postgresql_where=sa.text("confirmed_at IS NULL AND deleted_at IS NULL"),
    )
    op.create_index(
        "uq_keys_key_alias",
        "keys",
        ["key_alias"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )

    op.create_table(
        "team_members",
        sa.Column("team_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('admin', 'user')", name=op.f("ck_team_members_role")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_team_members_team_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_team_members_user_id")),
        sa.PrimaryKeyConstraint("team_id", "user_id", name=op.f("pk_team_members")),
    )
    op.create_index(op.f("ix_team_members_user_id"), "team_members", ["user_id"], unique=False)

    op.create_table(
        "claims",
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("staged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_claims_key_id")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_claims")),
    )
    op.create_index(op.f("ix_claims_run_id"), "claims", ["run_id"], unique=False)

    op.create_table(
        "request_ids",
        sa.Column("request_id", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_request_ids_key_id")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_request_ids")),
    )
    op.create_index(op.f("ix_request_ids_key_id"), "request_ids", ["key_id"], unique=False)

    op.create_table(
        "secrets",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("lookup", sa.String(length=32), nullable=False),
        sa.Column("hash", sa.String(length=60), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("supplied", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('staged', 'active', 'retiring', 'revoked')", name=op.f("ck_secrets_state")
        ),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_secrets_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secrets")),
    )
    op.create_index(op.f("ix_secrets_key_id"), "secrets", ["key_id"], unique=False)
    op.create_index(
        "ix_secrets_staged",
        "secrets",
        ["run_id"],
        unique=False,
        sqlite_where=sa.text("state = 'staged'"),
        postgresql_where=sa.text("state = 'staged'"),
    )
    op.create_index(
        "uq_secrets_active",
        "secrets",
        ["key_id"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_index("uq_secrets_lookup", "secrets", ["lookup"], unique=True)
    op.execute("INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '" + "0" * 64 + "')")


def downgrade() -> None:
    """Drop everything that is keyctl's."""
    for table in reversed(_TABLES):
        op.drop_table(table)
