"""Ask for secrets, and for what is known of a presented key string."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Select,
    delete,
    insert,
    or_,
    select,
    update,
)

from keyctl.db.schema import REVISION
from keyctl.db.tables import keys, organizations, recorders, secrets, teams, users
from keyctl.records import Key, Organization, Secret, Team, User


@dataclass(frozen=True, slots=True)
class Presented:
    """What the database knows about a presented key string."""

    secret: Secret
    key: Key
    team: Team | None
    organization: Organization | None
    user: User | None


_PARTS: Final = (secrets, keys, teams, organizations, users)


@dataclass(frozen=True, slots=True)
class _Reading:
    """How to read presented key strings from a schema: the query, and each table's columns."""

    query: Select[Any]
    names: list[list[str]]


@cache
def _reading(revision: str) -> _Reading:
    parts = [
        [column for column in table.c if column.info.get("since", "") <= revision]
        for table in _PARTS
    ]
    query = (
        select(*(column for part in parts for column in part))
        .join(keys, keys.c.id == secrets.c.key_id)
        .outerjoin(teams, teams.c.id == keys.c.team_id)
        .outerjoin(organizations, organizations.c.id == keys.c.organization_id)
        .outerjoin(users, users.c.id == keys.c.user_id)
    )
    return _Reading(query, [[column.name for column in part] for part in parts])


def _presented(row: Sequence[Any], parts: Sequence[Sequence[str]]) -> Presented:
    # By position: a gateway reads many of these rows, and names cost more than all the rest.
    values = iter(row)
    secret, key, team, organization, user = (
        dict(zip(names, islice(values, len(names)), strict=True)) for names in parts
    )
    return Presented(
        Secret(**secret),
        Key.of(key),
        Team.of(team) if team["id"] is not None else None,
        Organization.of(organization) if organization["id"] is not None else None,
        User.of(user) if user["id"] is not None else None,
    )


def find_presented(connection: Connection, lookup: str) -> Presented | None:
    """Return the secret with this lookup, its key and the key's owners, in one indexed query."""
    reading = _reading(connection.info[REVISION])
    row = connection.execute(reading.query.where(secrets.c.lookup == lookup)).first()
    return None if row is None else _presented(row, reading.names)


def find_all_presented(
    connection: Connection, lookups: Sequence[str], *, recorder: str | None
) -> tuple[dict[str, Presented], int | None]:
    """Return what `find_presented` does, by lookup, in one query.

    And, as of the same instant, the number of the last batch of usage that *recorder* has written:
    what it recorded up to there is in the spend that was read.
    """
    reading = _reading(connection.info[REVISION])
    query = reading.query.where(secrets.c.lookup.in_(lookups))
    if recorder is not None:
        mine = select(recorders.c.batch).where(recorders.c.id == recorder).scalar_subquery()
        query = query.add_columns(mine.label("recorded_batch"))
    rows = connection.execute(query).all()
    batch: int | None = rows[0].recorded_batch if rows and recorder is not None else None
    found = [_presented(row, reading.names) for row in rows]
    return {presented.secret.lookup: presented for presented in found}, batch


def secrets_of(connection: Connection, *key_ids: str) -> list[Secret]:
    """Return the secrets of these keys, the newest first."""
    query = (
        select(secrets)
        .where(secrets.c.key_id.in_(key_ids))
        .order_by(secrets.c.created_at.desc(), secrets.c.id)
    )
    return [Secret(**row) for row in connection.execute(query).mappings()]


def find_secret(connection: Connection, secret_id: str) -> Secret | None:
    """Return the secret with this id."""
    row = connection.execute(select(secrets).where(secrets.c.id == secret_id)).mappings().first()
    return Secret(**row) if row else None


def secrets_by_id(connection: Connection, secret_ids: Sequence[str]) -> dict[str, Secret]:
    """Return those of these secrets that exist, by id."""
    query = select(secrets).where(secrets.c.id.in_(secret_ids))
    return {row["id"]: Secret(**row) for row in connection.execute(query).mappings()}


def secrets_past_grace(connection: Connection, *, now: datetime, limit: int) -> list[Secret]:
    """Return retiring secrets that have ended by *now*, locked; what others have is passed over."""
    query = (
        select(secrets)
        .where(secrets.c.state == "retiring", secrets.c.not_after <= now)
        .order_by(secrets.c.not_after)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Secret(**row) for row in connection.execute(query).mappings()]


def find_secret_by_lookup(connection: Connection, lookup: str) -> Secret | None:
    """Return the secret with this lookup."""
    row = connection.execute(select(secrets).where(secrets.c.lookup == lookup)).mappings().first()
    return Secret(**row) if row else None


def secrets_by_lookup(connection: Connection, lookups: Sequence[str]) -> dict[str, Secret]:
    """Return the secrets that have one of these lookups, by lookup."""
    query = select(secrets).where(secrets.c.lookup.in_(lookups))
    return {row["lookup"]: Secret(**row) for row in connection.execute(query).mappings()}


def insert_secret(connection: Connection, *records: dict[str, Any]) -> None:
    """Write new secrets, given as column values."""
    connection.execute(insert(secrets), list(records))


def update_secret(connection: Connection, secret_id: str, **values: Any) -> None:
    """Set columns of a secret."""
    connection.execute(update(secrets).where(secrets.c.id == secret_id).values(**values))


def bound_secrets(connection: Connection, key: Key) -> None:
    """Let the secrets of a key end when it does: active ones then, retiring ones not later."""
    mine = secrets.c.key_id == key.id
    active = update(secrets).where(mine, secrets.c.state.in_(("active", "staged")))
    if key.confirmed_at is not None:
        connection.execute(active.values(not_after=key.expires))
    if key.expires is not None:
        connection.execute(
            update(secrets)
            .where(mine, secrets.c.state == "retiring", secrets.c.not_after > key.expires)
            .values(not_after=key.expires)
        )


def retire_abandoned(connection: Connection, key_id: str, *, run_id: str) -> None:
    """Let what dead runs staged for a key end when it would have: no rotation lengthens its life."""
    connection.execute(
        update(secrets)
        .where(secrets.c.key_id == key_id, secrets.c.state == "staged", secrets.c.run_id != run_id)
        .values(state="retiring", run_id=run_id)
    )


def delete_secret(connection: Connection, secret_id: str) -> None:
    """Remove a secret that never was anybody's."""
    connection.execute(delete(secrets).where(secrets.c.id == secret_id))


def revoke_secrets(connection: Connection, key_id: str) -> None:
    """Revoke every secret of a key."""
    connection.execute(
        update(secrets)
        .where(secrets.c.key_id == key_id, secrets.c.state != "revoked")
        .values(state="revoked")
    )


def secrets_that_lost_their_right(connection: Connection) -> Iterator[tuple[Secret, Key]]:
    """Yield secrets from before `administers`, with the keys of people and teams that they act for."""
    query = (
        select(secrets, *(column.label(f"of_{column.name}") for column in keys.c))
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
    for row in connection.execute(query, execution_options={"yield_per": 500}).mappings():
        yield (
            Secret(**{column.name: row[column.name] for column in secrets.c}),
            Key.of({column.name: row[f"of_{column.name}"] for column in keys.c}),
        )
