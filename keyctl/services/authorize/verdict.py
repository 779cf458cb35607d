"""Validate and authorize a request: gather the facts, fill, run every rule, refuse or step over."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from keyctl.config.document import everywhere, personal
from keyctl.config.settings import Settings
from keyctl.db.queries import directory
from keyctl.errors import (
    BusyError,
    UserNotFoundError,
    Violation,
)
from keyctl.policy import bounds, ceiling, engine, issuing, models, resolve, whom
from keyctl.policy.bounds import Filled
from keyctl.policy.documents import Policy, stored_policy
from keyctl.policy.facts import Caller, Facts, Layers, Operation
from keyctl.records import Key, Organization, Principal, Team, User
from keyctl.services import access_groups
from keyctl.services.authorize import totals
from keyctl.services.owners import missing
from keyctl.services.tiers import require_tier
from keyctl.services.transaction import Unit

P = TypeVar("P", bound=Principal)


class Lookup(Protocol):
    """Where owners and their roles are looked up: `keyctl.db.queries.directory`, or what was read from it."""

    def find(
        self, connection: Connection, kind: type[P], object_id: str, *, lock: bool = False
    ) -> P | None:
        """Return the live organization, user or team with this id."""

    def member_role(
        self, connection: Connection, kind: type[Principal], object_id: str, user_id: str
    ) -> str | None:
        """Return the user's role in a team or organization, None for a stranger."""


class Adding(Protocol):
    """Where live keys are added up: `keyctl.services.authorize.totals`, or a ledger of its."""

    def read(self, connection: Connection, facts: Facts) -> Facts:
        """Return *facts* with the sums that rules will ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The owners of a key as they are now, and what they allow."""

    team: Team | None
    organization: Organization | None
    user: User | None
    layers: Layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The key as it would be, what was filled in, what stands against it and what was stepped over.

    `administers` tells whether the secret that the caller takes of it may be used as a caller.
    """

    key: Key
    filled: Sequence[Filled] = ()
    violations: Sequence[Violation] = ()
    stepped_over: Sequence[Violation] = field(default=())
    administers: bool = False
    warnings: Sequence[str] = ()


def owners_of(key: Key) -> dict[str, Any]:
    """Return the ids of a key's owners, as `load_owners` takes them."""
    return {
        "team_id": key.team_id,
        "user_id": key.user_id,
        "organization_id": key.organization_id,
    }


def load_owners(
    connection: Connection,
    settings: Settings,
    values: dict[str, Any],
    *,
    lock: bool,
    lookup: Lookup = directory,
) -> Surroundings:
    """Return the owners that *values* name; locked in keyctl's order: organization, team, user.

    Raises:
        TeamNotFoundError, UserNotFoundError, OrganizationNotFoundError: One does not exist.
        BusyError: The team moved to another organization meanwhile.
    """
    team_id, user_id = values.get("team_id"), values.get("user_id")
    team = _team(lookup, connection, team_id) if team_id is not None else None
    organization_id = values.get("organization_id") or (team.organization_id if team else None)
    organization = user = None
    if organization_id is not None:
        organization = lookup.find(connection, Organization, organization_id, lock=lock)
        if organization is None:
            raise missing(Organization, organization_id)
    if team is not None and lock:
        locked = _team(lookup, connection, team.id, lock=True)
        if locked.organization_id != team.organization_id:
            raise BusyError(f"team {team.id!r} is being moved", hint="try again")
        team = locked
    if user_id is not None:
        user = lookup.find(connection, User, user_id, lock=lock)
        if user is None:
            raise missing(User, user_id)
    return Surroundings(
        team=team,
        organization=organization,
        user=user,
        layers=Layers(
            team=stored_policy(team),
            organization=stored_policy(organization),
            everywhere=everywhere(settings, of_team=team is not None),
            personal=personal(settings),
            custom_keys_disabled=settings.disable_custom_api_keys,
        ),
    )


@contextmanager
def explaining_lost_owner(key: Key) -> Iterator[None]:
    """Say of a key whose user was deleted what gives it another, where the block misses that user.

    Raises:
        UserNotFoundError: The block raised it.
    """
    try:
        yield
    except UserNotFoundError as error:
        if error.given is None or error.given != key.user_id:
            raise
        raise UserNotFoundError(
            f"key {key.id} does not work: user {key.user_id!r}, its owner, was deleted",
            hint=f"keyctl update {key.id} --user NEW gives it another owner,"
            f" keyctl delete {key.id} ends it",
        ) from error


@dataclass(slots=True)
class KeyDecision:
    """The facts around a request for new keys, gathered once, under the owners' locks."""

    facts: Facts
    filled: list[Filled]
    overrides: Sequence[str]

    def verdict(self, key_id: str, alias: str | None) -> Judgement:
        """Return the verdict on making the requested key under this id and alias."""
        facts = replace(self.facts, key=replace(self.facts.key, id=key_id, key_alias=alias))
        violations = engine.evaluate(facts)
        standing, stepped_over = engine.overridden(facts, violations, self.overrides)
        administers = issuing.new_key_administers(facts.caller, facts.key, facts.team)
        warning = whom.unbounded_by_purse(facts) if administers else None
        return Judgement(
            key=replace(facts.key, overrides=models.kept_overrides(facts, stepped_over)),
            filled=self.filled,
            violations=standing,
            stepped_over=stepped_over,
            administers=administers,
            warnings=[warning] if warning else [],
        )

    def count_as_live(self, key: Key) -> None:
        """Count *key* among the live ones from here on."""
        self.facts = totals.with_key(self.facts, key)

    @property
    def is_uniform(self) -> bool:
        """Tell whether the verdict is the same whatever the alias, and however many keys came before."""
        layers = (
            self.facts.layers.team,
            self.facts.layers.organization,
            self.facts.layers.everywhere,
        )
        patterns = any(policy is not None and policy.key_alias_pattern for policy in layers)
        return not patterns and not totals.are_asked_for(self.facts)


def gather(
    connection: Connection,
    settings: Settings,
    caller: Caller,
    values: dict[str, Any],
    *,
    operation: Operation = "generate",
    service_account: bool = False,
    supplied_is_strong: bool | None = None,
    kept: Mapping[str, Any] = resolve.NOTHING,
    overrides: Sequence[str] = (),
    lock: bool = True,
    lookup: Lookup = directory,
    adding: Adding = totals,
    coming: Container[str] = (),
    now: datetime,
) -> KeyDecision:
    """Gather the facts around the key that *values* describe, and fill in what they leave out.

    An imported key keeps the columns in *kept*, whatever a new one would begin with.

    Raises:
        MalformedRequestError, NotFoundError: Before any rule can be asked.
    """
    given = frozenset(values)
    values, filled = _owners(values, settings, caller, service_account=service_account)
    if lock:
        totals.lock_everywhere(connection, settings)
    around = load_owners(connection, settings, values, lock=lock, lookup=lookup)
    values, more = resolve.with_defaults(values, _defaults(around, settings))
    filled += more
    values["organization_id"] = around.organization.id if around.organization else None
    values["service_account"] = service_account
    key = resolve.build_key(values, key_id="", actor=caller.actor, now=now, kept=kept)
    if operation != "import":
        names = key.gateway.get("access_group_ids") or ()
        access_groups.require_known(connection, settings, names)
    if operation != "import":  # an imported key reaches what it did where it comes from
        key = resolve.with_default_routes(key, settings.default_routes)
    if key.budget_id is not None and key.budget_id not in coming:
        require_tier(connection, key.budget_id, lock=lock)
    facts = Facts(
        operation=operation,
        key=key,
        given=given | {item.field for item in filled if item.source == "caller"},
        caller=caller,
        team=around.team,
        organization=around.organization,
        user=around.user,
        layers=around.layers,
        supplied_is_strong=supplied_is_strong,
        now=now,
        **roles(connection, around, lookup=lookup),
    )
    facts, more = fill_in(facts)
    facts = adding.read(connection, facts)
    return KeyDecision(facts, [*filled, *more], overrides)


def fill_in(facts: Facts) -> tuple[Facts, list[Filled]]:
    """Return the facts with what the request left open filled in: policies first, then the caller's own."""
    key, filled = bounds.fill(facts)
    if filled:
        facts = replace(facts, key=key)
    key, lowered = ceiling.fill(facts)
    if key is not facts.key:
        facts = replace(facts, key=key)
    anew = {item.field for item in lowered}
    return facts, [item for item in filled if item.field not in anew] + lowered


def facts_of(
    connection: Connection,
    settings: Settings,
    caller: Caller,
    key: Key,
    operation: Operation,
    *,
    now: datetime,
    lookup: Lookup = directory,
) -> Facts:
    """Return the facts around a key as it is, for asking who may do *operation* to it."""
    with explaining_lost_owner(key):
        around = load_owners(connection, settings, owners_of(key), lock=False, lookup=lookup)
    return Facts(
        operation=operation,
        key=key,
        before=key,
        caller=caller,
        team=around.team,
        organization=around.organization,
        user=around.user,
        layers=around.layers,
        now=now,
        **roles(connection, around, lookup=lookup),
    )


def refuse_lost(
    unit: Unit, settings: Settings, key: Key, operation: Operation, *, to_own_sink: bool = False
) -> None:
    """Refuse to finish *operation* for a caller who may not do it to *key* any more.

    Raises:
        PolicyDeniedError: What the caller lost since it began.
    """
    if unit.caller.key is None:
        return
    facts = facts_of(unit.connection, settings, unit.caller, key, operation, now=unit.now)
    facts = replace(facts, to_own_sink=to_own_sink)
    if violations := engine.evaluate_caller(facts):
        raise engine.refuse(violations)


def _team(lookup: Lookup, connection: Connection, team_id: str, *, lock: bool = False) -> Team:
    team = lookup.find(connection, Team, team_id, lock=lock)
    if team is None:
        raise missing(Team, team_id)
    return team


def _owners(
    values: dict[str, Any], settings: Settings, caller: Caller, *, service_account: bool
) -> tuple[dict[str, Any], list[Filled]]:
    """Fill in whose key it is, before anything is looked up: the caller's own, or the default's."""
    values, filled = dict(values), []
    if not service_account and not caller.is_admin and caller.user_id and not values.get("user_id"):
        values["user_id"] = caller.user_id
        filled.append(Filled("user_id", caller.user_id, "caller"))
    defaults = settings.default_key_generate_params
    for name in ("team_id", "user_id"):
        value = getattr(defaults, name, None)
        if value is not None and name not in values and not (service_account and name == "user_id"):
            values[name] = value
            filled.append(Filled(name, value, "global.default_key_generate_params"))
    return values, filled


def _defaults(around: Surroundings, settings: Settings) -> list[tuple[str, Any]]:
    def of(policy: Policy | None) -> Any:
        return policy.default_key_generate_params if policy else None

    return [
        ("team", of(around.layers.team)),
        ("organization", of(around.layers.organization)),
        ("global", settings.default_key_generate_params),
    ]


def roles(
    connection: Connection, around: Surroundings, *, lookup: Lookup = directory
) -> dict[str, Any]:
    """Return the owner's roles in the team and the organization, by their name in `Facts`."""
    found: dict[str, Any] = {}
    if around.user is not None and around.team is not None:
        found["owner_team_role"] = lookup.member_role(
            connection, Team, around.team.id, around.user.id
        )
    if around.user is not None and around.organization is not None:
        found["owner_organization_role"] = lookup.member_role(
            connection, Organization, around.organization.id, around.user.id
        )
    return found
