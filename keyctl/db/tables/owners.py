"""Declare the tables of those who own keys: organizations, teams, users, members, and the limits and models that they name."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    String,
    Table,
    text,
)

from keyctl.db.tables.columns import flag, limit, metadata, money, name, stamps, there_since
from keyctl.db.types import JsonText, UtcDateTime

organizations = Table(
    "organizations",
    metadata,
    name("id", primary=True),
    Column("name", String(255)),
    Column("models", JsonText, nullable=False),
    *money("max_budget"),
    *money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    Column("budget_reset_at", UtcDateTime),
    # What is spent of it, and of the tokens of a day, is in `meters`.
    Column(
        "model_max_budget",
        JsonText,
        nullable=False,
        server_default=text("'{}'"),
        info=there_since("1_0013"),
    ),
    *limit("tpm_limit"),
    *limit("rpm_limit"),
    *limit("tpd_limit", since="1_0013"),
    *limit("max_parallel_requests", since="1_0013"),
    Column("model_tpm_limit", JsonText, nullable=False),
    Column("model_rpm_limit", JsonText, nullable=False),
    Column("policy", JsonText),
    Column("metadata", JsonText, nullable=False),
    flag("blocked"),
    *stamps(),
)

users = Table(
    "users",
    metadata,
    name("id", primary=True),
    Column("email", String(320)),
    Column("role", String(32), nullable=False),
    Column("models", JsonText, nullable=False),
    *money("max_budget"),
    *money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    Column("budget_reset_at", UtcDateTime),
    *limit("tpm_limit"),
    *limit("rpm_limit"),
    Column("metadata", JsonText, nullable=False),
    flag("blocked"),
    Column("budget_id", String(255), info=there_since("1_0006")),
    *stamps(),
    CheckConstraint(
        "role IN ('proxy_admin', 'proxy_admin_viewer', 'org_admin', 'internal_user', 'internal_user_viewer')",
        name="role",
    ),
)

teams = Table(
    "teams",
    metadata,
    name("id", primary=True),
    Column("name", String(255)),
    Column("organization_id", String(255), ForeignKey("organizations.id"), index=True),
    Column("models", JsonText, nullable=False),
    *money("max_budget"),
    *money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    Column("budget_reset_at", UtcDateTime),
    # What is spent of these, and of the tokens of a day, is in `meters`.
    *(
        Column(
            column,
            JsonText,
            nullable=False,
            server_default=text(f"'{empty}'"),
            info=there_since("1_0012"),
        )
        for column, empty in (("budget_limits", "[]"), ("model_max_budget", "{}"))
    ),
    *limit("tpm_limit"),
    *limit("rpm_limit"),
    *limit("tpd_limit", since="1_0013"),
    *limit("max_parallel_requests"),
    Column("model_tpm_limit", JsonText, nullable=False),
    Column("model_rpm_limit", JsonText, nullable=False),
    Column("policy", JsonText),
    Column("metadata", JsonText, nullable=False),
    flag("blocked"),
    *stamps(),
)

# Limits kept in one place, for keys, users and members that name them by `budget_id`: the amount is
# one for all of them, what is spent of it is each one's own, in `meters`.
budgets = Table(
    "budgets",
    metadata,
    name("id", primary=True),
    *money("max_budget"),
    *money("soft_budget"),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    *limit("tpm_limit"),
    *limit("rpm_limit"),
    *limit("tpd_limit"),
    *limit("max_parallel_requests"),
    Column("model_max_budget", JsonText, nullable=False),
    *stamps(),
)

team_members = Table(
    "team_members",
    metadata,
    Column("team_id", String(255), ForeignKey("teams.id"), primary_key=True),
    Column("user_id", String(255), ForeignKey("users.id"), primary_key=True, index=True),
    Column("role", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # What is spent of it is in `meters`, and outlives the membership.
    *money("max_budget", since="1_0006"),
    Column("budget_duration", String(16), info=there_since("1_0006")),
    Column("budget_anchor_at", UtcDateTime, info=there_since("1_0006")),
    *limit("tpm_limit", since="1_0006"),
    *limit("rpm_limit", since="1_0006"),
    Column("budget_id", String(255), info=there_since("1_0006")),
    CheckConstraint("role IN ('admin', 'user')", name="role"),
)

organization_members = Table(
    "organization_members",
    metadata,
    Column("organization_id", String(255), ForeignKey("organizations.id"), primary_key=True),
    Column("user_id", String(255), ForeignKey("users.id"), primary_key=True, index=True),
    Column("role", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("role IN ('org_admin', 'internal_user')", name="role"),
)

# Models under a name that keys and their owners use for them: from the configuration, or imported.
access_groups = Table(
    "access_groups",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("models", JsonText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
