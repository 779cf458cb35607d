"""Let secrets that ended long ago leave their table, and tell whose they were."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select

from keyctl.db.schema import REVISION
from keyctl.db.tables import ended_secrets, keys, outbox, secrets
from keyctl.records import Secret

# The revision from which on there is something to look in.
_SINCE: Final = "1_0009"


def count_prunable(connection: Connection, *, before: datetime) -> int:
    """Return how many secrets ended before then."""
    query = select(func.count()).select_from(secrets.join(keys)).where(_has_ended(before))
    return connection.execute(query).scalar_one()


def count_forgettable(connection: Connection, *, before: datetime) -> int:
    """Return how many events were delivered before then."""
    query = select(func.count()).select_from(outbox).where(outbox.c.delivered_at < before)
    return connection.execute(query).scalar_one()


def prunable(connection: Connection, *, before: datetime, limit: int) -> list[dict[str, Any]]:
    """Return what is kept of secrets that ended before then, those of a key together; locked."""
    query = (
        select(secrets.c.id, secrets.c.lookup, secrets.c.key_id, secrets.c.created_at)
        .select_from(secrets.join(keys))
        .where(_has_ended(before))
        .order_by(secrets.c.key_id, secrets.c.id)
        .limit(limit)
        .with_for_update(of=secrets, skip_locked=True)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def prune(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Keep of these secrets whose they were, and nothing else."""
    connection.execute(insert(ended_secrets), list(rows))
    connection.execute(delete(secrets).where(secrets.c.id.in_([row["id"] for row in rows])))


def find_ended(connection: Connection, condition: ColumnElement[bool]) -> Secret | None:
    """Return a secret that left its table, as a revoked one without a hash."""
    if connection.info.get(REVISION, "") < _SINCE:
        return None
    row = connection.execute(select(ended_secrets).where(condition).limit(1)).mappings().first()
    if row is None:
        return None
    return Secret(
        **row, hash="", state="revoked", supplied=False, run_id="", not_after=row["created_at"]
    )


def _has_ended(before: datetime) -> ColumnElement[bool]:
    """Return the condition on a revoked secret: by its own end, its key's, or never in use at all."""
    never_dated = and_(secrets.c.not_after.is_(None), secrets.c.created_at < before)
    ended = or_(secrets.c.not_after < before, keys.c.deleted_at < before, never_dated)
    return and_(secrets.c.state == "revoked", ended)
