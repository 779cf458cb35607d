"""Declare the tables of what happened and who is told: the audit trail, the outbox and the reminders."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from keyctl.db.tables.columns import metadata
from keyctl.db.types import UtcDateTime

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
