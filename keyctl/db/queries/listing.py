"""Ask for many keys: pages of them, their sums, the ones that are due."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    and_,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError

from keyctl import jsontext, keystring
from keyctl.db import rows
from keyctl.db.failures import is_unreadable
from keyctl.db.queries.patterns import any_of, lists, matches, mentions
from keyctl.db.queries.standing import state_of
from keyctl.db.queries.visible import Visible, is_visible
from keyctl.db.tables import (
    claims,
    ended_secrets,
    keys,
    organizations,
    secrets,
    teams,
    users,
)
from keyctl.errors import UnreadableRowError
from keyctl.records import Claim, Key, check_columns

# A key that may be due and its claim; in the place of one that cannot be read its error.
Due = tuple[Key | UnreadableRowError, Claim | None]
NEVER: Final = datetime.max.replace(tzinfo=UTC)

# The number of an advisory lock: "keysma" in ASCII.
_ALL_KEYS: Final = 0x6B6579736D61


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter:
    """Which keys to list; every condition must hold.  `state` None means all but deleted ones.

    `over_budget` asks for keys that have spent their own budget, or are *past_a_meter*.
    `issued_by` is who took a secret of it that is not revoked, `issued_with` the key that was used.
    """

    team_id: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    key_alias: str | None = None
    state: str | None = None
    expires_before: datetime | None = None
    unused_since: datetime | None = None
    due_at: datetime | None = None
    created_after: datetime | None = None
    search: str | None = None
    tag: str | None = None
    model: str | None = None
    over_budget: bool = False
    past_a_meter: frozenset[str] = frozenset()
    issued_by: str | None = None
    issued_with: str | None = None
    visible: Visible | None = None


def list_keys(
    connection: Connection,
    wanted: KeyFilter,
    *,
    now: datetime,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Key | UnreadableRowError]:
    """Return a page of keys, the newest first, that begins behind the key *after*.

    By key and never by offset: a page costs the same wherever it is.  In the place of a row that
    cannot be read stands its error.
    """
    query = select(keys).where(*_conditions(wanted, now, connection.dialect.name))
    if after is not None:
        query = query.where(tuple_(keys.c.created_at, keys.c.id) < tuple_(*_page_key(after)))
    query = query.order_by(keys.c.created_at.desc(), keys.c.id.desc()).limit(limit)
    return rows.each(connection, query, keys, Key.of)


def list_fields(
    connection: Connection,
    wanted: KeyFilter,
    names: Sequence[str],
    *,
    now: datetime,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[dict[str, Any]] | None:
    """Return what `list_keys` does, but only the columns *names*, the key's place and its state.

    For hundreds of thousands of keys: a key has fifty columns, and a sheet shows nine.  None where
    a row cannot be read; `list_keys` says which.
    """
    chosen = ("id", "created_at", *(name for name in names if name not in ("id", "created_at")))
    query = select(*(keys.c[name] for name in chosen), state_of(now)).where(
        *_conditions(wanted, now, connection.dialect.name)
    )
    if after is not None:
        query = query.where(tuple_(keys.c.created_at, keys.c.id) < tuple_(*_page_key(after)))
    query = query.order_by(keys.c.created_at.desc(), keys.c.id.desc()).limit(limit)
    try:
        found = connection.execute(query).all()
        check_columns(Key, dict(zip(chosen, zip(*found, strict=True), strict=False)))
    except (DBAPIError, ValueError, TypeError) as error:
        if isinstance(error, DBAPIError) and not is_unreadable(error):
            raise
        return None
    return [dict(zip((*chosen, "state"), values, strict=True)) for values in found]


def _page_key(after: tuple[datetime, str]) -> tuple[Any, Any]:
    return literal(after[0], keys.c.created_at.type), literal(after[1], keys.c.id.type)


def _conditions(wanted: KeyFilter, now: datetime, dialect: str) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for name in ("team_id", "user_id", "organization_id", "key_alias"):
        value = getattr(wanted, name)
        if value is not None:
            found.append(matches(keys.c[name], value))
    found += _finding(wanted, now, dialect)
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
    found += _issued(wanted)
    if wanted.visible is not None:
        found.append(is_visible(wanted.visible))
    return found


def _finding(wanted: KeyFilter, now: datetime, dialect: str) -> list[ColumnElement[bool]]:
    """Return the conditions for what people know of a key."""
    found: list[ColumnElement[bool]] = []
    if wanted.search is not None:
        names = ("id", "key_alias", "team_id", "user_id", "organization_id")
        # Tags are kept as JSON, where some characters are written otherwise.
        written = jsontext.dumps(wanted.search)[1:-1]
        found.append(
            or_(
                *(mentions(keys.c[name], wanted.search) for name in names),
                mentions(keys.c.tags, written),
                *_has_secret(wanted.search),
            )
        )
    if wanted.tag is not None:
        found.append(lists(keys.c.tags, wanted.tag))
    if wanted.model is not None:
        found.append(lists(keys.c.models, wanted.model))
    if wanted.over_budget:
        spent = [_has_spent_its_own(now)]
        if wanted.past_a_meter:
            spent.append(any_of(keys.c.id, wanted.past_a_meter, dialect))
        found.append(or_(*spent))
    if wanted.created_after is not None:
        found.append(keys.c.created_at >= wanted.created_after)
    return found


def _has_spent_its_own(now: datetime) -> ColumnElement[bool]:
    """Return the condition that nothing is left of a key's `max_budget`; a period that is over counts as new."""
    goes_on = or_(keys.c.budget_duration.is_(None), keys.c.budget_reset_at > now)
    spent = and_(goes_on, keys.c.spend >= keys.c.max_budget)
    return and_(keys.c.max_budget.is_not(None), or_(keys.c.max_budget == 0, spent))


def _has_secret(named: str) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for the key of a secret, if *named* has the form of a secret's id.

    Logs show that id, alone or as ``sk-<id>…``.
    """
    handle = keystring.public_handle(named) or keystring.public_handle(keystring.PREFIX + named)
    if handle is not None:
        for table in (secrets, ended_secrets):
            yield keys.c.id.in_(select(table.c.key_id).where(table.c.id == handle))


def has_keys(
    connection: Connection, wanted: KeyFilter, name: str, *, deleted: bool = False
) -> bool:
    """Tell whether the condition *name* of *wanted* alone fits a key that the caller may see."""
    only = KeyFilter(
        **{name: getattr(wanted, name)},
        visible=wanted.visible,
        state="deleted" if deleted else None,
    )
    # No state depends on the time here.
    query = select(keys.c.id).where(*_conditions(only, NEVER, connection.dialect.name)).limit(1)
    return connection.execute(query).first() is not None


def aliases(connection: Connection, *, limit: int) -> list[str]:
    """Return the aliases of live keys, at most *limit*."""
    query = select(keys.c.key_alias).where(
        keys.c.key_alias.is_not(None), keys.c.deleted_at.is_(None)
    )
    return list(connection.execute(query.limit(limit)).scalars())


def tags_in_use(connection: Connection, *, limit: int) -> set[str]:
    """Return the tags of at most *limit* live keys."""
    query = select(type_coerce(keys.c.tags, Text)).where(keys.c.deleted_at.is_(None))
    return _listed(connection.execute(query.distinct().limit(limit)).scalars())


def models_in_use(connection: Connection) -> set[str]:
    """Return every model that a key, team, user or organization names."""
    found: set[str] = set()
    for table in (keys, teams, users, organizations):
        query = select(type_coerce(table.c.models, Text)).where(table.c.deleted_at.is_(None))
        found |= _listed(connection.execute(query.distinct()).scalars())
    return found


def _listed(texts: Iterable[Any]) -> set[str]:
    """Return what stands in these lists; what is no list was not written by keyctl, and says nothing."""
    found: set[str] = set()
    for stored in texts:
        try:
            names = jsontext.loads(stored)
        except (TypeError, ValueError, RecursionError):
            continue
        found.update(name for name in names if isinstance(name, str))
    return found


def keys_beginning(
    connection: Connection, beginning: str, visible: Visible | None, *, limit: int
) -> list[tuple[str, str | None]]:
    """Return the ids, and aliases, of the keys whose id begins so, archived or not, at most *limit*.

    By `substr` and not LIKE: ids that differ in capital letters only are different ones.
    """
    query = select(keys.c.id, keys.c.key_alias).where(
        func.substr(keys.c.id, 1, len(beginning)) == beginning
    )
    if visible is not None:
        query = query.where(is_visible(visible))
    query = query.order_by(keys.c.id).limit(limit)
    return [(row[0], row[1]) for row in connection.execute(query)]


def _issued(wanted: KeyFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("issued_by", "issued_with"):
        if (issuer := getattr(wanted, name)) is not None:
            issued = select(secrets.c.key_id).where(
                secrets.c[name] == issuer,
                secrets.c.issued_with.is_not(None),
                secrets.c.state != "revoked",
            )
            yield keys.c.id.in_(issued)


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
    connection: Connection, *, now: datetime, but: Container[str] = (), **where: str
) -> list[Allocation]:
    """Return what the keys neither deleted nor expired take; pending and blocked ones count.

    The keys with the ids in *but* are left out.

    Raises:
        UnreadableRowError: One of them cannot be read.
    """
    query = select(keys.c.id, *(keys.c[item.name] for item in fields(Allocation))).where(
        keys.c.deleted_at.is_(None), or_(keys.c.expires.is_(None), keys.c.expires > now)
    )
    for name, value in where.items():
        query = query.where(keys.c[name] == value)
    try:
        return [Allocation(*row[1:]) for row in connection.execute(query) if row[0] not in but]
    except (DBAPIError, ValueError, TypeError) as error:
        if isinstance(error, DBAPIError) and not is_unreadable(error):
            raise
        # Nobody knows the sum then: name the key that spoils it.
        rows.every(connection, query.with_only_columns(*keys.c), keys, Key.of)
        raise


def lock_allocations(connection: Connection) -> None:
    """Wait for every other creation that is limited by the sum over all keys, until it has ended.

    No row stands for all keys, so there is none to lock; SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _ALL_KEYS})


def keys_due(
    connection: Connection,
    *,
    due_at: datetime,
    after: tuple[datetime, str] | None,
    limit: int,
    lock: bool = True,
) -> list[Due]:
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
) -> list[Due]:
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


def count_keys_due(connection: Connection, *, due_at: datetime, visible: Visible | None) -> int:
    """Return how many keys are due for rotation, fit for it or not; of the *visible* ones only, where some are hidden."""
    query = (
        select(func.count())
        .select_from(keys)
        .where(keys.c.deleted_at.is_(None), keys.c.key_rotation_at <= due_at)
    )
    if visible is not None:
        query = query.where(is_visible(visible))
    return int(connection.execute(query).scalar_one())


def _with_claims(connection: Connection, query: Any) -> list[Due]:
    found = rows.each(connection, query, keys, Key.of)
    ids = [item.id for item in found if isinstance(item, Key)]
    known = select(claims).where(claims.c.key_id.in_(ids))
    by_key = {row["key_id"]: Claim(**row) for row in connection.execute(known).mappings()}
    return [(item, by_key.get(item.id) if isinstance(item, Key) else None) for item in found]
