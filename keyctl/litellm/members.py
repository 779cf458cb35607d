"""Map who belongs to LiteLLM's organizations and teams, and what budget rows limit them there.  Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from keyctl import money
from keyctl.errors import KeyctlError, UnmappableRowError
from keyctl.litellm import inventory
from keyctl.litellm.spending import tier_name, tier_of
from keyctl.litellm.values import EMPTY, Row, decoded, dollars, length, pick, spent, without_empty

_DEFAULT_ROLE: Final = "internal_user"
_RATES: Final = ("tpm_limit", "rpm_limit")
_AMOUNT: Final = ("max_budget", "budget_duration", "budget_reset_at")
# The column of a membership that names its budget row.
_REFERENCE: Final = "member.budget_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedMember:
    """A membership: its role here, or why there is none, or what refuses it.

    `limits` are the columns of a member whom a budget of their own limits, `spend` is what of it is
    spent in nano-dollars, and `reset_at` when its period ends.  `tier` is what else limits them, which
    is kept under the name `tier_id`.  `lost` are the columns that have no home.
    """

    user_id: str
    role: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    spend: int = 0
    reset_at: datetime | None = None
    tier_id: str | None = None
    tier: dict[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    skipped: str | None = None
    refusal: KeyctlError | None = None


def organization_members(row: Row) -> list[MappedMember]:
    """Return the members of an organization.

    LiteLLM stores a budget row and the spend of such a member, and checks neither: the row limits
    nobody, so it refuses nobody here.
    """
    return [_organization_member(item) for item in row.get("members", ()) if item.get("user_id")]


def _organization_member(item: Row) -> MappedMember:
    user_id, role = str(item["user_id"]), item.get("user_role") or _DEFAULT_ROLE
    if role not in ("org_admin", _DEFAULT_ROLE):
        return MappedMember(
            user_id=user_id, skipped=f"role {str(role)[:40]!r} has no equal in an organization"
        )
    lost = (_REFERENCE,) if item.get("budget_id") else ()
    return MappedMember(user_id=user_id, role=str(role), lost=lost)


def team_members(row: Row, dropped: Collection[str], changes: list[str]) -> list[MappedMember]:
    """Return the members of a team, each with the budget rows that limit them there.

    Raises:
        UnmappableRowError: They are not in a list.
    """
    found: dict[str, MappedMember] = {}
    entries = row.get("members_with_roles") or []
    if not isinstance(entries, list):
        raise UnmappableRowError("members_with_roles is not a list")
    limited = {item.get("user_id"): item for item in row.get("limited_members", ())}
    default = row.get("default_member_budget")
    for item in entries:
        user_id = item.get("user_id") if isinstance(item, dict) else None
        if not isinstance(user_id, str) or not user_id:
            # LiteLLM matches members by id only.
            changes.append("a member without a user_id is nobody: left out")
            continue
        role = "admin" if item.get("role") == "admin" else "user"
        own = limited.get(user_id, {})
        found[user_id] = _team_member(user_id, role, own, default, dropped, changes)
    return list(found.values())


def _team_member(
    user_id: str,
    role: str,
    own: Row,
    default: Row | None,
    dropped: Collection[str],
    changes: list[str],
) -> MappedMember:
    lost: list[str] = []
    try:
        budget = own.get("litellm_budget_table")
        if own.get("budget_id") and not isinstance(budget, dict):
            lost.append(_REFERENCE)
        budget, tier_id = decoded(budget or {}), tier_name(f"budget {own.get('budget_id')}")
        if default is not None:
            budget, tier_id = _with_default(budget, decoded(default), tier_id)
        lost += inventory.lost("member", budget, dropped)
        _refuse_restricted(lost, dropped)
        amount = dollars("max_budget", budget.get("max_budget"))
        tier = tier_of("member", budget, tier_id, changes, dropped)
        limits = {
            **pick(budget, _RATES),
            "budget_id": tier_id if tier else None,
            "max_budget": None if amount is None else money.to_nano(amount),
            "budget_duration": length("budget_duration", budget.get("budget_duration"), changes),
        }
        return MappedMember(
            user_id=user_id,
            role=role,
            limits=without_empty(limits),
            spend=spent(decoded({"spend": own.get("spend")})["spend"]),
            reset_at=budget.get("budget_reset_at"),
            tier_id=tier_id if tier else None,
            tier=tier,
            lost=tuple(lost),
        )
    except KeyctlError as error:
        return MappedMember(user_id=user_id, refusal=error, lost=tuple(lost))


def _refuse_restricted(lost: Collection[str], dropped: Collection[str]) -> None:
    for name in inventory.RESTRICTING["member"]:
        if f"member.{name}" in lost:
            inventory.refuse_unless_dropped(f"member.{name}", dropped)


def _with_default(own: Row, default: Row, tier_id: str) -> tuple[dict[str, Any], str]:
    """Return what limits a member of a team that has a budget for all who have none of their own.

    There the team's row serves the amount, with its period, and the budgets of single models, each
    where the member's own says none; its rates serve nobody.  A tier of two rows has a name of both.
    """
    whole = dict(own)
    if own.get("max_budget") is None and _limits_somebody(default.get("max_budget")):
        whole |= {name: default.get(name) for name in _AMOUNT}
    if own.get("model_max_budget") in EMPTY and default.get("model_max_budget") not in EMPTY:
        whole["model_max_budget"] = default["model_max_budget"]
        of_default = tier_name(f"budget {default.get('budget_id')}")
        is_alone = all(own.get(name) in EMPTY for name in ("max_parallel_requests", "tpd_limit"))
        tier_id = of_default if is_alone else f"{tier_id} {default.get('budget_id')}"[:255]
    return whole, tier_id


def _limits_somebody(amount: Any) -> bool:
    """Tell whether LiteLLM takes a team's default amount for one: nothing, or no end of money, is none."""
    return isinstance(amount, (int, Decimal)) and Decimal(amount).is_finite() and amount > 0
