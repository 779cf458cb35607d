"""Declare what a fleet file may say, section by section, and validate it field by field."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from keyctl.fields import Alias, Dollars, Instant, Limit, Name, PeriodText, Strict, refusal
from keyctl.records import Organization, Principal, Team, User
from keyctl.requests import KeyFields

VERSION: Final = 1
DEFAULT_FLEET: Final = "default"
MOST_KEYS: Final = 100_000
COUNTER: Final = "{n}"

FleetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
KeyId = Annotated[str, StringConstraints(pattern=r"^key_[0-9A-Za-z]{20}$")]


class Heading(Strict):
    """What a file says about itself."""

    version: Literal[1] = VERSION
    fleet: FleetName = DEFAULT_FLEET


class TeamMember(Strict):
    """What a user is in a team, and what its keys there may spend in sum."""

    role: Literal["admin", "user"] = "user"
    max_budget: Dollars | None = None
    budget_duration: PeriodText | None = None
    tpm_limit: Limit | None = None
    rpm_limit: Limit | None = None
    budget_id: Name | None = None


class OrganizationMember(Strict):
    """What a user is in an organization."""

    role: Literal["org_admin", "internal_user"] = "internal_user"


class KeyEntry(KeyFields):
    """One key, or as many as `count` says, with what a request for it would say."""

    key_alias: Alias | None = None
    user_id: Name | None = None
    team_id: Name | None = None
    organization_id: Name | None = None
    expires: Instant | None = None
    service_account: bool | None = None
    count: Annotated[int, Field(ge=0, le=MOST_KEYS)] | None = None
    was: Alias | None = None
    adopt: KeyId | None = None
    deliver: Name | None = None
    rotate: bool | None = None
    administers: bool | None = None

    @model_validator(mode="after")
    def _whole(self) -> "KeyEntry":
        if self.duration is not None and self.expires is not None:
            raise refusal("give either duration or expires, not both")
        if bool(self.auto_rotate) != (self.rotation_interval is not None):
            raise refusal("auto_rotate and rotation_interval are only given together")
        if self.adopt is not None and self.count is not None:
            raise refusal("adopt names one key, and count makes several")
        return self


# What tells keyctl how to go about a key, and is no field of it.
INSTRUCTIONS: Final = ("key_alias", "count", "was", "adopt", "deliver", "rotate", "administers")

# The sections of owners, in the order in which they are made.
OWNERS: Final[dict[str, type[Principal]]] = {
    "organizations": Organization,
    "users": User,
    "teams": Team,
}
BUDGETS: Final = "budgets"
SECTIONS: Final = (BUDGETS, *OWNERS, "keys")
MEMBERS: Final[dict[type[Principal], type[TeamMember] | type[OrganizationMember]]] = {
    Team: TeamMember,
    Organization: OrganizationMember,
}
# LiteLLM's names beside the ones that `keyctl team create` has; a file may use either.
SYNONYMS: Final[dict[type[Principal], dict[str, str]]] = {
    Organization: {"organization_alias": "name"},
    User: {"user_email": "email", "user_role": "role"},
    Team: {"team_alias": "name"},
}
