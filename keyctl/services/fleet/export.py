"""Write what is stored as a fleet file: what `apply` would take, and nothing of usage or secrets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from keyctl import jsontext, views
from keyctl.db import queries
from keyctl.db.queries import KeyFilter, directory, tiers
from keyctl.errors import (
    FleetNotFoundError,
    TeamNotFoundError,
    UnreadableRowError,
    UsageError,
)
from keyctl.fleetfile.document import (
    BUDGETS,
    DEFAULT_FLEET,
    OWNERS,
    SYNONYMS,
    VERSION,
    TeamMember,
)
from keyctl.principals import owner_fields, tier_fields
from keyctl.records import Key, Organization, Principal, Team, Tier, User
from keyctl.requests import KeyFields
from keyctl.services.callers import require_overseer
from keyctl.services.workspace import Workspace

R = TypeVar("R")
_PAGE: Final = 1000
_KEY_FIELDS: Final = (
    "user_id",
    "team_id",
    "organization_id",
    "service_account",
    *(
        name
        for name in KeyFields.model_fields
        # `expires` says it exactly, and routes follow from a type.
        if name not in ("duration", "key_type", "allowed_routes")
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """How the file begins, and section, name and description of each object, read while they are."""

    heading: dict[str, Any]
    entries: Iterator[tuple[str, str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class ExportService:
    """Describes what is stored."""

    workspace: Workspace

    def export(self, team_ids: tuple[str, ...] = (), *, fleet: str | None = None) -> Exported:
        """Describe every object, or those of one *fleet*, without holding all of them.

        With *team_ids* only these teams, what they belong to, their members, and their keys.

        Raises:
            DeniedError: The caller is neither an admin nor an admin viewer.
            TeamNotFoundError: There is no such team.
            FleetNotFoundError: The named fleet has no objects.
            UsageError: Several fleets have objects, and none is named.
        """
        require_overseer(self.workspace, "exports of a fleet", "fleet")
        with self.workspace.database.read() as connection:
            known = directory.fleets(connection)
            wanted = _wanted(connection, team_ids)
        if fleet is not None and fleet not in known:
            raise FleetNotFoundError(
                f"no object belongs to fleet {fleet!r}",
                hint=f"there are: {', '.join(sorted(known)) or 'none'}",
                given=fleet,
            )
        if fleet is None and len(known) > 1:
            raise UsageError(
                f"objects belong to several fleets: {', '.join(sorted(known))}",
                hint="export them one by one with --fleet NAME",
            )
        own = fleet or next(iter(known), DEFAULT_FLEET)
        heading = {"version": VERSION, **({} if own == DEFAULT_FLEET else {"fleet": own})}
        return Exported(heading=heading, entries=self._entries(team_ids, wanted, fleet))

    def _entries(
        self,
        team_ids: tuple[str, ...],
        wanted: dict[type[Principal], set[str]] | None,
        fleet: str | None,
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        database = self.workspace.database
        with database.read(snapshot=True) as connection:
            now = database.now(connection)
            for tier in _tiers(connection):
                if fleet in (None, tier.managed_by):
                    yield BUDGETS, tier.id, _tier(tier)
            for section, kind in OWNERS.items():
                for record in _owners(connection, kind, wanted):
                    if fleet in (None, record.managed_by):
                        yield section, record.id, _owner(connection, record)
            for team_id in team_ids or (None,):
                for key in _keys(connection, KeyFilter(team_id=team_id), now):
                    if key.confirmed_at is not None and fleet in (None, key.managed_by):
                        yield "keys", key.key_alias or key.id, _key(key)


def _keys(connection: Connection, wanted: KeyFilter, now: datetime) -> Iterator[Key]:
    after = None
    while True:
        page = _readable(queries.list_keys(connection, wanted, now=now, after=after, limit=_PAGE))
        yield from page
        if len(page) < _PAGE:
            return
        after = (page[-1].created_at, page[-1].id)


def _readable(page: list[R | UnreadableRowError]) -> list[R]:
    """Return a page that is whole: a file that leaves something out would end it when it is applied."""
    found: list[R] = []
    for item in page:
        if isinstance(item, UnreadableRowError):
            raise item
        found.append(item)
    return found


def _wanted(
    connection: Connection, team_ids: tuple[str, ...]
) -> dict[type[Principal], set[str]] | None:
    """Return the owners of some teams' keys by kind, None if everything is wanted."""
    if not team_ids:
        return None
    teams = directory.find_all(connection, Team, team_ids)
    for team_id in team_ids:
        if team_id not in teams:
            raise TeamNotFoundError(
                f"there is no team {team_id!r}",
                hint="keyctl team list shows them",
                given=team_id,
            )
    members = directory.roles_in(connection, Team, team_ids)
    owners = {
        column: directory.owners_of_keys(connection, team_ids, column)
        for column in ("user_id", "organization_id")
    }
    return {
        Team: set(teams),
        Organization: owners["organization_id"]
        | {team.organization_id for team in teams.values() if team.organization_id},
        User: owners["user_id"] | {user for _, user in members},
    }


def _owners(
    connection: Connection,
    kind: type[Principal],
    wanted: dict[type[Principal], set[str]] | None,
) -> Iterator[Principal]:
    if wanted is not None:
        yield from directory.find_all(connection, kind, wanted[kind]).values()
        return
    after = None
    while page := _readable(directory.listed(connection, kind, after=after, limit=_PAGE)):
        yield from page
        after = page[-1].id


def _tiers(connection: Connection) -> Iterator[Tier]:
    """Yield every tier: with some teams only, keys of these may name any."""
    after = None
    while page := tiers.list_tiers(connection, after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def _is_said(value: Any) -> bool:
    """Tell whether a field has a value; 0 is one, and a limit, though it equals False."""
    return value is not False and value not in (None, [], {})


def _tier(tier: Tier) -> dict[str, Any]:
    found = {
        name: views.dollars(name, getattr(tier, name))
        for name in tier_fields()
        if _is_said(getattr(tier, name))
    }
    return {**found, "adopt": True}


def _owner(connection: Connection, record: Principal) -> dict[str, Any]:
    shown = {own: theirs for theirs, own in SYNONYMS[type(record)].items()}
    found = {
        shown.get(name, name): views.dollars(name, getattr(record, name))
        for name in owner_fields(type(record))
        if _is_said(getattr(record, name))
    }
    members = _members(connection, record)
    if members:
        found["members"] = members
    found["adopt"] = True
    return found


def _members(connection: Connection, record: Principal) -> dict[str, dict[str, Any]]:
    """Return what the members of a team or an organization are, and their own limits in a team."""
    if isinstance(record, Organization):
        roles = directory.members(connection, Organization, record.id)
        return {user: {"role": role} for user, role in roles.items()}
    if not isinstance(record, Team):
        return {}
    return {
        member.user_id: {
            name: views.dollars(name, getattr(member, name))
            for name in TeamMember.model_fields
            if _is_said(getattr(member, name))
        }
        for member in directory.team_members_of(connection, record.id)
    }


def _key(key: Key) -> dict[str, Any]:
    stored: Mapping[str, Any] = {**key.columns(), **key.gateway}
    found = {
        name: views.dollars(name, stored[name])
        for name in _KEY_FIELDS
        if _is_said(stored.get(name))
    }
    if key.key_type != "default":
        found["key_type"] = key.key_type
    elif key.allowed_routes:
        found["allowed_routes"] = key.allowed_routes
    if key.expires is not None:
        found["expires"] = jsontext.instant(key.expires)
    if key.sink is not None:
        found["deliver"] = key.sink
    found["adopt"] = key.id
    return found
