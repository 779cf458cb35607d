"""Questions about keys, secrets, claims and request ids, named after what the services ask."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from keyctl.db.tables import claims, keys, organizations, request_ids, secrets, teams, users
from keyctl.records import Claim, Key, Organization, Principal, Secret, Team, User

# --- keys


def find_key(connection: Connection, key_id: str, *, lock: bool = False) -> Key | None:
    """Return the key with this id, archived or not."""
    query = select(keys).where(keys.c.id == key_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return Key.of(row) if row else None


def find_key_by_alias(connection: Connection, alias: str, *, lock: bool = False) -> Key | None:
    """Return the live key with this alias."""
    query = select(keys).where(keys.c.key_alias == alias, keys.c.deleted_at.is_(None))
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return Key.of(row) if row else None


def insert_key(connection: Connection, *records: Key) -> None:
    """Write new keys."""
    connection.execute(insert(keys), [record.columns() for record in records])


def insert_like(connection: Connection, records: Sequence[Key], *, uniform: bool) -> None:
    """Write new keys; *uniform* ones differ in id and alias only, and the database copies the rest."""
    if not uniform:
        insert_key(connection, *records)
        return
    insert_key(connection, records[0])
    if len(records) == 1:
        return
    own = ("id", "key_alias")
    same = [column for column in keys.c if column.name not in own]
    source = select(
        bindparam("new_id", type_=keys.c.id.type),
        bindparam("new_alias", type_=keys.c.key_alias.type),
        *same,
    ).where(keys.c.id == records[0].id)
    copy = insert(keys).from_select([*own, *(column.name for column in same)], source)
    connection.execute(
        copy, [{"new_id": key.id, "new_alias": key.key_alias} for key in records[1:]]
    )


def keys_by_alias(connection: Connection, aliases: Sequence[str]) -> list[Key]:
    """Return the live keys that have one of these aliases, locked."""
    query = select(keys).where(keys.c.key_alias.in_(aliases), keys.c.deleted_at.is_(None))
    return [Key.of(row) for row in connection.execute(query.with_for_update()).mappings()]


def confirm_keys(connection: Connection, run_id: str, *, at: datetime) -> None:
    """Make every secret that this run staged the active one of its key."""
    mine = select(secrets.c.key_id).where(secrets.c.run_id == run_id, secrets.c.state == "staged")
    connection.execute(
        update(keys).where(keys.c.id.in_(mine)).values(confirmed_at=at, updated_at=at)
    )
    expires = select(keys.c.expires).where(keys.c.id == secrets.c.key_id).scalar_subquery()
    connection.execute(
        update(secrets)
        .where(secrets.c.run_id == run_id, secrets.c.state == "staged")
        .values(state="active", not_after=expires)
    )


def update_key(connection: Connection, key_id: str, **values: Any) -> None:
    """Set columns of a key."""
    connection.execute(update(keys).where(keys.c.id == key_id).values(**values))


def pending_keys(connection: Connection, *, dead_at: datetime, limit: int) -> list[Key]:
    """Return pending keys whose claim is gone or past its deadline at *dead_at*."""
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
    return [Key.of(row) for row in connection.execute(query).mappings()]


def unfinished_keys(connection: Connection) -> list[Key]:
    """Return live keys with a secret that is only staged, and those whose sink is in doubt."""
    staged = select(secrets.c.key_id).where(secrets.c.state == "staged")
    query = (
        select(keys)
        .where(
            keys.c.deleted_at.is_(None),
            or_(keys.c.id.in_(staged), keys.c.sink_suspect_at.is_not(None)),
        )
        .order_by(keys.c.id)
    )
    return [Key.of(row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter:
    """Which keys to list; every condition must hold.  `state` None means all but deleted ones."""

    team_id: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    key_alias: str | None = None
    state: str | None = None
    expires_before: datetime | None = None
    unused_since: datetime | None = None
    due_at: datetime | None = None
    visible: ColumnElement[bool] | None = None


def list_keys(
    connection: Connection,
    wanted: KeyFilter,
    *,
    now: datetime,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Key]:
    """Return a page of keys, the newest first, that begins behind the key *after*.

    By key and never by offset: a page costs the same wherever it is.
    """
    query = select(keys).where(*_conditions(wanted, now))
    if after is not None:
        query = query.where(tuple_(keys.c.created_at, keys.c.id) < tuple_(*_page_key(after)))
    query = query.order_by(keys.c.created_at.desc(), keys.c.id.desc()).limit(limit)
    return [Key.of(row) for row in connection.execute(query).mappings()]


def _page_key(after: tuple[datetime, str]) -> tuple[Any, Any]:
    return literal(after[0], keys.c.created_at.type), literal(after[1], keys.c.id.type)


def _conditions(wanted: KeyFilter, now: datetime) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for name in ("team_id", "user_id", "organization_id", "key_alias"):
        value = getattr(wanted, name)
        if value is not None:
            found.append(keys.c[name] == value)
    if wanted.state == "deleted":
        found.append(keys.c.deleted_at.is_not(None))
    else:
        found.append(keys.c.deleted_at.is_(None))
    not_expired = or_(keys.c.expires.is_(None), keys.c.expires > now)
    by_state: dict[str, ColumnElement[bool]] = {
        "pending": keys.c.confirmed_at.is_(None),
        "blocked": and_(keys.c.confirmed_at.is_not(None), keys.c.blocked),
        "expired": and_(keys.c.confirmed_at.is_not(None), ~keys.c.blocked, ~not_expired),
        "active": and_(keys.c.confirmed_at.is_not(None), ~keys.c.blocked, not_expired),
    }
    if wanted.state in by_state:
        found.append(by_state[wanted.state])
    if wanted.expires_before is not None:
        found.append(and_(keys.c.expires.is_not(None), keys.c.expires < wanted.expires_before))
    if wanted.unused_since is not None:
        # One that was never used counts from its creation.
        used_at = func.coalesce(keys.c.last_used_at, keys.c.created_at)
        found.append(used_at < literal(wanted.unused_since, keys.c.created_at.type))
    if wanted.due_at is not None:
        found.append(
            or_(
                keys.c.key_rotation_at <= wanted.due_at,
                and_(keys.c.sink_suspect_at.is_not(None), keys.c.auto_rotate.is_(True)),
            )
        )
    if wanted.visible is not None:
        found.append(wanted.visible)
    return found


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one live key takes out of its team's and organization's share."""

    max_budget: int | None
    tpm_limit: int | None
    rpm_limit: int | None
    tpm_limit_type: str | None
    rpm_limit_type: str | None
    model_tpm_limit: dict[str, int]
    model_rpm_limit: dict[str, int]


def allocations(
    connection: Connection, *, now: datetime, but: str | None = None, **where: str
) -> list[Allocation]:
    """Return what the keys neither deleted nor expired take; pending and blocked ones count."""
    query = select(*(keys.c[item.name] for item in fields(Allocation))).where(
        keys.c.deleted_at.is_(None), or_(keys.c.expires.is_(None), keys.c.expires > now)
    )
    for name, value in where.items():
        query = query.where(keys.c[name] == value)
    if but is not None:
        query = query.where(keys.c.id != but)
    return [Allocation(*row) for row in connection.execute(query)]


# --- secrets


@dataclass(frozen=True, slots=True)
class Presented:
    """What the database knows about a presented key string."""

    secret: Secret
    key: Key
    team: Team | None
    organization: Organization | None
    user: User | None


def find_presented(connection: Connection, lookup: str) -> Presented | None:
    """Return the secret with this lookup, its key and the key's owners, in one indexed query."""
    query = (
        select(secrets, keys, teams, organizations, users)
        .join(keys, keys.c.id == secrets.c.key_id)
        .outerjoin(teams, teams.c.id == keys.c.team_id)
        .outerjoin(organizations, organizations.c.id == keys.c.organization_id)
        .outerjoin(users, users.c.id == keys.c.user_id)
        .where(secrets.c.lookup == lookup)
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        return None

    def part(table: Any) -> dict[str, Any]:
        return {column.name: row[column] for column in table.c}

    team, organization, user = part(teams), part(organizations), part(users)
    return Presented(
        Secret(**part(secrets)),
        Key.of(part(keys)),
        Team.of(team) if team["id"] is not None else None,
        Organization.of(organization) if organization["id"] is not None else None,
        User.of(user) if user["id"] is not None else None,
    )


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


def find_secret_by_lookup(connection: Connection, lookup: str) -> Secret | None:
    """Return the secret with this lookup."""
    row = connection.execute(select(secrets).where(secrets.c.lookup == lookup)).mappings().first()
    return Secret(**row) if row else None


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


# --- claims


def find_claim(connection: Connection, key_id: str) -> Claim | None:
    """Return the claim on a key."""
    row = connection.execute(select(claims).where(claims.c.key_id == key_id)).mappings().first()
    return Claim(**row) if row else None


def insert_claim(connection: Connection, *records: Claim) -> None:
    """Write new claims."""
    connection.execute(
        insert(claims),
        [
            {
                "key_id": record.key_id,
                "run_id": record.run_id,
                "fingerprint": record.fingerprint,
                "staged_at": record.staged_at,
                "deadline_at": record.deadline_at,
            }
            for record in records
        ],
    )


def take_over(connection: Connection, claim: Claim, *, dead_run: str) -> bool:
    """Put *claim* in the place of the dead run's; False when somebody was faster."""
    done = connection.execute(
        update(claims)
        .where(claims.c.key_id == claim.key_id, claims.c.run_id == dead_run)
        .values(
            run_id=claim.run_id,
            fingerprint=claim.fingerprint,
            staged_at=claim.staged_at,
            deadline_at=claim.deadline_at,
        )
    )
    return done.rowcount == 1


def renew_claim(connection: Connection, claim: Claim) -> bool:
    """Give the run's own claim a new deadline; False when it is not there any more."""
    return take_over(connection, claim, dead_run=claim.run_id)


def keys_due(
    connection: Connection,
    *,
    due_at: datetime,
    after: tuple[datetime, str] | None,
    limit: int,
    lock: bool = True,
) -> list[tuple[Key, Claim | None]]:
    """Return keys whose rotation is due at *due_at*, the longest due first, and their claims.

    Rows that another run has locked are passed over; a page begins behind *after*.
    """
    query = select(keys).where(keys.c.deleted_at.is_(None), keys.c.key_rotation_at <= due_at)
    if after is not None:
        moment = literal(after[0], keys.c.key_rotation_at.type)
        key_id = literal(after[1], keys.c.id.type)
        query = query.where(tuple_(keys.c.key_rotation_at, keys.c.id) > tuple_(moment, key_id))
    query = query.order_by(keys.c.key_rotation_at, keys.c.id).limit(limit)
    return _with_claims(connection, query.with_for_update(skip_locked=True) if lock else query)


def keys_with_suspect_sink(
    connection: Connection, *, after: str, limit: int, lock: bool = True
) -> list[tuple[Key, Claim | None]]:
    """Return auto-rotated keys whose sink may hold an older secret, and their claims."""
    query = (
        select(keys)
        .where(
            keys.c.deleted_at.is_(None),
            keys.c.sink_suspect_at.is_not(None),
            keys.c.auto_rotate.is_(True),
            keys.c.id > after,
        )
        .order_by(keys.c.id)
        .limit(limit)
    )
    return _with_claims(connection, query.with_for_update(skip_locked=True) if lock else query)


def _with_claims(connection: Connection, query: Any) -> list[tuple[Key, Claim | None]]:
    found = [Key.of(row) for row in connection.execute(query).mappings()]
    known = select(claims).where(claims.c.key_id.in_([key.id for key in found]))
    by_key = {row["key_id"]: Claim(**row) for row in connection.execute(known).mappings()}
    return [(key, by_key.get(key.id)) for key in found]


def release_claim(connection: Connection, key_id: str, run_id: str) -> bool:
    """Remove the run's own claim; False when it is not there any more."""
    done = connection.execute(
        delete(claims).where(claims.c.key_id == key_id, claims.c.run_id == run_id)
    )
    return done.rowcount == 1


def release_claims(connection: Connection, run_id: str) -> int:
    """Remove all claims of the run and return how many it had."""
    return connection.execute(delete(claims).where(claims.c.run_id == run_id)).rowcount


def delete_claim(connection: Connection, key_id: str) -> None:
    """Remove whatever claim there is on a key."""
    connection.execute(delete(claims).where(claims.c.key_id == key_id))


# --- request ids


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestId:
    """Which key a request id made, and from which request."""

    request_id: str
    fingerprint: str
    key_id: str
    created_at: datetime


def find_request_id(connection: Connection, request_id: str) -> RequestId | None:
    """Return what this request id made."""
    query = select(request_ids).where(request_ids.c.request_id == request_id)
    row = connection.execute(query).mappings().first()
    return RequestId(**row) if row else None


def insert_request_id(connection: Connection, record: RequestId) -> None:
    """Remember a request id."""
    connection.execute(
        insert(request_ids),
        {
            "request_id": record.request_id,
            "fingerprint": record.fingerprint,
            "key_id": record.key_id,
            "created_at": record.created_at,
        },
    )


def forget_request_ids(connection: Connection, key_id: str) -> None:
    """Free the request ids of a key that came to nothing."""
    connection.execute(delete(request_ids).where(request_ids.c.key_id == key_id))


# --- budgets

_BUDGETS: dict[type[Key] | type[Principal], Table] = {
    Key: keys,
    Team: teams,
    User: users,
    Organization: organizations,
}


def budgets_due(connection: Connection, *, now: datetime, limit: int) -> list[Key | Principal]:
    """Return budgets whose period is over, locked; rows that another run has are passed over.

    A budget with a period but without a date is due.
    """
    found: list[Key | Principal] = []
    for kind, table in _BUDGETS.items():
        query = (
            select(table)
            .where(*_is_over(table, now))
            .limit(limit - len(found))
            .with_for_update(skip_locked=True)
        )
        found += [kind.of(row) for row in connection.execute(query).mappings()]
        if len(found) >= limit:
            break
    return found


def count_budgets_due(connection: Connection, *, now: datetime) -> int:
    """Return how many budgets have a period that is over."""
    return sum(
        connection.execute(
            select(func.count()).select_from(table).where(*_is_over(table, now))
        ).scalar_one()
        for table in _BUDGETS.values()
    )


def begin_period(
    connection: Connection, record: Key | Principal, *, spend: int, reset_at: datetime
) -> None:
    """Set spend and the next reset of a budget that is locked."""
    table = _BUDGETS[type(record)]
    connection.execute(
        update(table).where(table.c.id == record.id).values(spend=spend, budget_reset_at=reset_at)
    )


def add_spend(connection: Connection, key_id: str, amount: int) -> None:
    """Add to what a key has spent, as it is in the database now."""
    connection.execute(update(keys).where(keys.c.id == key_id).values(spend=keys.c.spend + amount))


def _is_over(table: Table, now: datetime) -> list[ColumnElement[bool]]:
    return [
        table.c.deleted_at.is_(None),
        table.c.budget_duration.is_not(None),
        or_(table.c.budget_reset_at.is_(None), table.c.budget_reset_at <= now),
    ]
