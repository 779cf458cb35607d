"""Ask for secrets, and for what is known of a presented key string."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from keyctl.db import rows, written
from keyctl.db.queries.pruning import find_ended
from keyctl.db.schema import REVISION
from keyctl.db.tables import (
    budgets,
    ended_secrets,
    keys,
    organizations,
    recorders,
    secrets,
    team_members,
    teams,
    users,
)
from keyctl.errors import UnreadableRowError
from keyctl.purses import budgets as budgets_of
from keyctl.records import (
    ForeignValueError,
    Key,
    Member,
    Organization,
    Presented,
    Secret,
    Team,
    Tier,
    User,
)

_PAGE: Final = 500
_PARTS: Final = (secrets, keys, teams, organizations, users, team_members)
# The revision from which on members have limits, and tiers are there.
_TIERS_SINCE: Final = "1_0006"
# What the database fills in where a new secret's row does not say.
_UNSAID: Final = {
    column.name: False if isinstance(column.type, Boolean) else None for column in secrets.c
}


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
        .outerjoin(
            team_members,
            (team_members.c.team_id == keys.c.team_id) & (team_members.c.user_id == keys.c.user_id),
        )
    )
    return _Reading(query, [[column.name for column in part] for part in parts])


def _presented(row: Sequence[Any], parts: Sequence[Sequence[str]]) -> Presented:
    # By position: a gateway reads many of these rows, and names cost more than all the rest.
    values = iter(row)
    secret, key, team, organization, user, member = (
        dict(zip(names, islice(values, len(names)), strict=True)) for names in parts
    )
    return Presented(
        Secret.of(secret),
        Key.of(key),
        Team.of(team) if team["id"] is not None else None,
        Organization.of(organization) if organization["id"] is not None else None,
        User.of(user) if user["id"] is not None else None,
        Member.of(member) if member["team_id"] is not None else None,
    )


def _completed(
    connection: Connection, found: Sequence[Presented]
) -> list[Presented | UnreadableRowError]:
    """Return what was found with the tiers that it names; in the place of what cannot be read its error."""
    named = {tier_id for presented in found for tier_id in _tiers_of(presented)}
    tiers: dict[str, Tier | UnreadableRowError] = {}
    if named and connection.info[REVISION] >= _TIERS_SINCE:
        query = select(budgets).where(budgets.c.id.in_(named), budgets.c.deleted_at.is_(None))
        for tier in rows.each(connection, query, budgets, Tier.of):
            tiers[tier.object_id if isinstance(tier, UnreadableRowError) else tier.id] = tier
    return [_complete(presented, tiers) for presented in found]


def _complete(
    found: Presented, tiers: Mapping[str, Tier | UnreadableRowError]
) -> Presented | UnreadableRowError:
    own: dict[str, Tier] = {}
    for tier_id in _tiers_of(found):
        tier = tiers.get(tier_id)
        if isinstance(tier, UnreadableRowError):
            return tier
        if tier is not None:
            own[tier_id] = tier
    whole = replace(found, tiers=own) if own else found
    try:
        budgets_of(whole)
    except ForeignValueError as error:
        return rows.unreadable(keys, found.key.columns(), [error.column])
    return whole


def _tiers_of(found: Presented) -> Iterator[str]:
    for holder in (found.key, found.user, found.member):
        if holder is not None and holder.budget_id is not None:
            yield holder.budget_id


def find_presented(connection: Connection, lookup: str) -> Presented | None:
    """Return the secret with this lookup, its key and the key's owners, in one indexed query.

    Raises:
        UnreadableRowError: One of them cannot be read.
    """
    reading = _reading(connection.info[REVISION])
    try:
        row = connection.execute(reading.query.where(secrets.c.lookup == lookup)).first()
        found = None if row is None else _presented(row, reading.names)
    except (DBAPIError, ValueError, TypeError):
        _find_spoiled(connection, lookup)
        raise
    if found is None:
        return None
    whole = _completed(connection, [found])[0]
    if isinstance(whole, UnreadableRowError):
        raise whole
    return whole


def _find_spoiled(connection: Connection, lookup: str) -> None:
    """Look for what cannot be read of a secret, its key and the key's owners, each by itself."""
    secret = find_secret_by_lookup(connection, lookup)
    if secret is None:
        return
    key = rows.one(connection, select(keys).where(keys.c.id == secret.key_id), keys, Key.of)
    if key is None:
        return
    for table, kind, name in (
        (teams, Team, key.team_id),
        (organizations, Organization, key.organization_id),
        (users, User, key.user_id),
    ):
        rows.one(connection, select(table).where(table.c.id == name), table, kind.of)
    member = select(team_members).where(
        team_members.c.team_id == key.team_id, team_members.c.user_id == key.user_id
    )
    rows.one(connection, member, team_members, Member.of)


def find_presented_secret(connection: Connection, secret_id: str) -> Presented | None:
    """Return the secret with this id, its key and the key's owners.

    Raises:
        UnreadableRowError: One of them cannot be read.
    """
    query = select(secrets.c.lookup).where(secrets.c.id == secret_id)
    lookup = connection.execute(query).scalar()
    return None if lookup is None else find_presented(connection, lookup)


def find_all_presented(
    connection: Connection, lookups: Sequence[str], *, recorder: str | None
) -> tuple[dict[str, Presented | UnreadableRowError], int | None]:
    """Return what `find_presented` does, by lookup, in one query; an error where that raises it.

    Where tiers are named it is one query more.

    And, as of the same instant, the number of the last batch of usage that *recorder* has written:
    what it recorded up to there is in the spend that was read.
    """
    reading = _reading(connection.info[REVISION])
    query = reading.query.where(secrets.c.lookup.in_(lookups))
    if recorder is not None:
        mine = select(recorders.c.batch).where(recorders.c.id == recorder).scalar_subquery()
        query = query.add_columns(mine.label("recorded_batch"))
    try:
        lines = connection.execute(query).all()
        found = [_presented(line, reading.names) for line in lines]
    except (DBAPIError, ValueError, TypeError):
        spoiled = _spoiled(connection, lookups)
        if not spoiled:
            raise
        rest = [lookup for lookup in lookups if lookup not in spoiled]
        others, batch = find_all_presented(connection, rest, recorder=recorder)
        return {**others, **spoiled}, batch
    batch = lines[0].recorded_batch if lines and recorder is not None else None
    return {
        presented.secret.lookup: whole
        for presented, whole in zip(found, _completed(connection, found), strict=True)
    }, batch


def _spoiled(
    connection: Connection, lookups: Sequence[str]
) -> dict[str, Presented | UnreadableRowError]:
    errors: dict[str, Presented | UnreadableRowError] = {}
    for lookup in lookups:
        try:
            find_presented(connection, lookup)
        except UnreadableRowError as error:
            errors[lookup] = error
    return errors


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
    """Return the secrets that have one of these lookups, by lookup."""
    query = select(secrets).where(secrets.c.lookup.in_(lookups))
    found = rows.every(connection, query, secrets, Secret.of)
    return {secret.lookup: secret for secret in found}


def insert_secret(connection: Connection, *records: dict[str, Any]) -> None:
    """Write new secrets, given as column values."""
    connection.execute(insert(secrets), list(records))
    for record in records:
        written.note(connection, record["key_id"], record["id"], {**_UNSAID, **record})


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
    """Let what dead runs staged for a key end when it would have: no rotation lengthens its life."""
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
    lost = iter([item for item in found if isinstance(item, Secret)])
    while page := list(islice(lost, _PAGE)):
        wanted = select(keys).where(keys.c.id.in_({secret.key_id for secret in page}))
        known = rows.each(connection, wanted, keys, Key.of)
        by_id = {key.id: key for key in known if isinstance(key, Key)}
        yield from ((item, by_id[item.key_id]) for item in page if item.key_id in by_id)


def count_issued(connection: Connection, key_id: str, *, since: datetime | None) -> int:
    """Return how many keys a caller's key has made that live, or were deleted after *since* or ever."""
    made = select(secrets.c.key_id).where(secrets.c.issued_with == key_id)
    ended: ColumnElement[bool] = keys.c.deleted_at.is_not(None)
    if since is not None:
        ended = and_(ended, keys.c.deleted_at > since)
    query = (
        select(func.count())
        .select_from(keys)
        .where(
            keys.c.id.in_(made),
            keys.c.created_by == f"key:{key_id}",
            # What was archived before it was confirmed nobody ever had.
            or_(keys.c.deleted_at.is_(None), and_(ended, keys.c.confirmed_at.is_not(None))),
        )
    )
    return connection.execute(query).scalar_one()


def keys_left_by(connection: Connection, user_id: str, **where: str) -> list[Key]:
    """Return the live keys of a user, and the service accounts that a secret which they took acts for.

    *where* narrows it to a team or an organization.  They are locked.
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
    return rows.every(connection, query.order_by(keys.c.id).with_for_update(), keys, Key.of)


def let_administer(connection: Connection, secret_ids: Sequence[str], *, batch: int = 500) -> None:
    """Let these secrets be used as callers."""
    for start in range(0, len(secret_ids), batch):
        chosen = secrets.c.id.in_(secret_ids[start : start + batch])
        _set(connection, chosen, administers=True)
