"""Hold rows as frozen values: keys, secrets, teams, users, organizations.  Pure.

Field names are the columns' (a test holds them to it); money is nano-dollars.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache, lru_cache
from types import NoneType
from typing import Any, Final, Self, get_args, get_origin, get_type_hints

from keyctl import durations
from keyctl.errors import InvalidDurationError

Check = Callable[[Any], bool]


class ForeignValueError(ValueError):
    """A column holds what keyctl never writes there."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def check(record: Any) -> None:
    """Refuse a record with a value that keyctl never writes: of another type, or in no grammar.

    Raises:
        ForeignValueError: It names the column.
    """
    kind: Any = type(record)
    for name, kinds, inner in _kinds(kind):
        value = getattr(record, name)
        if type(value) not in kinds or (inner is not None and value and not inner(value)):
            raise ForeignValueError(name)


def check_columns(record: Any, columns: Mapping[str, Sequence[Any]]) -> None:
    """Refuse columns of many rows with a value that keyctl never writes, as `check` does.

    Raises:
        ForeignValueError: It names the column.
    """
    for name, kinds, inner in _kinds(record):
        values = columns.get(name, ())
        if not kinds.issuperset(map(type, values)):
            raise ForeignValueError(name)
        if inner is not None and not all(inner(value) for value in values if value):
            raise ForeignValueError(name)


@cache
def _kinds(record: Any) -> tuple[tuple[str, frozenset[type], Check | None], ...]:
    """Return for each field its name, the types that it takes, and what else it must be."""
    hints = get_type_hints(record)
    return tuple((item.name, *_kind(item.name, hints[item.name])) for item in fields(record))


def _kind(name: str, hint: Any) -> tuple[frozenset[type], Check | None]:
    options = [item for item in get_args(hint) or [hint] if item is not NoneType]
    if get_origin(hint) in (list, dict):
        options = [hint]
    kinds = {get_origin(item) or item for item in options}
    if hint is not options[0]:
        kinds.add(NoneType)
    return frozenset(kinds), _GRAMMARS.get(name) or _inner(options[0])


def _inner(hint: Any) -> Check | None:
    """Return what the items of a list or an object must be, None if anything is right."""
    items = get_args(hint)
    if not items or items[-1] is Any:
        return None
    kind = get_origin(items[-1]) or items[-1]
    if get_origin(hint) is list:
        return lambda value: all(type(item) is kind for item in value)
    return lambda value: all(type(item) is kind for item in value.values())


@lru_cache(maxsize=1000)
def _is_duration(text: str) -> bool:
    return _parses(durations.parse_duration, text)


@lru_cache(maxsize=1000)
def _is_period(text: str) -> bool:
    return _parses(durations.parse_period, text)


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except InvalidDurationError:
        return False
    return True


_GRAMMARS: Final[dict[str, Check]] = {
    "duration": _is_duration,
    "rotation_interval": _is_duration,
    "grace_period": lambda text: text == "none" or _is_duration(text),
    "budget_duration": _is_period,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What every stored object has."""

    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    deleted_at: datetime | None = None
    managed_by: str | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the record that *row* holds; columns of a newer schema are passed over.

        Raises:
            ForeignValueError: A column holds what keyctl never writes there.
        """
        names = cls.names()
        try:
            columns = {name: row[name] for name in names}
        except KeyError:  # an older schema lacks some; to ask for each costs as much as the rest
            columns = {name: row[name] for name in names if name in row}
        record = cls(**columns)
        check(record)
        return record

    @classmethod
    @cache
    def names(cls) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(item.name for item in fields(cls))

    def columns(self) -> dict[str, Any]:
        """Return the record as column values."""
        return {name: getattr(self, name) for name in self.names()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal(Record):
    """What organizations, users and teams share: a name, models, a budget, limits."""

    id: str
    models: list[str] = field(default_factory=list)
    max_budget: int | None = None
    spend: int = 0
    budget_duration: str | None = None
    budget_anchor_at: datetime | None = None
    budget_reset_at: datetime | None = None
    tpm_limit: int | None = None
    rpm_limit: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    blocked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization(Principal):
    """An organization."""

    name: str | None = None
    model_max_budget: dict[str, Any] = field(default_factory=dict)
    tpd_limit: int | None = None
    max_parallel_requests: int | None = None
    model_tpm_limit: dict[str, int] = field(default_factory=dict)
    model_rpm_limit: dict[str, int] = field(default_factory=dict)
    policy: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Principal):
    """A user: someone who owns keys."""

    email: str | None = None
    role: str = "internal_user"
    budget_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Team(Principal):
    """A team, perhaps of an organization."""

    name: str | None = None
    organization_id: str | None = None
    budget_limits: list[dict[str, Any]] = field(default_factory=list)
    model_max_budget: dict[str, Any] = field(default_factory=dict)
    tpd_limit: int | None = None
    max_parallel_requests: int | None = None
    model_tpm_limit: dict[str, int] = field(default_factory=dict)
    model_rpm_limit: dict[str, int] = field(default_factory=dict)
    policy: dict[str, Any] | None = None


# In a key's `gateway` document: the routes of a key that names none, written when it was made.
DEFAULT_ROUTES: Final = "default_routes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier(Record):
    """A budget tier: limits kept in one place, for those who name it by `budget_id`."""

    id: str
    max_budget: int | None = None
    soft_budget: int | None = None
    budget_duration: str | None = None
    budget_anchor_at: datetime | None = None
    tpm_limit: int | None = None
    rpm_limit: int | None = None
    tpd_limit: int | None = None
    max_parallel_requests: int | None = None
    model_max_budget: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user in a team, and what its keys there may spend in sum."""

    team_id: str
    user_id: str
    role: str
    created_at: datetime
    max_budget: int | None = None
    budget_duration: str | None = None
    budget_anchor_at: datetime | None = None
    tpm_limit: int | None = None
    rpm_limit: int | None = None
    budget_id: str | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the member that *row* holds.

        Raises:
            ForeignValueError: A column holds what keyctl never writes there.
        """
        member = cls(**row)
        check(member)
        return member


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Record):
    """A key: the lasting identity that secrets come and go under."""

    id: str
    key_alias: str | None = None
    user_id: str | None = None
    team_id: str | None = None
    organization_id: str | None = None
    key_type: str = "default"
    service_account: bool = False
    models: list[str] = field(default_factory=list)
    max_budget: int | None = None
    soft_budget: int | None = None
    spend: int = 0
    budget_duration: str | None = None
    budget_anchor_at: datetime | None = None
    budget_reset_at: datetime | None = None
    budget_limits: list[dict[str, Any]] = field(default_factory=list)
    model_max_budget: dict[str, Any] = field(default_factory=dict)
    budget_fallbacks: dict[str, list[str]] = field(default_factory=dict)
    tpm_limit: int | None = None
    rpm_limit: int | None = None
    tpd_limit: int | None = None
    max_parallel_requests: int | None = None
    model_tpm_limit: dict[str, int] = field(default_factory=dict)
    model_rpm_limit: dict[str, int] = field(default_factory=dict)
    tpm_limit_type: str | None = None
    rpm_limit_type: str | None = None
    allowed_routes: list[str] = field(default_factory=list)
    permissions: dict[str, Any] = field(default_factory=dict)
    guardrails: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    gateway: dict[str, Any] = field(default_factory=dict)
    blocked: bool = False
    blocked_by_admin: bool = False
    may_issue: dict[str, Any] | None = None
    overrides: list[dict[str, Any]] = field(default_factory=list)
    duration: str | None = None
    expires: datetime | None = None
    auto_rotate: bool = False
    rotation_interval: str | None = None
    key_rotation_at: datetime | None = None
    last_rotation_at: datetime | None = None
    rotation_count: int = 0
    grace_period: str | None = None
    sink: str | None = None
    sink_suspect_at: datetime | None = None
    send_invite_email: bool = False
    confirmed_at: datetime | None = None
    last_used_at: datetime | None = None

    def reachable_routes(self) -> list[str]:
        """Return what the key reaches: its own routes, else the default that was written with it.

        Empty for a key from before there was a default: it goes on reaching what it did.
        """
        default: list[str] = self.gateway.get(DEFAULT_ROUTES) or []
        return self.allowed_routes or default

    def gateway_routes(self) -> list[str]:
        """Return what the key reaches in a gateway: pass-through endpoints besides, which it names apart."""
        reached = self.reachable_routes()
        named: list[str] = self.gateway.get("allowed_passthrough_routes") or []
        return [*reached, *named] if reached else []

    budget_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One credential of a key.  Its hash stays in the database unless it is to be checked.

    `administers` tells that it may be used as a caller.  `issued_by` is who took it: ``user:ID``,
    the ``key:ID`` of a service account, or ``local``; None for one from before that was kept.
    `issued_with` is the id of the caller's key, None for the local operator.
    """

    id: str
    key_id: str
    lookup: str
    hash: str = field(repr=False)
    state: str
    supplied: bool
    run_id: str
    created_at: datetime
    not_after: datetime | None
    administers: bool = False
    issued_by: str | None = None
    issued_with: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the secret that *row* holds.

        Raises:
            ForeignValueError: A column holds what keyctl never writes there.
        """
        secret = cls(**row)
        check(secret)
        return secret

    def columns(self) -> dict[str, Any]:
        """Return the secret as column values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run's exclusive right to change a key's secrets, until its deadline."""

    key_id: str
    run_id: str
    fingerprint: str | None
    staged_at: datetime
    deadline_at: datetime


@dataclass(frozen=True, slots=True)
class Presented:
    """What the database knows about a presented key string."""

    secret: Secret
    key: Key
    team: Team | None
    organization: Organization | None
    user: User | None
    member: Member | None = None
    tiers: Mapping[str, Tier] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderObject:
    """What a provider made for a key and knows under an id: a batch, a background answer, a file.

    `charged_to` lists the budgets that its cost is charged to: table, id, meter, what is reserved
    of it and, for a metered one, limit, period and when that began to count.
    `reserved` and `cost` are nano-dollars; for a file they are what a batch of it may cost, None
    where nobody can tell.
    """

    id: str
    deployment: str
    kind: str
    provider_id: str
    key_id: str
    charged_to: list[list[Any]]
    reserved: int
    cost: int | None
    created_at: datetime
    charged_at: datetime | None
