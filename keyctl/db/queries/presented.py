"""Ask what is known of presented key strings: the secret, its key, and everybody above it, in one query."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Select,
    select,
)
from sqlalchemy.exc import DBAPIError

from keyctl.db import rows
from keyctl.db.failures import is_unreadable
from keyctl.db.queries.secrets import find_secret_by_lookup
from keyctl.db.schema import REVISION
from keyctl.db.tables import (
    budgets,
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
from keyctl.purses import metered
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

_PARTS: Final = (secrets, keys, teams, organizations, users, team_members)
# The revision from which on members have limits, and tiers are there.
_TIERS_SINCE: Final = "1_0006"


def find_presented(connection: Connection, lookup: str) -> Presented | None:
    """Return the secret with this lookup, its key and the key's owners, in one indexed query.

    Raises:
        UnreadableRowError: One of them cannot be read.
    """
    reading = _reading(connection.info[REVISION])
    try:
        row = connection.execute(reading.query.where(secrets.c.lookup == lookup)).first()
        found = None if row is None else _presented(row, reading.names)
    except (DBAPIError, ValueError, TypeError) as error:
        if isinstance(error, DBAPIError) and not is_unreadable(error):
            raise
        _find_spoiled(connection, lookup)
        raise
    if found is None:
        return None
    whole = _completed(connection, [found])[0]
    if isinstance(whole, UnreadableRowError):
        raise whole
    return whole


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
    except (DBAPIError, ValueError, TypeError) as error:
        if isinstance(error, DBAPIError) and not is_unreadable(error):
            raise
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
        return _unreadable(found, error)
    return whole


def _unreadable(found: Presented, error: ForeignValueError) -> UnreadableRowError:
    """Return the error for the row whose document is not what keyctl wrote: an owner's, else the key's."""
    for table, owner in ((teams, found.team), (organizations, found.organization)):
        if owner is None:
            continue
        try:
            list(metered(owner, {}))
        except ForeignValueError as of_owner:
            return rows.unreadable(table, owner.columns(), [of_owner.column])
    return rows.unreadable(keys, found.key.columns(), [error.column])


def _tiers_of(found: Presented) -> Iterator[str]:
    for holder in (found.key, found.user, found.member):
        if holder is not None and holder.budget_id is not None:
            yield holder.budget_id


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
