"""Hold what the rules look at: the caller, the key as it would be, and everything around it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from keyctl.records import Key, Member, Organization, Team, Tier, User

if TYPE_CHECKING:
    # Its models would bring pydantic into every command that has a caller.
    from keyctl.policy.documents import PersonalPolicy, Policy

Operation = Literal[
    "generate", "update", "rotate", "revoke", "delete", "block", "unblock", "import"
]

LOCAL: Final = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who acts: the local operator, or the owner of the key in KEYCTL_API_KEY.

    `role` is the user's role; None for a key without a user.  `team_roles` and
    `organization_roles` are the user's memberships, `team_grants` what policies let them do in
    teams whose plain member they are.  `service_team` is set for a service
    account only.  `ends_at` is when the secret in hand ends, None for never; the `key_…` fields
    are what limits the caller's key besides itself, and `groups` the models of every access group.
    """

    actor: str
    role: str | None
    user_id: str | None = None
    key: Key | None = None
    team_roles: Mapping[str, str] = field(default_factory=dict)
    organization_roles: Mapping[str, str] = field(default_factory=dict)
    team_grants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    service_team: str | None = None
    changed_by: str | None = None
    secret_id: str | None = None
    ends_at: datetime | None = None
    key_team: Team | None = None
    key_organization: Organization | None = None
    key_user: User | None = None
    key_member: Member | None = None
    key_tier: Tier | None = None
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def principal(self) -> str:
        """Return on whose authority the caller acts: `user:ID`, a service account's `key:ID`, or `local`."""
        if self.user_id is not None:
            return f"user:{self.user_id}"
        return LOCAL if self.key is None else self.actor

    @property
    def is_admin(self) -> bool:
        """Tell whether the caller acts as proxy admin."""
        return self.role == "proxy_admin"

    @property
    def is_viewer(self) -> bool:
        """Tell whether the caller may read but not write."""
        return self.role in ("proxy_admin_viewer", "internal_user_viewer")

    def administers_team(self, team: Team | None) -> bool:
        """Tell whether the caller is admin of *team* or of its organization."""
        if team is None or self.is_viewer:
            return False
        return self.team_roles.get(team.id) == "admin" or self.administers_organization(
            team.organization_id
        )

    def administers_organization(self, organization_id: str | None) -> bool:
        """Tell whether the caller is org admin, by membership, of this organization."""
        return (
            organization_id is not None
            and self.organization_roles.get(organization_id) == "org_admin"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What the other live keys of a team, an organization or everybody add up to."""

    keys: int = 0
    max_budget: int = 0
    tpm: int = 0
    rpm: int = 0
    model_tpm: Mapping[str, int] = field(default_factory=dict)
    model_rpm: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The policies that apply, each None where there is none."""

    team: "Policy | None" = None
    organization: "Policy | None" = None
    everywhere: "Policy | None" = None
    personal: "PersonalPolicy | None" = None
    custom_keys_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything a rule may look at.

    `key` is the key as it would be afterwards, `before` as it is (None at creation); `given`
    are the fields that the request names with a value, `cleared` those it sets to null; `moved`
    that an update puts the key into another team or organization, which is judged as creation there.
    `issued` counts the keys that the caller's key has made, and `most_issued` is how many it may.
    `supplied_is_strong` is None when no key string was supplied; `rotated` is the state of a key
    that is to be rotated, and `to_own_sink` tells that its new string goes where the key's always do.
    `led_away` tells that an update moves the place where the key's next string is delivered.
    """

    operation: Operation
    key: Key
    before: Key | None = None
    given: frozenset[str] = frozenset()
    cleared: frozenset[str] = frozenset()
    moved: bool = False
    caller: Caller
    team: Team | None = None
    organization: Organization | None = None
    user: User | None = None
    owner_team_role: str | None = None
    owner_organization_role: str | None = None
    layers: Layers = Layers()
    team_sums: Sums = Sums()
    organization_sums: Sums = Sums()
    all_sums: Sums = Sums()
    issued: int = 0
    most_issued: int | None = None
    supplied_is_strong: bool | None = None
    rotated: str = "active"
    to_own_sink: bool = False
    led_away: bool = False
    now: datetime
