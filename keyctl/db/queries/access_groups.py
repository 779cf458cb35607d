"""Keep groups of models under the names that keys and their owners use for them."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from keyctl.db.schema import GROUPED, REVISION
from keyctl.db.tables import access_groups


def find_groups(connection: Connection) -> dict[str, list[str]]:
    """Return the models of every group, by its name; none in a database from before there were any."""
    if str(connection.info.get(REVISION)) < GROUPED:
        return {}
    query = select(access_groups.c.id, access_groups.c.models)
    return {row.id: row.models for row in connection.execute(query)}


def write_group(
    connection: Connection,
    group_id: str,
    models: Sequence[str],
    *,
    known: Mapping[str, Sequence[str]],
    now: datetime,
) -> None:
    """Write the models of a group, a new one or one that is *known*."""
    values = {"models": list(models), "updated_at": now}
    if group_id in known:
        connection.execute(
            update(access_groups).where(access_groups.c.id == group_id).values(**values)
        )
    else:
        connection.execute(insert(access_groups).values(id=group_id, created_at=now, **values))
