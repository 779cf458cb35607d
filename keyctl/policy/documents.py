"""Validate policy documents: what a team, an organization or the configuration allows.

Names are LiteLLM's where it has one.  The same document serves all three layers.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from keyctl.errors import MalformedRequestError, UnreadableRowError
from keyctl.fields import (
    Dollars,
    DurationText,
    Limit,
    Name,
    Names,
    PeriodText,
    Strict,
    refusal,
    validate,
)
from keyctl.policy import patterns
from keyctl.records import Organization, Team
from keyctl.requests import KeyFields


def _pattern(text: str) -> str:
    if why := patterns.problem(text):
        raise refusal(f"is not a regular expression that RE2 accepts: {why}")
    return text


class Bounds(Strict):
    """The most that a key may be given, field by field."""

    max_budget: Dollars | None = None
    duration: DurationText | None = None
    budget_duration: PeriodText | None = None
    tpm_limit: Limit | None = None
    rpm_limit: Limit | None = None
    max_parallel_requests: Limit | None = None


class KeyDefaults(KeyFields):
    """Values for fields that a request leaves out."""


MemberPermission = Literal[
    "/key/generate",
    "/key/service-account/generate",
    "/key/update",
    "/key/regenerate",
    "/key/delete",
    "/key/block",
    "/key/unblock",
    "/key/info",
    "/key/list",
]
Pattern = Annotated[Name, AfterValidator(_pattern)]


class KeyRules(Strict):
    """What any layer, the configuration included, can demand of keys."""

    allowed_team_member_roles: list[Literal["admin", "user"]] | None = None
    team_member_permissions: list[MemberPermission] | None = None
    required_params: Names | None = None
    max_keys: Annotated[int, Field(ge=0)] | None = None
    create_member_keys: bool | None = None
    require_expiry: bool | None = None
    max_rotation_interval: DurationText | None = None
    allowed_tags: Names | None = None


class Policy(KeyRules):
    """What a team or an organization allows for new and changed keys."""

    default_key_generate_params: KeyDefaults | None = None
    upperbound_key_generate_params: Bounds | None = None
    key_alias_pattern: Pattern | None = None
    budget_allocation: Literal["shared", "guaranteed"] | None = None


class PersonalPolicy(KeyRules):
    """What the configuration demands of keys without a team."""

    allowed_user_roles: (
        list[
            Literal[
                "proxy_admin",
                "proxy_admin_viewer",
                "org_admin",
                "internal_user",
                "internal_user_viewer",
            ]
        ]
        | None
    ) = None


def granted(layers: Iterable[KeyRules | None]) -> frozenset[str]:
    """Return what plain members of a team may do: what every layer grants that grants anything.

    Where none does, plain members of a team make no keys in it, as in LiteLLM.
    """
    grants = [
        frozenset(policy.team_member_permissions)
        for policy in layers
        if policy is not None and policy.team_member_permissions is not None
    ]
    return frozenset.intersection(*grants) if grants else frozenset()


def parse_policy(document: Mapping[str, Any], *, stored: bool = False) -> Policy:
    """Return the policy in *document*; *stored* says that the database holds it.

    Raises:
        MalformedRequestError: With every name or value that does not belong there.
    """
    return validate(Policy, document, what="the policy", schema="team-policy", stored=stored)


def stored_policy(owner: Team | Organization | None) -> Policy | None:
    """Return the policy that the database holds for a team or an organization, if any.

    Raises:
        UnreadableRowError: It is none.
    """
    if owner is None or owner.policy is None:
        return None
    try:
        return parse_policy(owner.policy, stored=True)
    except MalformedRequestError as error:
        word = type(owner).__name__.lower()
        raise UnreadableRowError(
            f"the policy of {word} {owner.id} cannot be read: {error.message}",
            hint=f"keyctl {'org' if word == 'organization' else word} update {owner.id} --policy FILE gives it another one",
            object_type=word,
            object_id=owner.id,
            columns=["policy"],
            known=owner.columns(),
        ) from error
