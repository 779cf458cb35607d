"""Declare the tables: columns and constraints only.  Core, not the ORM, whose import costs every command.

Money is whole nano-dollars.  A column of what verifies keys that came after the first schema says
`since` which revision it is there: a gateway of today verifies on the schema of yesterday.  Teams, users and organizations are archived, not deleted, so that
an archived key still knows whose it was.
"""

from keyctl.db.tables.columns import metadata
from keyctl.db.tables.history import audit_events, audit_head, outbox, reminders
from keyctl.db.tables.keys import claims, ended_secrets, keys, request_ids, secrets
from keyctl.db.tables.owners import (
    access_groups,
    budgets,
    organization_members,
    organizations,
    team_members,
    teams,
    users,
)
from keyctl.db.tables.usage import leases, meters, provider_objects, recorders

__all__ = [
    "access_groups",
    "audit_events",
    "audit_head",
    "budgets",
    "claims",
    "ended_secrets",
    "keys",
    "leases",
    "metadata",
    "meters",
    "organization_members",
    "organizations",
    "outbox",
    "provider_objects",
    "recorders",
    "reminders",
    "request_ids",
    "secrets",
    "team_members",
    "teams",
    "users",
]
