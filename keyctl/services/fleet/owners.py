"""Plan organizations, users and teams: what is made, changed, adopted and ended."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyctl import views
from keyctl.db.queries import directory
from keyctl.db.queries.tiers import find_tier
from keyctl.errors import (
    BudgetNotFoundError,
    KeyctlError,
    KeysLeftError,
    NotFoundError,
    NotManagedError,
    OrganizationNotFoundError,
    UserNotFoundError,
)
from keyctl.fleetfile.document import OWNERS, SYNONYMS
from keyctl.fleetfile.entries import OwnerEntry
from keyctl.records import Member, Organization, Principal, Team, User
from keyctl.services.fleet.model import (
    Fields,
    KeyChange,
    NewKeyChange,
    OwnerChange,
    Plan,
    Problem,
    Warned,
)
from keyctl.services.fleet.world import World
from keyctl.services.leaving import refuse_revival
from keyctl.services.members import with_values
from keyctl.services.owners import WORD, with_period

_ROLE_OF = "members."


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerPlanner:
    """Compares owners as files describe them with what is stored, and tells the world what will be."""

    connection: Connection
    world: World
    plan: Plan
    actor: str
    now: datetime

    def compare(self, entry: OwnerEntry) -> None:
        """Note what becomes of one owner."""
        before = self.world.stored[entry.kind].get(entry.name)
        for problem in self._problems(entry, before):
            self.plan.problems.append(problem)
        after = self._after(entry, before)
        self.world.planned[entry.kind][entry.name] = after
        roles, members = self._roles(entry), self._members(entry)
        for user, (_, role) in roles.items():
            self.world.roles[entry.kind][entry.name, user] = role
        changes = list(_changes(entry, before, after, roles, members))
        self.plan.changes += changes
        self.plan.unchanged += not [change for change in changes if change.action != "adopt"]

    def _problems(self, entry: OwnerEntry, before: Principal | None) -> Iterator[Problem]:
        word = WORD[entry.kind]
        if before is not None and before.managed_by is None and not entry.adopt:
            yield _problem(
                entry,
                "",
                "fleet.not_managed",
                NotManagedError(
                    f"{word} {entry.name!r} is there already, and no fleet has it",
                    hint="adopt: true takes it over; keyctl export writes such files",
                ),
            )
        elif before is not None and before.managed_by not in (None, entry.fleet):
            yield _problem(
                entry,
                "",
                "fleet.other_fleet",
                NotManagedError(
                    f"{word} {entry.name!r} belongs to fleet {before.managed_by!r}",
                    hint="describe each object in the files of one fleet",
                ),
            )
        if before is None and entry.kind is User:
            try:
                refuse_revival(self.connection, entry.name)
            except KeysLeftError as left:
                yield _problem(entry, "", "directory.keys_left", left)
        organization_id = entry.values.get("organization_id")
        if organization_id is not None and not self._exists(Organization, organization_id):
            yield _problem(
                entry,
                "organization_id",
                "fleet.missing",
                _missing(OrganizationNotFoundError, "organization", organization_id),
            )
        named = {"budget_id": entry.values.get("budget_id")}
        named |= {
            f"{_ROLE_OF}{user}.budget_id": said.get("budget_id")
            for user, said in entry.members.items()
        }
        for field, budget_id in named.items():
            if budget_id is not None and not self._has_tier(budget_id):
                error = _missing(BudgetNotFoundError, "budget", budget_id)
                yield _problem(entry, field, "fleet.missing", error)
        for user in entry.members:
            if not self._exists(User, user):
                yield _problem(
                    entry,
                    f"{_ROLE_OF}{user}",
                    "fleet.missing",
                    _missing(UserNotFoundError, "user", user),
                )

    def _has_tier(self, tier_id: str) -> bool:
        return tier_id in self.world.tiers or find_tier(self.connection, tier_id) is not None

    def _exists(self, kind: type[Principal], object_id: str) -> bool:
        return self.world.find(self.connection, kind, object_id) is not None

    def _after(self, entry: OwnerEntry, before: Principal | None) -> Principal:
        stamps = {"updated_at": self.now, "updated_by": self.actor, "managed_by": entry.fleet}
        if before is None:
            made = entry.kind(
                id=entry.name,
                created_at=self.now,
                created_by=self.actor,
                **{**stamps, **entry.values},
            )
            return with_period(made, None, self.now)
        return with_period(replace(before, **{**stamps, **entry.values}), before, self.now)

    def _roles(self, entry: OwnerEntry) -> dict[str, tuple[str | None, str]]:
        """Return the members whose role is another: the role as it is and as it will be."""
        stored = self.world.roles.get(entry.kind, {})
        return {
            user: (stored.get((entry.name, user)), said["role"])
            for user, said in entry.members.items()
            if stored.get((entry.name, user)) != said["role"]
        }

    def _members(self, entry: OwnerEntry) -> dict[str, tuple[Member | None, Member]]:
        """Return the members of a team whose limits are said and other: as they are and as they will be."""
        found: dict[str, tuple[Member | None, Member]] = {}
        for user, said in entry.members.items():
            if len(said) == 1:
                continue  # the role alone
            before = self.world.members.get((entry.name, user))
            known = before or Member(
                team_id=entry.name, user_id=user, role=said["role"], created_at=self.now
            )
            after = with_values(known, said, self.now)
            if after != before:
                found[user] = (before, after)
        return found

    def prune(self, left: list[Principal], *, keys_ended: set[str]) -> None:
        """Note the end of owners that no file describes any more, where nothing alive depends on them."""
        gone: set[str] = set()
        dependent_first = list(reversed(OWNERS.values()))
        for record in sorted(left, key=lambda item: (dependent_first.index(type(item)), item.id)):
            word = WORD[type(record)]
            if self._is_needed(record, keys_ended, gone):
                self.plan.warnings.append(
                    Warned(
                        entry=None,
                        message=f"{word} {record.id!r} is described no more, but keys or teams still belong to it: it stays",
                    )
                )
                continue
            gone.add(record.id)
            ended = replace(record, deleted_at=self.now, updated_at=self.now, updated_by=self.actor)
            if isinstance(ended, User):
                ended = replace(ended, email=None)  # an archived user is remembered by id only
            self.plan.changes.append(
                OwnerChange(
                    action="delete",
                    object_type=word,
                    object_id=record.id,
                    before=record,
                    after=ended,
                )
            )

    def _is_needed(self, record: Principal, keys_ended: set[str], gone: set[str]) -> bool:
        column = f"{WORD[type(record)]}_id"
        # As keys will be: what moves away in the same plan depends on it no more, what comes does.
        ids: set[str] = set()
        for change in self.plan.changes:
            if isinstance(change, NewKeyChange):
                if change.template.values.get(column) == record.id:
                    return True
            elif isinstance(change, KeyChange) and change.action == "update":
                if column not in change.values:
                    continue
                if change.values[column] == record.id:
                    return True
                ids.add(change.key_id)
        live = directory.live_keys_of(self.connection, column, record.id)
        if any(key_id not in keys_ended and key_id not in ids for key_id in live):
            return True
        if isinstance(record, Organization):
            stored = directory.teams_of(self.connection, record.id)
            planned = {
                team_id: team
                for team_id, team in self.world.planned[Team].items()
                if isinstance(team, Team)
            }
            moving = {
                team_id for team_id, team in planned.items() if team.organization_id != record.id
            }
            coming = {
                team_id for team_id, team in planned.items() if team.organization_id == record.id
            }
            return bool(((stored - moving) | coming) - gone)
        return False


def _changes(
    entry: OwnerEntry,
    before: Principal | None,
    after: Principal,
    roles: Mapping[str, tuple[str | None, str]],
    members: Mapping[str, tuple[Member | None, Member]],
) -> Iterator[OwnerChange]:
    word = WORD[entry.kind]
    shown = {own: theirs for theirs, own in SYNONYMS[entry.kind].items()}
    if before is not None and before.managed_by != entry.fleet:
        yield OwnerChange(
            action="adopt",
            object_type=word,
            object_id=entry.name,
            entry=entry,
            fields={"managed_by": (before.managed_by, entry.fleet)},
            before=before,
            after=after,
        )
    fields: dict[str, tuple[Any, Any]] = {}
    for name, value in entry.values.items():
        old = getattr(before, name) if before is not None else None
        if before is None or old != value:
            fields[shown.get(name, name)] = (views.dollars(name, old), views.dollars(name, value))
    fields |= {f"{_ROLE_OF}{user}": pair for user, pair in roles.items()}
    for user, (known, member) in members.items():
        fields |= _limits(user, known, member)
    if before is None or fields:
        yield OwnerChange(
            action="create" if before is None else "update",
            object_type=word,
            object_id=entry.name,
            entry=entry,
            fields=_sorted(fields),
            before=before,
            after=after,
            roles=roles,
            members=members,
        )


def _limits(user: str, before: Member | None, after: Member) -> dict[str, tuple[Any, Any]]:
    """Return the limits of a member that differ, as `members.USER.FIELD`."""
    pairs = {
        name: (None if before is None else getattr(before, name), getattr(after, name))
        for name in views.MEMBER_LIMITS
    }
    return {
        f"{_ROLE_OF}{user}.{name}": (views.dollars(name, old), views.dollars(name, new))
        for name, (old, new) in pairs.items()
        if old != new
    }


def _sorted(fields: Fields) -> Fields:
    return dict(sorted(fields.items()))


def _missing(kind: type[NotFoundError], word: str, name: str) -> NotFoundError:
    return kind(f"there is no {word} {name!r}", hint="describe it, or create it", given=name)


def _problem(entry: OwnerEntry, field: str, rule: str, error: KeyctlError) -> Problem:
    return Problem(error=error, entry=entry, field=field, rule=rule)
