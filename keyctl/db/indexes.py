"""Declare the partial indexes apart from the tables: only migrations and tests look at them.

To declare one loads SQLAlchemy's PostgreSQL dialect and asyncio, a tenth of a short command.
"""

from sqlalchemy import Index, text

from keyctl.db.tables import keys, organizations, outbox, secrets, teams, users

_LIVE = text("deleted_at IS NULL")
_DUE = text("key_rotation_at IS NOT NULL AND deleted_at IS NULL")

Index(
    "uq_keys_key_alias",
    keys.c.key_alias,
    unique=True,
    sqlite_where=_LIVE,
    postgresql_where=_LIVE,
)
# Each way of listing has an index that ends in the page key, so that a page costs the same
# wherever it is.
for _column in (None, "team_id", "user_id", "organization_id"):
    Index(
        f"ix_keys_live{'_' + _column if _column else ''}",
        *([keys.c[_column]] if _column else []),
        keys.c.created_at,
        keys.c.id,
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    )
Index(
    "ix_keys_pending",
    keys.c.id,
    sqlite_where=text("confirmed_at IS NULL AND deleted_at IS NULL"),
    postgresql_where=text("confirmed_at IS NULL AND deleted_at IS NULL"),
)
Index(
    "ix_keys_deleted",
    keys.c.created_at,
    keys.c.id,
    sqlite_where=text("deleted_at IS NOT NULL"),
    postgresql_where=text("deleted_at IS NOT NULL"),
)
# Keys that ended and still have their details: db prune looks for them.
_UNPRUNED = text("deleted_at IS NOT NULL AND updated_at <= deleted_at")
Index("ix_keys_unpruned", keys.c.id, sqlite_where=_UNPRUNED, postgresql_where=_UNPRUNED)
# Keys that a caller's key has made; most are made by people, and stay out.
_MADE = text("created_by LIKE 'key:%'")
Index("ix_keys_made", keys.c.created_by, sqlite_where=_MADE, postgresql_where=_MADE)
_HAS_PERIOD = text("budget_duration IS NOT NULL AND deleted_at IS NULL")
for _table in (keys, teams, users, organizations):
    Index(
        f"ix_{_table.name}_budget_reset_at",
        _table.c.budget_reset_at,
        sqlite_where=_HAS_PERIOD,
        postgresql_where=_HAS_PERIOD,
    )
_MANAGED = text("managed_by IS NOT NULL AND deleted_at IS NULL")
for _table in (keys, teams, users, organizations):
    Index(
        f"ix_{_table.name}_managed_by",
        _table.c.managed_by,
        _table.c.id,
        sqlite_where=_MANAGED,
        postgresql_where=_MANAGED,
    )
_SUSPECT = text("sink_suspect_at IS NOT NULL AND deleted_at IS NULL")
Index("ix_keys_sink_suspect", keys.c.id, sqlite_where=_SUSPECT, postgresql_where=_SUSPECT)
Index(
    "ix_keys_key_rotation_at",
    keys.c.key_rotation_at,
    keys.c.id,
    sqlite_where=_DUE,
    postgresql_where=_DUE,
)

Index(
    "ix_secrets_staged",
    secrets.c.run_id,
    sqlite_where=text("state = 'staged'"),
    postgresql_where=text("state = 'staged'"),
)
Index(
    "ix_secrets_retiring",
    secrets.c.not_after,
    sqlite_where=text("state = 'retiring'"),
    postgresql_where=text("state = 'retiring'"),
)
# What a caller's key has issued: most secrets are issued by the local operator, and stay out.
_ISSUED = text("issued_with IS NOT NULL")
for _column in ("issued_by", "issued_with"):
    Index(
        f"ix_secrets_{_column}",
        secrets.c[_column],
        sqlite_where=_ISSUED,
        postgresql_where=_ISSUED,
    )
Index("uq_secrets_lookup", secrets.c.lookup, unique=True)
Index(
    "uq_secrets_active",
    secrets.c.key_id,
    unique=True,
    sqlite_where=text("state = 'active'"),
    postgresql_where=text("state = 'active'"),
)

Index(
    "ix_outbox_due",
    outbox.c.next_at,
    outbox.c.seq,
    sqlite_where=text("delivered_at IS NULL"),
    postgresql_where=text("delivered_at IS NULL"),
)
Index(
    "ix_outbox_delivered",
    outbox.c.delivered_at,
    sqlite_where=text("delivered_at IS NOT NULL"),
    postgresql_where=text("delivered_at IS NOT NULL"),
)
