"""Let the details of what ended long ago leave, and tell whose each secret was."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from keyctl.db.schema import REVISION
from keyctl.db.tables import ended_secrets, keys, meters, outbox, reminders, secrets
from keyctl.records import Key, Secret

# The revision from which on there is something to look in.
_SINCE: Final = "1_0009"
# What stays of a key: its name, whose it was and who made it, how long it lived, what it spent.
_KEPT: Final = frozenset(
    {
        *("id", "key_alias", "user_id", "team_id", "organization_id", "key_type"),
        *("service_account", "spend", "created_at", "created_by", "confirmed_at", "deleted_at"),
    }
)


def count_prunable(connection: Connection, *, before: datetime) -> int:
    """Return how many secrets ended before then."""
    query = select(func.count()).select_from(secrets.join(keys)).where(_has_ended(before))
    return connection.execute(query).scalar_one()


def count_strippable(connection: Connection, *, before: datetime) -> int:
    """Return how many keys were deleted before then, and still have their details."""
    query = select(func.count()).select_from(keys).where(*_has_details(before))
    return connection.execute(query).scalar_one()


def count_forgettable(connection: Connection, *, before: datetime) -> int:
    """Return how many events were delivered before then."""
    query = select(func.count()).select_from(outbox).where(outbox.c.delivered_at < before)
    return connection.execute(query).scalar_one()


def prunable(
    connection: Connection, *, before: datetime, after: tuple[str, str], limit: int
) -> list[dict[str, Any]]:
    """Return what is kept of secrets that ended before then, those of a key together; locked.

    *after* is the key and the secret to go on behind: every page begins where the last one ended,
    because there may be millions.
    """
    place = (secrets.c.key_id, secrets.c.id)
    query = (
        select(secrets.c.id, secrets.c.lookup, secrets.c.key_id, secrets.c.created_at)
        .select_from(secrets.join(keys))
        .where(_has_ended(before), secrets.c.key_id >= after[0], tuple_(*place) > after)
        .order_by(*place)
        .limit(limit)
        .with_for_update(of=secrets, skip_locked=True)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def strippable(connection: Connection, *, before: datetime, after: str, limit: int) -> list[str]:
    """Return keys that were deleted before then and still have their details; locked."""
    query = (
        select(keys.c.id)
        .where(*_has_details(before), keys.c.id > after)
        .order_by(keys.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(connection.execute(query).scalars())


def strip(connection: Connection, key_ids: Sequence[str], *, at: datetime, by: str) -> None:
    """Keep of these keys who they were and whose, and what they have spent."""
    blank = Key(id="", created_at=at, created_by=by, updated_at=at, updated_by=by).columns()
    values = {name: value for name, value in blank.items() if name not in _KEPT}
    connection.execute(update(keys).where(keys.c.id.in_(key_ids)).values(values))
    of_keys = (meters.c.object_table == keys.name, meters.c.object_id.in_(key_ids))
    connection.execute(delete(meters).where(*of_keys))
    told = (reminders.c.object_type == "key", reminders.c.object_id.in_(key_ids))
    connection.execute(delete(reminders).where(*told))


def prune(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Keep of these secrets whose they were, and nothing else."""
    connection.execute(insert(ended_secrets), list(rows))
    connection.execute(delete(secrets).where(secrets.c.id.in_([row["id"] for row in rows])))


def find_ended(connection: Connection, condition: ColumnElement[bool]) -> Secret | None:
    """Return a secret that left its table, as a revoked one without a hash."""
    if connection.info.get(REVISION, "") < _SINCE:
        return None
    row = connection.execute(select(ended_secrets).where(condition).limit(1)).mappings().first()
    return None if row is None else _revoked(row)


def find_all_ended(connection: Connection, lookups: Sequence[str]) -> list[Secret]:
    """Return the secrets with these lookups that left their table."""
    if not lookups or connection.info.get(REVISION, "") < _SINCE:
        return []
    query = select(ended_secrets).where(ended_secrets.c.lookup.in_(lookups))
    return [_revoked(row) for row in connection.execute(query).mappings()]


def _revoked(row: Mapping[Any, Any]) -> Secret:
    return Secret(
        **row, hash="", state="revoked", supplied=False, run_id="", not_after=row["created_at"]
    )


def _has_details(before: datetime) -> list[ColumnElement[bool]]:
    """Return the condition on a deleted key: what is pruned was changed after its end."""
    return [
        keys.c.deleted_at.is_not(None),
        keys.c.updated_at <= keys.c.deleted_at,
        keys.c.deleted_at < before,
    ]


def _has_ended(before: datetime) -> ColumnElement[bool]:
    """Return the condition on a revoked secret: by its own end, its key's, or never in use at all."""
    never_dated = and_(secrets.c.not_after.is_(None), secrets.c.created_at < before)
    ended = or_(secrets.c.not_after < before, keys.c.deleted_at < before, never_dated)
    return and_(secrets.c.state == "revoked", ended)
