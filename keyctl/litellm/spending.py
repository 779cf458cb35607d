"""Read what a key may spend and how fast, from its row and the budget row that it names.  Pure."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from keyctl import money
from keyctl.errors import UnmappableRowError
from keyctl.litellm.values import Row, decoded, dollars, length, spent, without_empty
from keyctl.principals import tier_values


def budget_of(row: Row) -> Row:
    """Return the budget row that a key or an organization is linked to, an empty one if there is none."""
    found = row.get("litellm_budget_table")
    return found if isinstance(found, dict) else {}


def limits(row: Row, budget: Row) -> dict[str, Any]:
    """Return the limits in force: what the key leaves open is the budget row's."""
    names = ("tpm_limit", "rpm_limit", "tpd_limit")
    return {name: budget.get(name) if row.get(name) is None else row.get(name) for name in names}


def spending(row: Row, budget: Row, changes: list[str]) -> dict[str, Any]:
    """Return the budgets in force and what is spent, in dollars.

    Raises:
        UnmappableRowError: An amount or a period is none.
    """
    found: dict[str, Any] = {
        name: dollars(name, budget.get(name) if row.get(name) is None else row.get(name))
        for name in ("max_budget", "soft_budget")
    }
    found["spend"] = money.dollars(spent(row.get("spend")))
    found["budget_duration"] = length(
        "budget_duration", row.get("budget_duration") or budget.get("budget_duration"), changes
    )
    per_model = row.get("model_max_budget") or budget.get("model_max_budget") or {}
    return {**found, **documents({**row, "model_max_budget": per_model}, changes)}


def documents(row: Row, changes: list[str]) -> dict[str, Any]:
    """Return the windows and the budgets of single models of a key or a team, in dollars.

    Raises:
        UnmappableRowError: An amount or a period is none.
    """
    windows = [
        {
            "budget_duration": length("budget_limits", window.get("budget_duration"), changes),
            "max_budget": dollars("budget_limits", window.get("max_budget")),
        }
        for window in _objects("budget_limits", row.get("budget_limits") or ())
    ]
    return {
        "budget_limits": _smallest_of_each_length(windows, changes),
        "model_max_budget": model_budgets(row, changes),
    }


def _smallest_of_each_length(windows: Sequence[Row], changes: list[str]) -> Sequence[Row]:
    """Return *windows* with one of each length: there two of a length count the same spend, so the smaller one holds."""
    kept: dict[Any, Row] = {}
    for window in windows:
        period, amount = window["budget_duration"], window["max_budget"]
        if (known := kept.setdefault(period, window)) is window:
            continue
        if period is None or amount is None or known["max_budget"] is None:
            return windows  # which is refused for that
        kept[period] = min(known, window, key=lambda item: item["max_budget"])
        told = f"budget_limits names {period} twice: the smaller one is kept"
        if told not in changes:
            changes.append(told)
    return list(kept.values())


def tier_name(origin: str) -> str:
    """Return the id of the tier that is made of a row there."""
    return f"litellm {origin}"[:255]


def tier_of(
    kind: str, row: Row, tier_id: str, changes: list[str], dropped: Collection[str]
) -> dict[str, Any]:
    """Return what *row* limits that a user or a member has here by a tier only, as its columns.

    Raises:
        UnmappableRowError, MalformedRequestError: It has no equal here.
    """
    row = {name: value for name, value in row.items() if f"{kind}.{name}" not in dropped}
    document = {
        **{name: row.get(name) for name in ("max_parallel_requests", "tpd_limit")},
        "model_max_budget": model_budgets(row, changes),
    }
    found = without_empty(document)
    return tier_values(tier_id, found) if found else {}


def model_budgets(row: Row, changes: list[str]) -> dict[str, dict[str, Any]]:
    """Return the budgets of single models in *row*, in dollars.

    Raises:
        UnmappableRowError: An amount or a period is none.
    """
    given = row.get("model_max_budget") or {}
    if not isinstance(given, dict):
        raise UnmappableRowError("model_max_budget is not an object")
    models = zip(given, _objects("model_max_budget", given.values()), strict=True)
    return {model: _model_budget(item, changes) for model, item in models}


def _model_budget(item: Row, changes: list[str]) -> dict[str, Any]:
    amount = item.get("max_budget", item.get("budget_limit"))
    period = item.get("budget_duration", item.get("time_period"))
    return without_empty(
        {
            **{name: item.get(name) for name in ("tpm_limit", "rpm_limit")},
            "max_budget": dollars("model_max_budget", amount),
            "budget_duration": length("model_max_budget", period, changes),
        }
    )


def period(row: Row) -> dict[str, datetime]:
    """Return when the budget period ends and what later ones are counted from: that very instant."""
    reset_at = row.get("budget_reset_at")
    if reset_at is None or not row.get("budget_duration"):
        return {}
    return {"budget_reset_at": reset_at, "budget_anchor_at": reset_at}


def _objects(name: str, items: Collection[Any]) -> list[dict[str, Any]]:
    if any(not isinstance(item, dict) for item in items):
        raise UnmappableRowError(f"{name} holds something that is not an object")
    return [decoded(item) for item in items]
