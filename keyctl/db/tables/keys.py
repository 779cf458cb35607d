"""Declare the tables of keys, their secrets, and the claims and request ids of those who change them."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    String,
    Table,
    text,
)

from keyctl.db.tables.columns import flag, limit, metadata, money, stamps, there_since
from keyctl.db.types import JsonText, UtcDateTime

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_alias", String(255)),
    Column("user_id", String(255), ForeignKey("users.id")),
    Column("team_id", String(255), ForeignKey("teams.id")),
    Column("organization_id", String(255), ForeignKey("organizations.id")),
    Column("key_type", String(16), nullable=False),
    flag("service_account"),
    Column("models", JsonText, nullable=False),
    *money("max_budget"),
    *money("soft_budget"),
    *money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    Column("budget_reset_at", UtcDateTime),
    Column("budget_limits", JsonText, nullable=False),
    Column("model_max_budget", JsonText, nullable=False),
    Column("budget_fallbacks", JsonText, nullable=False),
    *limit("tpm_limit"),
    *limit("rpm_limit"),
    *limit("tpd_limit"),
    *limit("max_parallel_requests"),
    Column("model_tpm_limit", JsonText, nullable=False),
    Column("model_rpm_limit", JsonText, nullable=False),
    Column("tpm_limit_type", String(32)),
    Column("rpm_limit_type", String(32)),
    Column("allowed_routes", JsonText, nullable=False),
    Column("permissions", JsonText, nullable=False),
    Column("guardrails", JsonText, nullable=False),
    Column("tags", JsonText, nullable=False),
    Column("metadata", JsonText, nullable=False),
    Column("gateway", JsonText, nullable=False),
    flag("blocked"),
    flag("blocked_by_admin", since="1_0003"),
    Column("may_issue", JsonText, info=there_since("1_0003")),
    Column(
        "overrides",
        JsonText,
        nullable=False,
        server_default=text("'[]'"),
        info=there_since("1_0003"),
    ),
    Column("duration", String(16)),
    Column("expires", UtcDateTime),
    flag("auto_rotate"),
    Column("rotation_interval", String(16)),
    Column("key_rotation_at", UtcDateTime),
    Column("last_rotation_at", UtcDateTime),
    Column("rotation_count", Integer, nullable=False, server_default=text("0")),
    Column("grace_period", String(16)),
    Column("sink", String(64)),
    Column("sink_suspect_at", UtcDateTime),
    flag("send_invite_email"),
    Column("confirmed_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("budget_id", String(255), info=there_since("1_0006")),
    *stamps(),
    CheckConstraint("rotation_count >= 0", name="rotation_count"),
    CheckConstraint("key_alias <> ''", name="key_alias"),
    CheckConstraint(
        "auto_rotate = (rotation_interval IS NOT NULL)", name="auto_rotate_needs_interval"
    ),
)

secrets = Table(
    "secrets",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("key_id", String(32), ForeignKey("keys.id"), nullable=False, index=True),
    Column("lookup", String(32), nullable=False),
    Column("hash", String(60), nullable=False),
    Column("state", String(8), nullable=False),
    flag("supplied"),
    Column("run_id", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime),
    flag("administers", since="1_0003"),
    Column("issued_by", String(300), info=there_since("1_0003")),
    Column("issued_with", String(32), info=there_since("1_0003")),
    CheckConstraint("state IN ('staged', 'active', 'retiring', 'revoked')", name="state"),
)

# What is kept of a secret that ended long ago: whose it was.
ended_secrets = Table(
    "ended_secrets",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("lookup", String(32), nullable=False, index=True),
    Column("key_id", String(32), ForeignKey("keys.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

claims = Table(
    "claims",
    metadata,
    Column("key_id", String(32), ForeignKey("keys.id"), primary_key=True),
    Column("run_id", String(32), nullable=False, index=True),
    Column("fingerprint", String(64)),
    Column("staged_at", UtcDateTime, nullable=False),
    Column("deadline_at", UtcDateTime, nullable=False),
)

request_ids = Table(
    "request_ids",
    metadata,
    Column("request_id", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("key_id", String(32), ForeignKey("keys.id"), nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
)
