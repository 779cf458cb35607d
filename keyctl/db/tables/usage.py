"""Declare the tables of what gateways spend, reserve and charge."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    String,
    Table,
    UniqueConstraint,
)

from keyctl.db.tables.columns import metadata, money
from keyctl.db.types import JsonText, UtcDateTime

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
    *money("spend", required=True),
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
    *money("amount", required=True),
    *money("held", required=True),
    Column("unsettled_at", UtcDateTime),
    *money("charged"),
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
    *money("reserved", required=True),
    *money("cost"),
    Column("created_at", UtcDateTime, nullable=False),
    Column("charged_at", UtcDateTime),
    CheckConstraint("kind IN ('batch', 'response', 'file')", name="kind"),
    UniqueConstraint("deployment", "kind", "provider_id", name="uq_provider_objects_provider_id"),
)
