"""Every kind of budget of half a dollar: how to give it to a key, and where its spend is."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gate import Gate

CENT = 10_000_000


def tier(gate: Gate, budget: float, period: str | None = "1d") -> None:
    """Make the tier `small`."""
    gate.execute(
        "INSERT INTO budgets (id, max_budget, budget_duration, model_max_budget, created_at,"
        " created_by, updated_at, updated_by) VALUES ('small', :budget, :period, '{}',"
        " '2026-01-01 00:00:00.000000', 't', '2026-01-01 00:00:00.000000', 't')",
        budget=int(budget * 100) * CENT,
        period=period,
    )


@dataclass(frozen=True)
class Kind:
    """A kind of budget of half a dollar, how to give it to a key, and where its spend is."""

    request: Mapping[str, Any]
    setup: Callable[[Gate], object] = lambda _: None
    spent: str = "SELECT spend FROM meters"


def column(table: str) -> Kind:
    """Return the budget of an owner's own row."""
    return Kind(
        {},
        lambda gate: gate.execute(f"UPDATE {table} SET max_budget = {50 * CENT}"),
        f"SELECT spend FROM {table}",
    )


def of_tier(table: str) -> Kind:
    """Return the budget of a tier that these name."""

    def setup(gate: Gate) -> None:
        tier(gate, 0.5)
        gate.execute(f"UPDATE {table} SET budget_id = 'small'")

    return Kind({}, setup)


DAILY: dict[str, Any] = {"budget_duration": "1d", "max_budget": 0.5}


def documented(table: str, column: str, value: Any) -> Kind:
    """Return the budgets in a document of an owner."""

    def setup(gate: Gate) -> None:
        gate.execute(f"UPDATE {table} SET {column} = :value", value=json.dumps(value))

    return Kind({}, setup)


KINDS: dict[str, Kind] = {
    "key": column("keys"),
    "team": column("teams"),
    "user": column("users"),
    "organization": column("organizations"),
    "member": Kind(
        {},
        lambda gate: gate.execute(f"UPDATE team_members SET max_budget = {50 * CENT}"),
    ),
    "window": Kind({"budget_limits": [DAILY]}),
    "model": Kind({"model_max_budget": {"gpt-4o": {"budget_limit": 0.5, "time_period": "1d"}}}),
    "window of a team": documented("teams", "budget_limits", [DAILY]),
    "model of a team": documented("teams", "model_max_budget", {"gpt-4o": DAILY}),
    "model of an organization": documented("organizations", "model_max_budget", {"gpt-4o": DAILY}),
    "tier of a key": of_tier("keys"),
    "tier of a user": of_tier("users"),
    "tier of a member": of_tier("team_members"),
}


def made(gate: Gate, kind: Kind) -> str:
    """Make a key with a budget of that kind."""
    key = gate.key(**gate.owners(), **kind.request)
    kind.setup(gate)
    return key
