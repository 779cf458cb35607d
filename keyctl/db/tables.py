"""Declare the tables: columns and constraints only.  Core, not the ORM, whose import costs every command.

Money is whole nano-dollars.  A column of what verifies keys that came after the first schema says
`since` which revision it is there: a gateway of today verifies on the schema of yesterday.  Teams, users and organizations are archived, not deleted, so that
an archived key still knows whose it was.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from keyctl.db.types import JsonText, UtcDateTime
from keyctl.money import MAX_NANO

metadata = MetaData(
    # Named constraints are what lets Alembic alter them on SQLite.
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _name(column: str, *, primary: bool = False) -> Column[str]:
    return Column(column, String(255), primary_key=primary)


def _money(column: str, *, required: bool = False, since: str | None = None) -> list[Any]:
    rest = {"nullable": False, "server_default": text("0")} if required else {"nullable": True}
    return [
        Column(column, BigInteger, **rest, info=_since(since) if since else {}),
        CheckConstraint(f"{column} BETWEEN 0 AND {MAX_NANO}", name=column),
    ]


def _limit(column: str, *, since: str | None = None) -> list[Any]:
    return [
        Column(column, BigInteger, info=_since(since) if since else {}),
        CheckConstraint(f"{column} >= 0", name=column),
    ]


def _flag(column: str, *, since: str | None = None) -> Column[bool]:
    return Column(
        column, Boolean, nullable=False, server_default=false(), info=_since(since) if since else {}
    )


def _since(revision: str) -> dict[str, Any]:
    return {"since": revision}


def _stamps() -> list[Any]:
    return [
        Column("created_at", UtcDateTime, nullable=False),
        Column("created_by", String(300), nullable=False),
        Column("updated_at", UtcDateTime, nullable=False),
        Column("updated_by", String(300), nullable=False),
        Column("deleted_at", UtcDateTime),
        # The fleet whose files describe it.
        Column("managed_by", String(64), info=_since("1_0004")),
    ]


organizations = Table(
    "organizations",
    metadata,
    _name("id", primary=True),
    Column("name", String(255)),
    Column("models", JsonText, nullable=False),
    *_money("max_budget"),
    *_money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    Column("budget_reset_at", UtcDateTime),
    *_limit("tpm_limit"),
    *_limit("rpm_limit"),
    Column("model_tpm_limit", JsonText, nullable=False),
    Column("model_rpm_limit", JsonText, nullable=False),
    Column("policy", JsonText),
    Column("metadata", JsonText, nullable=False),
    _flag("blocked"),
    *_stamps(),
)

users = Table(
    "users",
    metadata,
    _name("id", primary=True),
    Column("email", String(320)),
    Column("role", String(32), nullable=False),
    Column("models", JsonText, nullable=False),
    *_money("max_budget"),
    *_money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    Column("budget_reset_at", UtcDateTime),
    *_limit("tpm_limit"),
    *_limit("rpm_limit"),
    Column("metadata", JsonText, nullable=False),
    _flag("blocked"),
    Column("budget_id", String(255), info=_since("1_0006")),
    *_stamps(),
    CheckConstraint(
        "role IN ('proxy_admin', 'proxy_admin_viewer', 'org_admin', 'internal_user', 'internal_user_viewer')",
        name="role",
    ),
)

teams = Table(
    "teams",
    metadata,
    _name("id", primary=True),
    Column("name", String(255)),
    Column("organization_id", String(255), ForeignKey("organizations.id"), index=True),
    Column("models", JsonText, nullable=False),
    *_money("max_budget"),
    *_money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    Column("budget_reset_at", UtcDateTime),
    *_limit("tpm_limit"),
    *_limit("rpm_limit"),
    *_limit("max_parallel_requests"),
    Column("model_tpm_limit", JsonText, nullable=False),
    Column("model_rpm_limit", JsonText, nullable=False),
    Column("policy", JsonText),
    Column("metadata", JsonText, nullable=False),
    _flag("blocked"),
    *_stamps(),
)

# Limits kept in one place, for keys, users and members that name them by `budget_id`: the amount is
# one for all of them, what is spent of it is each one's own, in `meters`.
budgets = Table(
    "budgets",
    metadata,
    _name("id", primary=True),
    *_money("max_budget"),
    *_money("soft_budget"),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    *_limit("tpm_limit"),
    *_limit("rpm_limit"),
    *_limit("tpd_limit"),
    *_limit("max_parallel_requests"),
    Column("model_max_budget", JsonText, nullable=False),
    *_stamps(),
)

team_members = Table(
    "team_members",
    metadata,
    Column("team_id", String(255), ForeignKey("teams.id"), primary_key=True),
    Column("user_id", String(255), ForeignKey("users.id"), primary_key=True, index=True),
    Column("role", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # What is spent of it is in `meters`, and outlives the membership.
    *_money("max_budget", since="1_0006"),
    Column("budget_duration", String(16), info=_since("1_0006")),
    Column("budget_anchor_at", UtcDateTime, info=_since("1_0006")),
    *_limit("tpm_limit", since="1_0006"),
    *_limit("rpm_limit", since="1_0006"),
    Column("budget_id", String(255), info=_since("1_0006")),
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

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key_alias", String(255)),
    Column("user_id", String(255), ForeignKey("users.id")),
    Column("team_id", String(255), ForeignKey("teams.id")),
    Column("organization_id", String(255), ForeignKey("organizations.id")),
    Column("key_type", String(16), nullable=False),
    _flag("service_account"),
    Column("models", JsonText, nullable=False),
    *_money("max_budget"),
    *_money("soft_budget"),
    *_money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime),
    Column("budget_reset_at", UtcDateTime),
    Column("budget_limits", JsonText, nullable=False),
    Column("model_max_budget", JsonText, nullable=False),
    Column("budget_fallbacks", JsonText, nullable=False),
    *_limit("tpm_limit"),
    *_limit("rpm_limit"),
    *_limit("tpd_limit"),
    *_limit("max_parallel_requests"),
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
    _flag("blocked"),
    _flag("blocked_by_admin", since="1_0003"),
    Column("may_issue", JsonText, info=_since("1_0003")),
    Column(
        "overrides",
        JsonText,
        nullable=False,
        server_default=text("'[]'"),
        info=_since("1_0003"),
    ),
    Column("duration", String(16)),
    Column("expires", UtcDateTime),
    _flag("auto_rotate"),
    Column("rotation_interval", String(16)),
    Column("key_rotation_at", UtcDateTime),
    Column("last_rotation_at", UtcDateTime),
    Column("rotation_count", Integer, nullable=False, server_default=text("0")),
    Column("grace_period", String(16)),
    Column("sink", String(64)),
    Column("sink_suspect_at", UtcDateTime),
    _flag("send_invite_email"),
    Column("confirmed_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("budget_id", String(255), info=_since("1_0006")),
    *_stamps(),
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
    _flag("supplied"),
    Column("run_id", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime),
    _flag("administers", since="1_0003"),
    Column("issued_by", String(300), info=_since("1_0003")),
    Column("issued_with", String(32), info=_since("1_0003")),
    CheckConstraint("state IN ('staged', 'active', 'retiring', 'revoked')", name="state"),
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

# No foreign keys: history outlives what it describes.
audit_events = Table(
    "audit_events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(300), nullable=False),
    Column("changed_by", String(255)),
    Column("action", String(64), nullable=False),
    Column("object_type", String(32), nullable=False),
    Column("object_id", String(600), nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("reason", Text),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
Index(
    "ix_audit_events_object",
    audit_events.c.object_type,
    audit_events.c.object_id,
    audit_events.c.seq,
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

# One row for each event and place that it is to be sent to.  No foreign keys, like the audit trail.
outbox = Table(
    "outbox",
    metadata,
    Column("event_id", String(32), primary_key=True),
    Column("hook", String(300), primary_key=True),
    Column("event", String(64), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_at", UtcDateTime, nullable=False),
    Column("run_id", String(32)),
    Column("claimed_until", UtcDateTime),
    Column("last_error", Text),
    Column("delivered_at", UtcDateTime),
    CheckConstraint("attempts >= 0", name="attempts"),
)
Index("ix_outbox_seq", outbox.c.seq, outbox.c.hook)

# The processes that record usage, each with the number of the last batch that it wrote: so that one
# whose commit was lost on the way is neither written twice nor dropped.
recorders = Table(
    "recorders",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("batch", BigInteger, nullable=False),
    Column("flushed_at", UtcDateTime, nullable=False),
    # Until when what this process has reserved is its own; None: it never reserved anything.
    Column("leased_until", UtcDateTime),
)

# What was spent of a budget that is not its owner's only one: a window, a model's, a member's.
# `object_table` and `object_id` name the owner's row, `meter` which of its budgets.
meters = Table(
    "meters",
    metadata,
    Column("object_table", String(16), primary_key=True),
    Column("object_id", String(255), primary_key=True),
    Column("meter", String(300), primary_key=True),
    *_money("spend", required=True),
    Column("budget_duration", String(16)),
    Column("budget_anchor_at", UtcDateTime, nullable=False),
    Column("budget_reset_at", UtcDateTime),
)

# What each process has reserved of each budget.  `meter` is empty for the budget of the owner's own
# row.  `amount` is no longer there for others; `held` of it is for requests under way, and is
# charged when the process ends without settling: then `unsettled_at` and `charged` say so.
leases = Table(
    "leases",
    metadata,
    Column("object_table", String(16), primary_key=True),
    Column("object_id", String(255), primary_key=True),
    Column("meter", String(300), primary_key=True),
    Column("recorder_id", String(32), primary_key=True, index=True),
    *_money("amount", required=True),
    *_money("held", required=True),
    Column("unsettled_at", UtcDateTime),
    *_money("charged"),
)

# What people have been reminded of.  `about` is the moment or the amount that it was about: when that
# changes they are told again.
reminders = Table(
    "reminders",
    metadata,
    Column("object_type", String(32), primary_key=True),
    Column("object_id", String(255), primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("about", String(255), nullable=False),
    Column("reminded_at", UtcDateTime, nullable=False),
)

# What a gateway answered with an id that is asked for later: a batch, a background answer, a file.
# Who made it may read it and is charged for it, once.  `charged_to` are the budgets, as they were
# when it was made; what is reserved of them is leased to its id, as to a process of its own.
provider_objects = Table(
    "provider_objects",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("deployment", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("provider_id", String(255), nullable=False),
    Column("key_id", String(32), nullable=False, index=True),
    Column("charged_to", JsonText, nullable=False),
    *_money("reserved", required=True),
    *_money("cost"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("charged_at", UtcDateTime),
    CheckConstraint("kind IN ('batch', 'response', 'file')", name="kind"),
    UniqueConstraint("deployment", "kind", "provider_id", name="uq_provider_objects_provider_id"),
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

# Models under a name that keys and their owners use for them: from the configuration, or imported.
access_groups = Table(
    "access_groups",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("models", JsonText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
