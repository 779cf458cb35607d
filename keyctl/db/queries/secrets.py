"""Ask for secrets and change them; each change is noted for its audit event."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from keyctl.db import rows, written
from keyctl.db.queries.pruning import find_all_ended, find_ended
from keyctl.db.queries.visible import Visible, is_visible
from keyctl.db.tables import (
    ended_secrets,
    keys,
    secrets,
)
from keyctl.errors import UnreadableRowError
from keyctl.portions import portions
from keyctl.records import (
    Key,
    Secret,
)

_PAGE: Final = 500


def secrets_of(connection: Connection, *key_ids: str) -> list[Secret]:
    """Return the secrets of these keys, the newest first.

    Raises:
        UnreadableRowError: One of them cannot be read.
    """
    return rows.every(connection, _of_keys(key_ids), secrets, Secret.of)


def readable_secrets_of(connection: Connection, *key_ids: str) -> list[Secret | UnreadableRowError]:
    """Return what `secrets_of` does, in the place of one that cannot be read its error."""
    return rows.each(connection, _of_keys(key_ids), secrets, Secret.of)


def _of_keys(key_ids: Sequence[str]) -> Select[Any]:
    return (
        select(secrets)
        .where(secrets.c.key_id.in_(key_ids))
        .order_by(secrets.c.created_at.desc(), secrets.c.id)
    )


def find_secret(connection: Connection, secret_id: str) -> Secret | None:
    """Return the secret with this id, also one that ended long ago."""
    query = select(secrets).where(secrets.c.id == secret_id)
    found = rows.one(connection, query, secrets, Secret.of)
    return found or find_ended(connection, ended_secrets.c.id == secret_id)


def secrets_by_id(connection: Connection, secret_ids: Sequence[str]) -> dict[str, Secret]:
    """Return those of these secrets that exist, by id."""
    query = select(secrets).where(secrets.c.id.in_(secret_ids))
    found = rows.every(connection, query, secrets, Secret.of)
    return {secret.id: secret for secret in found}


def secrets_past_grace(connection: Connection, *, now: datetime, limit: int) -> list[Secret]:
    """Return retiring secrets that have ended by *now*, locked; what others have is passed over.

    So is what cannot be read: it must not keep others from being written.
    """
    query = (
        select(secrets)
        .where(secrets.c.state == "retiring", secrets.c.not_after <= now)
        .order_by(secrets.c.not_after)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = rows.each(connection, query, secrets, Secret.of)
    return [item for item in found if isinstance(item, Secret)]


def find_secret_by_lookup(connection: Connection, lookup: str) -> Secret | None:
    """Return the secret with this lookup, also one that ended long ago."""
    query = select(secrets).where(secrets.c.lookup == lookup)
    found = rows.one(connection, query, secrets, Secret.of)
    return found or find_ended(connection, ended_secrets.c.lookup == lookup)


def secrets_by_lookup(connection: Connection, lookups: Sequence[str]) -> dict[str, Secret]:
    """Return the secrets that have one of these lookups, by lookup, also those that ended long ago."""
    query = select(secrets).where(secrets.c.lookup.in_(lookups))
    found = {item.lookup: item for item in rows.every(connection, query, secrets, Secret.of)}
    ended = find_all_ended(connection, [item for item in lookups if item not in found])
    return {**{secret.lookup: secret for secret in ended}, **found}


def insert_secret(connection: Connection, *records: Secret) -> None:
    """Write new secrets."""
    given = [record.columns() for record in records]
    connection.execute(insert(secrets), given)
    for row in given:
        written.note(connection, row["key_id"], row["id"], row)


def update_secret(connection: Connection, secret_id: str, **values: Any) -> None:
    """Set columns of a secret."""
    _set(connection, secrets.c.id == secret_id, **values)


def _set(connection: Connection, *where: ColumnElement[bool], **values: Any) -> None:
    """Set columns of the secrets that fit, and note which they were."""
    changed = update(secrets).where(*where).values(**values)
    for row in connection.execute(changed.returning(secrets.c.key_id, secrets.c.id)).all():
        written.note(connection, row.key_id, row.id, values)


def bound_secrets(connection: Connection, key: Key) -> None:
    """Let the secrets of a key end when it does: active ones then, retiring ones not later."""
    mine = secrets.c.key_id == key.id
    if key.confirmed_at is not None:
        _set(connection, mine, secrets.c.state.in_(("active", "staged")), not_after=key.expires)
    if key.expires is not None:
        late = secrets.c.not_after > key.expires
        _set(connection, mine, secrets.c.state == "retiring", late, not_after=key.expires)


def retire_abandoned(connection: Connection, key_id: str, *, run_id: str) -> None:
    """Make what dead runs staged for a key retiring, each secret with the end that it had: a rotation never extends it."""
    mine = secrets.c.key_id == key_id
    others = (mine, secrets.c.state == "staged", secrets.c.run_id != run_id)
    _set(connection, *others, state="retiring", run_id=run_id)


def delete_secret(connection: Connection, secret_id: str) -> None:
    """Remove a secret that never was anybody's."""
    gone = delete(secrets).where(secrets.c.id == secret_id).returning(secrets.c.key_id)
    for row in connection.execute(gone).all():
        written.note_removal(connection, row.key_id, secret_id)


def revoke_secrets(connection: Connection, *key_ids: str) -> None:
    """Revoke every secret of these keys."""
    _set(connection, secrets.c.key_id.in_(key_ids), secrets.c.state != "revoked", state="revoked")


def secrets_that_lost_their_right(connection: Connection) -> Iterator[tuple[Secret, Key]]:
    """Yield secrets from before `administers`, with the keys of people and teams that they act for.

    What cannot be read is passed over.
    """
    query = (
        select(secrets)
        .join(keys, keys.c.id == secrets.c.key_id)
        .where(
            secrets.c.issued_by.is_(None),
            secrets.c.administers.is_(False),
            secrets.c.state != "revoked",
            keys.c.deleted_at.is_(None),
            or_(keys.c.user_id.is_not(None), keys.c.service_account),
        )
        .order_by(secrets.c.key_id, secrets.c.id)
    )
    found = rows.each(connection, query, secrets, Secret.of)
    lost = [item for item in found if isinstance(item, Secret)]
    for page in portions(lost, _PAGE):
        wanted = select(keys).where(keys.c.id.in_({secret.key_id for secret in page}))
        known = rows.each(connection, wanted, keys, Key.of)
        by_id = {key.id: key for key in known if isinstance(key, Key)}
        yield from ((item, by_id[item.key_id]) for item in page if item.key_id in by_id)


def count_issued(connection: Connection, key_id: str, *, since: datetime | None) -> int:
    """Return how many keys a caller's key has made: those that live, and those deleted after *since* (None: all deleted ones)."""
    ended: ColumnElement[bool] = keys.c.deleted_at.is_not(None)
    if since is not None:
        ended = and_(ended, keys.c.deleted_at > since)
    query = (
        select(func.count())
        .select_from(keys)
        .where(
            # By the key's own row: its first secret may have left long ago.
            text("created_by LIKE 'key:%'"),  # what the index holds
            keys.c.created_by == f"key:{key_id}",
            # What was archived before it was confirmed nobody ever had.
            or_(keys.c.deleted_at.is_(None), and_(ended, keys.c.confirmed_at.is_not(None))),
        )
    )
    return connection.execute(query).scalar_one()


def count_working_issued(
    connection: Connection, key_ids: Sequence[str], visible: Visible | None, *, now: datetime
) -> dict[str, int]:
    """Return for each of these keys how many others with a secret that was taken with it still work.

    Only keys that are *visible* count.  A key without such others is left out.
    """
    query = (
        select(secrets.c.issued_with, func.count(keys.c.id.distinct()))
        .join(keys, keys.c.id == secrets.c.key_id)
        .where(
            secrets.c.issued_with.is_not(None),  # what the index holds
            secrets.c.issued_with != keys.c.id,
            secrets.c.state != "revoked",
            or_(secrets.c.not_after.is_(None), secrets.c.not_after > now),
            keys.c.deleted_at.is_(None),
            keys.c.blocked.is_(False),
            or_(keys.c.expires.is_(None), keys.c.expires > now),
        )
        .group_by(secrets.c.issued_with)
    )
    if visible is not None:
        query = query.where(is_visible(visible))
    found: dict[str, int] = {}
    for some in portions(key_ids, _PAGE):
        rows_of = connection.execute(query.where(secrets.c.issued_with.in_(some)))
        found.update((row[0], row[1]) for row in rows_of)
    return found


def keys_left_by(
    connection: Connection, user_id: str, *, lock: bool = True, **where: str
) -> list[Key]:
    """Return the live keys of a user, and the service accounts whose administering secrets the user took.

    *where* narrows it to a team or an organization.
    """
    issued = select(secrets.c.key_id).where(
        secrets.c.issued_by == f"user:{user_id}",
        secrets.c.issued_with.is_not(None),
        secrets.c.administers,
        secrets.c.state != "revoked",
    )
    query = select(keys).where(
        keys.c.deleted_at.is_(None),
        or_(keys.c.user_id == user_id, and_(keys.c.service_account, keys.c.id.in_(issued))),
        *(keys.c[name] == value for name, value in where.items()),
    )
    query = query.order_by(keys.c.id)
    return rows.every(connection, query.with_for_update() if lock else query, keys, Key.of)


def keys_kept_for(connection: Connection, user_id: str) -> list[Key]:
    """Return the keys of a user that would work if the user were there: neither deleted nor blocked."""
    query = select(keys).where(
        keys.c.user_id == user_id, keys.c.deleted_at.is_(None), keys.c.blocked.is_(False)
    )
    return rows.every(connection, query.order_by(keys.c.id), keys, Key.of)


def let_administer(connection: Connection, secret_ids: Sequence[str], *, batch: int = 500) -> None:
    """Let these secrets be used as callers."""
    for some in portions(secret_ids, batch):
        _set(connection, secrets.c.id.in_(some), administers=True)
