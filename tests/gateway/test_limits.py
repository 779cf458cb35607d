"""Each row of `schema fields` that the verifier enforces: it holds, and not without its enforcement.

The id of a case is the field and whose it is.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

from keyctl import lifecycle, limits, purses, routes
from keyctl.gateway import Verifier, rates, source
from keyctl.gateway.cached_key import Entry
from keyctl.policy import models
from keyctl.purses import Budget, Meter, PurseName
from keyctl.records import Presented

TABLES = {
    "key": "keys",
    "member": "team_members",
    "team": "teams",
    "user": "users",
    "organization": "organizations",
}
# A period that is over: spend begins anew.
PAST = "2026-01-02 00:00:00.000000"
MODEL = "gpt-4o"
WINDOWS = [{"budget_duration": "1d", "max_budget": 1}]
OF_MODEL = {MODEL: {"budget_duration": "1d", "max_budget": 1}}


@dataclass(frozen=True)
class Case:
    """A row: how to limit a key so, whether it is then refused, and what takes the enforcement out."""

    limit: Callable[[Gate], str]
    is_refused: Callable[[Verifier, str], bool]
    without: Callable[[pytest.MonkeyPatch], None]


def limited(owner: str, column: str, value: Any, **request: Any) -> Callable[[Gate], str]:
    """Return what makes a key with this value in a column of its own row or its owner's."""

    def limit(gate: Gate) -> str:
        key = gate.key(**gate.owners(), **request)
        gate.execute(f"UPDATE {TABLES[owner]} SET {column} = :value", value=value)
        return key

    return limit


def requested(**request: Any) -> Callable[[Gate], str]:
    """Return what makes a key with this request."""
    return lambda gate: gate.key(**gate.owners(), **request)


def tiered(owner: str) -> Callable[[Gate], str]:
    """Return what makes a key of whom a tier of a dollar holds."""

    def limit(gate: Gate) -> str:
        gate.execute(
            "INSERT INTO budgets (id, max_budget, model_max_budget, created_at, created_by,"
            " updated_at, updated_by) VALUES ('small', 1000000000, '{}', :at, 't', :at, 't')",
            at=PAST,
        )
        return limited(owner, "budget_id", "small")(gate)

    return limit


def grouped(gate: Gate) -> str:
    """Return a key that may use the models of one group only."""
    gate.execute(
        "INSERT INTO access_groups (id, models, created_at, updated_at)"
        " VALUES ('beta', '[\"o1\"]', :at, :at)",
        at=PAST,
    )
    return gate.key(access_group_ids=["beta"])


def period(owner: str) -> Callable[[Gate], str]:
    """Return what makes a key with a spent budget whose period is over."""

    def limit(gate: Gate) -> str:
        key = gate.key(**gate.owners())
        table = TABLES[owner]
        gate.execute(f"UPDATE {table} SET max_budget = 1000000000, budget_duration = '1d'")
        if owner == "member":
            gate.execute(
                "INSERT INTO meters (object_table, object_id, meter, spend, budget_duration,"
                " budget_anchor_at, budget_reset_at)"
                " VALUES ('teams', 'web', 'member:ada', 1000000000, '1d', :at, :at)",
                at=PAST,
            )
        else:
            gate.execute(
                f"UPDATE {table} SET spend = 1000000000, budget_anchor_at = :at,"
                " budget_reset_at = :at",
                at=PAST,
            )
        return key

    return limit


def is_spent(verifier: Verifier, key: str) -> bool:
    """Spend a dollar, and tell whether that was all."""
    verifier.verify(key, model=MODEL).record(1, tokens=1000)
    return verifier.verify(key, model=MODEL).reason == "budget_exceeded"


def is_limited(verifier: Verifier, key: str) -> bool:
    """Admit one request, and tell whether another one is too much."""
    verifier.verify(key, model=MODEL).admit(tokens=1)
    return verifier.verify(key, model=MODEL).admit(tokens=1) is not None


def is_refused(reason: str, **request: Any) -> Callable[[Verifier, str], bool]:
    """Return what tells whether this request is refused for this reason."""
    return lambda verifier, key: verifier.verify(key, **request).reason == reason


def without_budget(matches: Callable[[PurseName], bool]) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what lets the verifier overlook these budgets."""

    def remove(monkeypatch: pytest.MonkeyPatch) -> None:
        real = purses.budgets

        def budgets(found: Presented, meters: dict[PurseName, Meter] | None = None) -> list[Budget]:
            return [budget for budget in real(found, meters) if not matches(budget.name)]

        monkeypatch.setattr(purses, "budgets", budgets)

    return remove


def without_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let budgets be for ever."""
    real = purses.budgets

    def budgets(found: Presented, meters: dict[PurseName, Meter] | None = None) -> list[Budget]:
        return [
            replace(
                budget,
                period=None,
                spend=budget.limit if "member" in budget.name.meter else budget.spend,
            )
            for budget in real(found, meters)
        ]

    monkeypatch.setattr(purses, "budgets", budgets)


def without_rate(field: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what lets the verifier overlook these rates."""

    def remove(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            source,
            "rates_of",
            lambda found: tuple(rate for rate in rates.rates_of(found) if rate.field != field),
        )

    return remove


def instead(target: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what lets a check say the same always."""
    return lambda monkeypatch: monkeypatch.setattr(target, name, lambda *_, **__: value)


def own(owner: str) -> Callable[[PurseName], bool]:
    """Tell whether a budget is the one of this owner's row, or the member's."""
    if owner == "member":
        return lambda name: name.meter == "member:ada"
    return lambda name: name == (TABLES[owner], name.object_id, "")


def metered(kind: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what lets the verifier overlook the budgets whose meters begin so."""
    return without_budget(lambda name: name.meter.startswith(kind))


def cases() -> Iterator[tuple[str, str, Case]]:
    """Yield a case for each row, with its field and owner."""
    owners = ("key", "member", "team", "user", "organization")
    suspended = instead(lifecycle, "suspension", None)
    for owner in owners:
        budget = without_budget(own(owner))
        yield (
            "max_budget",
            owner,
            Case(limited(owner, "max_budget", 1_000_000_000), is_spent, budget),
        )
        yield (
            "budget_duration",
            owner,
            Case(period(owner), lambda it, key: it.verify(key).valid, without_period),
        )
        for field in ("rpm_limit", "tpm_limit"):
            yield field, owner, Case(limited(owner, field, 1), is_limited, without_rate(field))
        if owner in ("key", "team", "organization"):
            field = "max_parallel_requests"
            yield field, owner, Case(limited(owner, field, 1), is_limited, without_rate(field))
            for field in ("model_rpm_limit", "model_tpm_limit"):
                limit = limited(owner, field, '{"gpt-4o":1}')
                yield field, owner, Case(limit, is_limited, without_rate(field))
        if owner == "team":
            windows = limited(owner, "budget_limits", json.dumps(WINDOWS))
            yield "budget_limits", owner, Case(windows, is_spent, metered("window:"))
        if owner in ("team", "organization"):
            of_model = limited(owner, "model_max_budget", json.dumps(OF_MODEL))
            yield "model_max_budget", owner, Case(of_model, is_spent, metered("model:"))
            tokens = limited(owner, "tpd_limit", 1000)
            yield "tpd_limit", owner, Case(tokens, is_spent, metered("tokens:"))
        if owner in ("key", "user", "member"):
            tier = without_budget(lambda name: name.meter.endswith("tier:small"))
            yield "budget_id", owner, Case(tiered(owner), is_spent, tier)
        if owner != "member":
            listed = limited(owner, "models", '["o1"]')
            denied = is_refused("model_denied", model=MODEL)
            yield "models", owner, Case(listed, denied, instead(models, "may_use", True))
            reason = {"key": "blocked", "organization": "org_blocked"}.get(
                owner, f"{owner}_blocked"
            )
            blocked = limited(owner, "blocked", True)
            yield "blocked", owner, Case(blocked, is_refused(reason), suspended)
    yield from of_keys(suspended)


def of_keys(suspended: Callable[[pytest.MonkeyPatch], None]) -> Iterator[tuple[str, str, Case]]:
    """Yield the cases of fields that keys have, and nobody else or others otherwise."""
    of_model = {MODEL: {"budget_limit": 1, "time_period": "1d"}}
    denied = is_refused("route_denied", route="/v1/rerank")
    everywhere = instead(routes, "is_allowed", True)
    rows = {
        "access_group_ids": Case(
            grouped, is_refused("model_denied", model=MODEL), instead(models, "may_use", True)
        ),
        "budget_limits": Case(requested(budget_limits=WINDOWS), is_spent, metered("window:")),
        "model_max_budget": Case(requested(model_max_budget=of_model), is_spent, metered("model:")),
        "tpd_limit": Case(requested(tpd_limit=1000), is_spent, metered("tokens:")),
        "spend": Case(
            requested(max_budget=1, spend=1),
            is_refused("budget_exceeded"),
            without_budget(own("key")),
        ),
        "aliases": Case(
            requested(models=["o1"], aliases={"o1": MODEL}),
            is_refused("model_denied", model="o1"),
            lambda monkeypatch: monkeypatch.setattr(Entry, "_meant", lambda _, model: model),
        ),
        "allowed_routes": Case(requested(allowed_routes=["/v1/embeddings"]), denied, everywhere),
        "key_type": Case(requested(key_type="read_only"), denied, everywhere),
        "expires": Case(limited("key", "expires", PAST), is_refused("expired"), suspended),
        "duration": Case(
            limited("key", "expires", PAST, duration="1d"), is_refused("expired"), suspended
        ),
    }
    for field, case in rows.items():
        yield field, "key", case


CASES = {f"{field}-{owner}": case for field, owner, case in cases()}


@pytest.fixture(name="gate")
def _gate(emptied_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(emptied_url, tmp_path)
    yield gate
    gate.close()


@pytest.mark.parametrize("name", CASES)
class TestEachRow:
    def test_holds(self, gate: Gate, name: str) -> None:
        """The verifier does what the table says."""
        case = CASES[name]
        key = case.limit(gate)
        with Verifier(gate.url) as verifier:
            assert case.is_refused(verifier, key)

    def test_is_held_by_its_enforcement(
        self, gate: Gate, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With it taken out nothing holds: the test above would fail."""
        case = CASES[name]
        key = case.limit(gate)
        case.without(monkeypatch)
        with Verifier(gate.url) as verifier:
            assert not case.is_refused(verifier, key)


def test_every_row_of_the_verifier_has_its_case() -> None:
    """And no other row has one."""
    rows = {
        f"{limit.field}-{owner}"
        for limit in limits.LIMITS
        if limit.enforced_by == "verifier"
        for owner in limit.of
    }
    assert set(CASES) == rows


def test_the_table_of_the_manual_is_the_program_s() -> None:
    """`docs/gateway.md` lists who enforces what as `schema fields` does."""
    page = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    found = re.search(r"<!-- limits:begin -->\n(.*)<!-- limits:end -->", page, re.DOTALL)
    assert found is not None
    lines = ["| field | of | enforced by | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{row.field}` | {', '.join(row.of)} | {row.enforced_by} | {row.note} |"
        for row in limits.LIMITS
    ]
    assert found[1].splitlines() == lines
