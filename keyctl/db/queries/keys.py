"""Ask for single keys."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Text,
    bindparam,
    insert,
    or_,
    select,
    type_coerce,
    update,
)

from keyctl.db import rows, written
from keyctl.db.tables import claims, keys, secrets
from keyctl.portions import portions
from keyctl.records import DEFAULT_ROUTES, Key


def find_key(connection: Connection, key_id: str, *, lock: bool = False) -> Key | None:
    """Return the key with this id, archived or not."""
    query = select(keys).where(keys.c.id == key_id)
    return rows.one(connection, query.with_for_update() if lock else query, keys, Key.of)


def find_keys(
    connection: Connection, key_ids: Sequence[str], *, lock: bool = False, batch: int = 500
) -> list[Key]:
    """Return the keys with these ids, archived or not, in their order, asked for in batches."""
    found: list[Key] = []
    for some in portions(key_ids, batch):
        query = select(keys).where(keys.c.id.in_(some)).order_by(keys.c.id)
        found += rows.every(connection, query.with_for_update() if lock else query, keys, Key.of)
    return found


def lock_keys(connection: Connection, key_ids: Sequence[str], *, batch: int = 500) -> None:
    """Lock these keys, in the order that everybody locks several keys in."""
    for some in portions(sorted(key_ids), batch):
        query = select(keys.c.id).where(keys.c.id.in_(some))
        connection.execute(query.order_by(keys.c.id).with_for_update()).all()


def find_key_by_alias(connection: Connection, alias: str, *, lock: bool = False) -> Key | None:
    """Return the live key with this alias."""
    query = select(keys).where(keys.c.key_alias == alias, keys.c.deleted_at.is_(None))
    return rows.one(connection, query.with_for_update() if lock else query, keys, Key.of)


def find_last_deleted(connection: Connection, alias: str) -> Key | None:
    """Return the deleted key that had this alias last."""
    query = select(keys).where(keys.c.key_alias == alias, keys.c.deleted_at.is_not(None))
    last = query.order_by(keys.c.deleted_at.desc(), keys.c.id).limit(1)
    return rows.one(connection, last, keys, Key.of)


def ids_by_alias(connection: Connection, alias: str) -> list[str]:
    """Return the ids of every key that has this alias, archived or not."""
    query = select(keys.c.id).where(keys.c.key_alias == alias).order_by(keys.c.created_at)
    return list(connection.execute(query).scalars())


def insert_key(connection: Connection, *records: Key) -> None:
    """Write new keys."""
    connection.execute(insert(keys), [record.columns() for record in records])


def insert_like(
    connection: Connection, record: Key, others: Sequence[tuple[str, str | None]]
) -> None:
    """Write a new key, and *others* that differ in id and alias only: the database copies the rest."""
    insert_key(connection, record)
    if not others:
        return
    own = ("id", "key_alias")
    same = [column for column in keys.c if column.name not in own]
    source = select(
        bindparam("new_id", type_=keys.c.id.type),
        bindparam("new_alias", type_=keys.c.key_alias.type),
        *same,
    ).where(keys.c.id == record.id)
    copy = insert(keys).from_select([*own, *(column.name for column in same)], source)
    connection.execute(copy, [{"new_id": key_id, "new_alias": alias} for key_id, alias in others])


def keys_by_alias(connection: Connection, aliases: Sequence[str]) -> list[Key]:
    """Return the live keys that have one of these aliases, locked."""
    query = select(keys).where(keys.c.key_alias.in_(aliases), keys.c.deleted_at.is_(None))
    return rows.every(connection, query.with_for_update(), keys, Key.of)


def keys_of_team(connection: Connection, team_id: str) -> Iterator[Key]:
    """Yield the live keys of a team by id, locked, without holding them all."""
    after = ""
    while True:
        query = select(keys).where(
            keys.c.team_id == team_id, keys.c.deleted_at.is_(None), keys.c.id > after
        )
        ordered = query.order_by(keys.c.id).limit(1000).with_for_update()
        page = rows.every(connection, ordered, keys, Key.of)
        yield from page
        if len(page) < 1000:
            return
        after = page[-1].id


def managed_keys(connection: Connection, fleets: Collection[str]) -> Iterator[Key]:
    """Yield the live keys that files of these fleets described, by id, without holding them all."""
    after = ""
    while True:
        query = select(keys).where(
            keys.c.managed_by.in_(fleets), keys.c.deleted_at.is_(None), keys.c.id > after
        )
        page = rows.every(connection, query.order_by(keys.c.id).limit(1000), keys, Key.of)
        yield from page
        if len(page) < 1000:
            return
        after = page[-1].id


def keys_named(
    connection: Connection, aliases: Collection[str], *, batch: int = 500
) -> Iterator[Key]:
    """Yield the live keys that have one of these aliases, asked for in batches."""
    for some in portions(sorted(aliases), batch):
        query = select(keys).where(keys.c.key_alias.in_(some), keys.c.deleted_at.is_(None))
        yield from rows.every(connection, query, keys, Key.of)


def update_keys(connection: Connection, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set columns of many keys, by id: one statement for all that set the same columns."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for key_id, values in changes.items():
        row = {f"new_{name}": value for name, value in values.items()}
        alike.setdefault(tuple(values), []).append({"changed_id": key_id, **row})
    for names, changed in alike.items():
        values = {name: bindparam(f"new_{name}", type_=keys.c[name].type) for name in names}
        query = update(keys).where(keys.c.id == bindparam("changed_id"))
        connection.execute(query.values(values), changed)


def confirm_keys(
    connection: Connection,
    run_id: str,
    key_ids: Collection[str],
    *,
    at: datetime,
    batch: int = 500,
) -> set[str]:
    """Make the secret active that this run staged for each of these keys, if its claim is there.

    Returns the ids of the keys that were confirmed.  It asks in batches.
    """
    found: set[str] = set()
    for some in portions(sorted(key_ids), batch):
        found |= _confirm_some(connection, run_id, some, at=at)
    return found


def _confirm_some(
    connection: Connection, run_id: str, key_ids: Sequence[str], *, at: datetime
) -> set[str]:
    claimed = select(claims.c.key_id).where(claims.c.run_id == run_id, claims.c.key_id.in_(key_ids))
    mine = (secrets.c.run_id == run_id, secrets.c.key_id.in_(claimed))
    expires = select(keys.c.expires).where(keys.c.id == secrets.c.key_id).scalar_subquery()
    confirmed = (
        update(secrets)
        .where(*mine, secrets.c.state == "staged")
        .values(state="active", not_after=expires)
        .returning(secrets.c.key_id, secrets.c.id, secrets.c.not_after)
    )
    found = connection.execute(confirmed).all()
    for row in found:
        values = {"state": "active", "not_after": row.not_after}
        written.note(connection, row.key_id, row.id, values)
    active = select(secrets.c.key_id).where(*mine, secrets.c.state == "active")
    connection.execute(
        update(keys).where(keys.c.id.in_(active)).values(confirmed_at=at, updated_at=at)
    )
    return {row.key_id for row in found}


def update_key(connection: Connection, key_id: str, **values: Any) -> None:
    """Set columns of a key."""
    connection.execute(update(keys).where(keys.c.id == key_id).values(**values))


def pending_keys(connection: Connection, *, dead_at: datetime, limit: int) -> list[Key]:
    """Return pending keys whose claim is gone or past its deadline at *dead_at*.

    One that cannot be read is left: it must not keep others from being written.
    """
    query = (
        select(keys)
        .outerjoin(claims, claims.c.key_id == keys.c.id)
        .where(
            keys.c.confirmed_at.is_(None),
            keys.c.deleted_at.is_(None),
            or_(claims.c.deadline_at.is_(None), claims.c.deadline_at <= dead_at),
        )
        .limit(limit)
        .with_for_update(of=keys, skip_locked=True)
    )
    found = rows.each(connection, query, keys, Key.of)
    return [item for item in found if isinstance(item, Key)]


def unfinished_keys(connection: Connection) -> list[Key]:
    """Return live keys with a secret that is only staged, and those whose sink is in doubt, if they can be read."""
    staged = select(secrets.c.key_id).where(secrets.c.state == "staged")
    query = (
        select(keys)
        .where(
            keys.c.deleted_at.is_(None),
            or_(keys.c.id.in_(staged), keys.c.sink_suspect_at.is_not(None)),
        )
        .order_by(keys.c.id)
    )
    found = rows.each(connection, query, keys, Key.of)
    return [item for item in found if isinstance(item, Key)]


def keys_with_earlier_routes(connection: Connection) -> list[tuple[str, str | None]]:
    """Return the id and alias of live keys that name no routes and have no default written down."""
    query = (
        select(keys.c.id, keys.c.key_alias)
        .where(
            keys.c.deleted_at.is_(None),
            keys.c.allowed_routes == [],
            type_coerce(keys.c.gateway, Text).not_like(f'%"{DEFAULT_ROUTES}"%'),
        )
        .order_by(keys.c.id)
    )
    return [(row.id, row.key_alias) for row in connection.execute(query)]
