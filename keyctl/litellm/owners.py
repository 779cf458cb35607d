"""Map rows of LiteLLM's users, organizations and teams.  Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

from keyctl.errors import UnmappableRowError
from keyctl.litellm.inventory import refuse_restricted
from keyctl.litellm.keys import created_by, without_misfits
from keyctl.litellm.members import MappedMember, organization_members, team_members
from keyctl.litellm.spending import (
    budget_of,
    documents,
    model_budgets,
    period,
    tier_name,
    tier_of,
)
from keyctl.litellm.values import (
    Row,
    dollars,
    length,
    names,
    pick,
    spent,
    without_empty,
)
from keyctl.policy.documents import MemberPermission
from keyctl.principals import principal_values
from keyctl.records import Organization, Principal, Team, User

_ROLES: Final = names("proxy_admin proxy_admin_viewer org_admin internal_user internal_user_viewer")
_DEFAULT: Final = "internal_user"  # what LiteLLM takes an unknown or missing role for
_LEAST: Final = "internal_user_viewer"
_LIMITS: Final = ("tpm_limit", "rpm_limit")
_OF_ALL: Final = ("max_parallel_requests", "tpd_limit")
_PER_MODEL: Final = ("model_tpm_limit", "model_rpm_limit")
_PERMISSIONS: Final = get_args(MemberPermission)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedOwner:
    """A user, an organization or a team as columns, what means something else here, and its members."""

    columns: dict[str, Any]
    changes: tuple[str, ...] = ()
    members: tuple[MappedMember, ...] = ()
    tier_id: str | None = None
    tier: dict[str, Any] = field(default_factory=dict)


def map_user(row: Row, *, dropped: Collection[str] = ()) -> MappedOwner:
    """Return the decoded *row* as columns.

    Raises:
        UnmappableRowError, MalformedRequestError: It has no equal here.
    """
    refuse_restricted("user", row, dropped)
    changes: list[str] = []
    metadata = _metadata(row)
    tier_id = tier_name(f"user {row.get('user_id')}")
    tier = tier_of("user", row, tier_id, changes, dropped)
    document = {
        **pick(row, ("models", *_LIMITS)),
        "budget_id": tier_id if tier else None,
        "email": row.get("user_email"),
        "role": _role(row.get("user_role"), changes),
        # LiteLLM refuses the keys of a user whom SCIM has switched off.
        "blocked": metadata.get("scim_active") is False or None,
        "metadata": metadata,
    }
    mapped = _owner(User, row, row.get("user_id"), document, row, changes)
    return replace(mapped, tier_id=tier_id, tier=tier)


def map_organization(row: Row, *, dropped: Collection[str] = ()) -> MappedOwner:
    """Return the decoded *row*, its budget row and its members.

    Raises:
        UnmappableRowError, MalformedRequestError: It has no equal here.
    """
    refuse_restricted("organization", row, dropped)
    budget = {
        name: value
        for name, value in budget_of(row).items()
        if f"organization.budget.{name}" not in dropped
    }
    changes: list[str] = []
    metadata = _metadata(row)
    document = {
        **pick(row, ("models",)),
        **pick(budget, (*_OF_ALL, *_LIMITS)),
        "model_max_budget": model_budgets(budget, changes),
        **_per_model(metadata),
        "name": row.get("organization_alias"),
        "metadata": metadata,
    }
    object_id, members = row.get("organization_id"), organization_members(row)
    return _owner(Organization, row, object_id, document, budget, changes, members)


def map_team(row: Row, *, dropped: Collection[str] = ()) -> MappedOwner:
    """Return the decoded *row* and its members.

    Raises:
        UnmappableRowError, MalformedRequestError: It has no equal here.
    """
    refuse_restricted("team", row, dropped)
    changes: list[str] = []
    metadata = _metadata(row)
    kept = {name: value for name, value in row.items() if f"team.{name}" not in dropped}
    document = {
        **pick(kept, ("models", "organization_id", *_OF_ALL, *_LIMITS)),
        **documents(kept, changes),
        **_per_model(metadata),
        # A group that a team names adds to its models, and nothing to an empty list, which is all.
        "models": [*row["models"], *(row.get("access_group_ids") or ())]
        if row.get("models")
        else [],
        "name": row.get("team_alias"),
        "blocked": bool(row.get("blocked")) or None,
        "metadata": metadata,
        "policy": _policy(row, changes),
    }
    members = team_members(row, dropped, changes)
    return _owner(Team, row, row.get("team_id"), document, row, changes, members)


def _owner(
    kind: type[Principal],
    row: Row,
    object_id: Any,
    document: Mapping[str, Any],
    budget: Row,
    changes: list[str],
    members: Collection[MappedMember] = (),
) -> MappedOwner:
    if not isinstance(object_id, str):
        raise UnmappableRowError("it has no id")
    whole = without_empty(
        {
            **document,
            "max_budget": dollars("max_budget", budget.get("max_budget")),
            "budget_duration": length("budget_duration", budget.get("budget_duration"), changes),
        }
    )
    values = without_misfits(
        whole,
        lambda fitting: principal_values(kind, object_id, fitting),
        soft=("name", "email"),
        changes=changes,
    )
    kept = {"created_at": row.get("created_at"), "created_by": created_by(row), **period(budget)}
    return MappedOwner(
        columns={
            **values,
            **without_empty(kept),
            "id": object_id,
            "spend": spent(row.get("spend")),
        },
        changes=tuple(changes),
        members=tuple(members),
    )


def _metadata(row: Row) -> dict[str, Any]:
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise UnmappableRowError("metadata is not an object")
    return {name: value for name, value in metadata.items() if name != "logging"}


def _per_model(metadata: dict[str, Any]) -> dict[str, Any]:
    """Take the limits by model out of *metadata*, where LiteLLM keeps them, and return them."""
    found = {name: metadata.pop(name) for name in _PER_MODEL if name in metadata}
    return {
        name: without_empty(value) if isinstance(value, dict) else value
        for name, value in found.items()
    }


def _role(role: Any, changes: list[str]) -> str:
    if role in _ROLES:
        return str(role)
    if role in (None, ""):
        return _DEFAULT
    changes.append(f"user_role {str(role)[:40]!r} is no role here: {_LEAST}")
    return _LEAST


def _policy(row: Row, changes: list[str]) -> dict[str, Any] | None:
    """Return the policy that grants plain members what LiteLLM's permissions do."""
    asked = [name for name in row.get("team_member_permissions") or () if isinstance(name, str)]
    known = [name for name in asked if name in _PERMISSIONS]
    if len(known) < len(asked):
        strange = ", ".join(sorted(set(asked) - set(known)))[:200]
        changes.append(f"team_member_permissions not granted here: {strange}")
    return {"team_member_permissions": known} if known else None
