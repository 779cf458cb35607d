"""Validate what comes in for teams, users and organizations, field by field."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import model_validator

from keyctl import money, names, nearest
from keyctl.errors import MalformedRequestError, Violation
from keyctl.fields import (
    BLANK,
    Dollars,
    Email,
    Limit,
    Limits,
    Metadata,
    Name,
    Names,
    PeriodText,
    Strict,
    Text,
    validate,
)
from keyctl.policy.documents import Policy
from keyctl.records import Organization, Principal, Team, User
from keyctl.requests import BudgetWindow, ModelBudget, Windows, refuse_twice

Role = Literal[
    "proxy_admin", "proxy_admin_viewer", "org_admin", "internal_user", "internal_user_viewer"
]


class PrincipalRequest(Strict):
    """What organizations, users and teams can all be given."""

    id: Text
    models: Names | None = None
    max_budget: Dollars | None = None
    budget_duration: PeriodText | None = None
    tpm_limit: Limit | None = None
    rpm_limit: Limit | None = None
    metadata: Metadata | None = None
    blocked: bool | None = None


class OrganizationRequest(PrincipalRequest):
    """What an organization can be given."""

    name: Name | None = None
    model_max_budget: dict[Name, ModelBudget] | None = None
    tpd_limit: Limit | None = None
    max_parallel_requests: Limit | None = None
    model_tpm_limit: Limits | None = None
    model_rpm_limit: Limits | None = None
    policy: Policy | None = None


class UserRequest(PrincipalRequest):
    """What a user can be given."""

    email: Email | None = None
    role: Role | None = None
    budget_id: Name | None = None


class TierRequest(Strict):
    """What a budget tier can be given."""

    id: Text
    max_budget: Dollars | None = None
    soft_budget: Dollars | None = None
    budget_duration: PeriodText | None = None
    tpm_limit: Limit | None = None
    rpm_limit: Limit | None = None
    tpd_limit: Limit | None = None
    max_parallel_requests: Limit | None = None
    model_max_budget: dict[Name, ModelBudget] | None = None


class MemberRequest(Strict):
    """What a member of a team can be given."""

    id: Text
    role: Literal["admin", "user"] | None = None
    max_budget: Dollars | None = None
    budget_duration: PeriodText | None = None
    tpm_limit: Limit | None = None
    rpm_limit: Limit | None = None
    budget_id: Name | None = None


class TeamRequest(OrganizationRequest):
    """What a team can be given."""

    organization_id: Name | None = None
    budget_limits: Windows | None = None

    @model_validator(mode="after")
    def _together(self) -> "TeamRequest":
        refuse_twice(self.budget_limits)
        return self


_MODELS: Final[dict[type[Principal], tuple[type[PrincipalRequest], str]]] = {
    Organization: (OrganizationRequest, "organization"),
    User: (UserRequest, "user"),
    Team: (TeamRequest, "team"),
}
# What a field that is cleared becomes, where that is not null.
_EMPTY: Final[dict[str, Any]] = {
    "models": [],
    "budget_limits": [],
    "model_max_budget": {},
    "metadata": {},
    "model_tpm_limit": {},
    "model_rpm_limit": {},
    "blocked": False,
    "role": "internal_user",
}


def owner_model(kind: type[Principal]) -> type[PrincipalRequest]:
    """Return what an owner of this kind can be given."""
    return _MODELS[kind][0]


def owner_fields(kind: type[Principal]) -> list[str]:
    """Return the fields that an owner of this kind can be given, its id apart."""
    return [name for name in _MODELS[kind][0].model_fields if name != "id"]


def principal_values(
    kind: type[Principal], object_id: str, document: Mapping[str, Any], *, new: bool = True
) -> dict[str, Any]:
    """Return *document* as column values; names set to null are cleared.

    *new* is False for an owner that is there already, whatever older versions took for an id.

    Raises:
        MalformedRequestError: With one violation for each thing that is wrong.
    """
    model, schema = _MODELS[kind]
    values = _values(model, schema, object_id, document, new=new)
    if values.get("policy") is not None:
        # As it was given: an amount of money stays in dollars, and what was left out, out.
        values["policy"] = {
            name: value for name, value in document["policy"].items() if value is not None
        }
    return values


def tier_fields() -> list[str]:
    """Return the fields that a budget tier can be given, its id apart."""
    return [name for name in TierRequest.model_fields if name != "id"]


def tier_values(tier_id: str, document: Mapping[str, Any], *, new: bool = True) -> dict[str, Any]:
    """Return *document* as column values of a budget tier; names set to null are cleared.

    *new* is False for a tier that is there already.

    Raises:
        MalformedRequestError: With one violation for each thing that is wrong.
    """
    return _values(TierRequest, "budget", tier_id, document, new=new)


def member_values(user_id: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return *document* as column values of a member; limits set to null are cleared.

    Raises:
        MalformedRequestError: With one violation for each thing that is wrong.
    """
    values = _values(MemberRequest, "member", user_id, document, new=False)
    if "role" in values and values["role"] is None:
        raise MalformedRequestError(
            "the member is malformed: a member has a role", hint="give --role admin or --role user"
        )
    return values


def _values(
    model: type[Strict], schema: str, object_id: str, document: Mapping[str, Any], *, new: bool
) -> dict[str, Any]:
    if new and object_id and names.is_blank(object_id):
        raise MalformedRequestError(
            f"the {schema} is malformed: its id consists of blanks only",
            hint="give it an id that people can see",
            violations=[Violation(rule="request.value", field="id", message=BLANK)],
        )
    validated = validate(model, {"id": object_id, **document}, what=f"the {schema}", schema=schema)
    values: dict[str, Any] = {}
    for name, value in document.items():
        if value is not None:
            values[name] = getattr(validated, name)
        elif name in model.model_fields and name != "id":
            values[name] = None if model is MemberRequest else _EMPTY.get(name)
        else:
            raise MalformedRequestError(
                f"the {schema} is malformed: {name!r} is not a field that can be cleared",
                hint=nearest.meant(
                    name,
                    [field for field in model.model_fields if field != "id"],
                    otherwise=f"keyctl schema {schema} prints what there is",
                ),
                violations=[
                    Violation(rule="request.unknown_field", field=name, message="is not known")
                ],
            )
    if "budget_limits" in values:
        values["budget_limits"] = [_stored(window) for window in values["budget_limits"]]
    if "model_max_budget" in values:
        values["model_max_budget"] = {
            model: _stored(budget) for model, budget in values["model_max_budget"].items()
        }
    return values


def _stored(budget: BudgetWindow | ModelBudget) -> dict[str, Any]:
    """Return a budget inside a document as it is stored: its amount in dollars."""
    return {
        name: money.dollars(value) if name == "max_budget" else value
        for name, value in budget.model_dump(exclude_none=True).items()
    }
