"""Each row of `schema fields` that is enforced is so in LiteLLM's real proxy, and not without its enforcement.

The id of a case is the field and whose it is, and a word more where there are several.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from proxy_world import TABLES, World
from servers import until

from keyctl import limits

pytest.importorskip("litellm")

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("litellm")]

PAST = "2026-01-02 00:00:00.000000"

Limit = Callable[[World, str], str]
Holds = Callable[[World, str, str], bool]


@dataclass(frozen=True)
class Case:
    """A row: how to limit a key so, whether that then holds, and what the alias of one without it begins with."""

    limit: Limit
    holds: Holds
    without: str = "without-"


def limited(owner: str, request: Mapping[str, Any] | None = None, /, **values: Any) -> Limit:
    """Return what makes a key with these values in its own row or its owner's."""

    def limit(world: World, alias: str) -> str:
        key = world.key(alias, **(request or {}))
        world.set(alias, owner, **values)
        return key

    return limit


def requested(**request: Any) -> Limit:
    """Return what makes a key with this request."""
    return lambda world, alias: world.key(alias, **request)


def tiered(owner: str, **values: Any) -> Limit:
    """Return what makes a key of whom a tier with these values holds."""

    def limit(world: World, alias: str) -> str:
        key = world.key(alias)
        row = {"id": alias, "model_max_budget": "{}", "created_at": PAST, "created_by": "t"}
        row |= {"updated_at": PAST, "updated_by": "t", **values}
        world.gate.execute(
            f"INSERT INTO budgets ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})",
            **row,
        )
        world.set(alias, owner, budget_id=alias)
        return key

    return limit


def grouped(world: World, alias: str) -> str:
    """Return a key that may use the models of one group only."""
    world.gate.execute(
        "INSERT INTO access_groups (id, models, created_at, updated_at)"
        " VALUES (:alias, '[\"free\"]', :at, :at)",
        alias=alias,
        at=PAST,
    )
    return world.key(alias, access_group_ids=[alias])


def period(owner: str) -> Limit:
    """Return what makes a key with a spent budget whose period is over."""

    def limit(world: World, alias: str) -> str:
        key = world.key(alias)
        world.set(alias, owner, max_budget=10**9, budget_duration="1d")
        if owner == "member":
            world.gate.execute(
                "INSERT INTO meters (object_table, object_id, meter, spend, budget_duration,"
                " budget_anchor_at, budget_reset_at) VALUES ('teams', :team, :meter, 1000000000, '1d',"
                " :at, :at)",
                team=f"web{alias}",
                meter=f"member:ada{alias}",
                at=PAST,
            )
        else:
            world.set(alias, owner, spend=10**9, budget_anchor_at=PAST, budget_reset_at=PAST)
        return key

    return limit


def refuses(*status: int, times: int = 1, **more: Any) -> Holds:
    """Tell whether the last of so many requests is refused so; those before it are not."""

    def holds(world: World, key: str, _: str) -> bool:
        got = [int(world.post(key, **more).status_code) for _ in range(times)]
        assert set(got[:-1]) <= {200}
        assert got[-1] in (200, *status)
        return got[-1] in status

    return holds


def serves(world: World, key: str, _: str) -> bool:
    """Tell whether a request is served."""
    return bool(world.post(key).status_code == 200)


def at_once(world: World, key: str, _: str) -> bool:
    """Tell whether a second request at the same time is refused."""
    provider = world.stand.provider
    provider.waits, before = threading.Event(), len(provider.asked)
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(world.post, key)
            until(lambda: len(provider.asked) == before + 1)
            second = pool.submit(world.post, key)
            until(lambda: second.done() or len(provider.asked) == before + 2)
            is_refused = second.done() and second.result().status_code == 429
            provider.waits.set()
            assert first.result().status_code == 200
    finally:
        provider.waits = None
    return is_refused


def has_left(world: World, key: str, _: str) -> bool:
    """Tell whether a request without a bound reserved less than a dollar of five."""
    told = world.post(key).headers["x-keyctl-budget-left"]
    return float(told.split()[1]) > 4


def calls_no_tool(world: World, key: str, _: str) -> bool:
    """Tell whether the last of three calls of a tool is refused; LiteLLM may count each of them twice."""
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "tools-echo", "arguments": {}},
    }
    *_first, last = [world.post(key, "/mcp/", body=call).text for _ in range(3)]
    assert ("Hello" in last) != ("mcp_per_key" in last)
    return "mcp_per_key" in last


def is_tagged(world: World, key: str, alias: str) -> bool:
    """Tell whether the proxy counts the request under the key's tag."""
    world.post(key)
    told: list[str] = []

    def is_told() -> bool:
        file = world.folder / "told.jsonl"
        text = file.read_text() if file.exists() else ""
        told[:] = [line for line in text.splitlines() if line.startswith(f"{alias} ")]
        return bool(told)

    until(is_told)
    return "nightly" in told[0].split()


def of_owners() -> Iterator[tuple[str, Case]]:
    """Yield the cases of fields that several kinds of owners have."""
    for owner in TABLES:
        yield f"max_budget-{owner}", Case(limited(owner, max_budget=0), refuses(429))
        yield f"budget_duration-{owner}", Case(period(owner), serves, "forever-")
        for field in ("rpm_limit", "tpm_limit"):
            times = 2 if field == "rpm_limit" else 1
            yield f"{field}-{owner}", Case(limited(owner, **{field: 1}), refuses(429, times=times))
        if owner in ("key", "team", "organization"):
            yield (
                f"max_parallel_requests-{owner}",
                Case(limited(owner, max_parallel_requests=1), at_once),
            )
            rpm = limited(owner, model_rpm_limit='{"gpt-4o":1}')
            yield f"model_rpm_limit-{owner}", Case(rpm, refuses(429, times=2))
            tpm = limited(owner, model_tpm_limit='{"gpt-4o":1}')
            yield f"model_tpm_limit-{owner}", Case(tpm, refuses(429))
        if owner != "member":
            yield f"models-{owner}", Case(limited(owner, models='["free"]'), refuses(403))
            yield f"blocked-{owner}", Case(limited(owner, blocked=True), refuses(401))
        if owner == "team":
            windows = json.dumps([{"budget_duration": "1d", "max_budget": 0}])
            yield (
                f"budget_limits-{owner}",
                Case(limited(owner, budget_limits=windows), refuses(429)),
            )
        if owner in ("team", "organization"):
            yield f"tpd_limit-{owner}", Case(limited(owner, tpd_limit=0), refuses(429))
            model = json.dumps({"gpt-4o": {"budget_duration": "1d", "max_budget": 0}})
            yield (
                f"model_max_budget-{owner}",
                Case(limited(owner, model_max_budget=model), refuses(429)),
            )
            rates = json.dumps({"gpt-4o": {"rpm_limit": 1}})
            yield (
                f"model_max_budget-{owner}-rates",
                Case(limited(owner, model_max_budget=rates), refuses(429, times=2)),
            )
        if owner in ("key", "user", "member"):
            rate = refuses(429, times=2)
            of_model = {"gpt-4o": {"rpm_limit": 1}}
            yield f"budget_id-{owner}", Case(tiered(owner, max_budget=0), refuses(429))
            yield f"budget_id-{owner}-rpm", Case(tiered(owner, rpm_limit=1), rate)
            yield f"budget_id-{owner}-tpm", Case(tiered(owner, tpm_limit=1), refuses(429))
            yield f"budget_id-{owner}-tpd", Case(tiered(owner, tpd_limit=0), refuses(429))
            yield (
                f"budget_id-{owner}-parallel",
                Case(tiered(owner, max_parallel_requests=1), at_once),
            )
            yield (
                f"budget_id-{owner}-model",
                Case(tiered(owner, model_max_budget=json.dumps(of_model)), rate),
            )


def of_keys() -> Iterator[tuple[str, Case]]:
    """Yield the cases of fields that only keys have."""
    of_model = {"gpt-4o": {"budget_limit": 0, "time_period": "1d"}}
    passing = {"allowed_passthrough_routes": ["/mine"]}
    rows: dict[str, Case] = {
        "access_group_ids": Case(grouped, refuses(403)),
        "aliases": Case(
            requested(models=["free"], aliases={"free": "gpt-4o"}), refuses(403, model="free")
        ),
        "budget_limits": Case(
            requested(budget_limits=[{"budget_duration": "1d", "max_budget": 0}]), refuses(429)
        ),
        "model_max_budget": Case(requested(model_max_budget=of_model), refuses(429)),
        "model_max_budget-rates": Case(
            requested(model_max_budget={"gpt-4o": {"max_budget": 9, "rpm_limit": 1}}),
            refuses(429, times=2),
        ),
        "tpd_limit": Case(requested(tpd_limit=0), refuses(429)),
        "spend": Case(requested(max_budget=1, spend=1), refuses(429)),
        "allowed_routes": Case(requested(allowed_routes=["/v1/embeddings"]), refuses(403)),
        "key_type": Case(requested(key_type="read_only"), refuses(403)),
        "expires": Case(limited("key", expires=PAST), refuses(401)),
        "duration": Case(limited("key", {"duration": "1d"}, expires=PAST), refuses(401)),
        "rpm_limit_type": Case(
            requested(rpm_limit=1, rpm_limit_type="dynamic"),
            lambda world, key, alias: not refuses(429, times=2)(world, key, alias),
            "lacking-rpm_limit_type.",
        ),
        "tpm_limit_type": Case(
            requested(tpm_limit=1, tpm_limit_type="dynamic"), serves, "lacking-tpm_limit_type."
        ),
        "mcp_rpm_limit": Case(
            requested(mcp_rpm_limit={"tools": 2}, allowed_routes=["/mcp", "llm_api_routes"]),
            calls_no_tool,
        ),
        "tag_rpm_limit": Case(
            requested(tag_rpm_limit={"nightly": 1}),
            refuses(429, times=2, metadata={"tags": ["nightly"]}),
        ),
        "default_estimated_output_tokens": Case(
            requested(max_budget=5, default_estimated_output_tokens=20), has_left, "lacking-"
        ),
        "default_estimated_output_tokens_per_model": Case(
            requested(max_budget=5, default_estimated_output_tokens_per_model={"gpt-4o": 20}),
            has_left,
            "lacking-",
        ),
        "allowed_passthrough_routes": Case(
            requested(**passing),
            lambda world, key, _: world.post(key, "/mine", body={}).status_code == 200,
            "lacking-allowed_passthrough_routes.",
        ),
        "denied_passthrough_routes": Case(
            requested(**passing, denied_passthrough_routes=["/mine/secret"]),
            refuses(403, path="/mine/secret", body={}),
            "lacking-denied_passthrough_routes.",
        ),
        "allowed_cache_controls": Case(
            requested(allowed_cache_controls=["no-store"]),
            refuses(401, 403, cache={"no-cache": True}),
        ),
        "router_settings": Case(
            requested(router_settings={"fallbacks": [{"broken": ["free"]}], "num_retries": 0}),
            lambda world, key, _: world.post(key, model="broken").status_code == 200,
        ),
        "enforced_params": Case(requested(enforced_params=["metadata.job"]), refuses(400)),
        "tags": Case(requested(tags=["nightly"]), is_tagged),
    }
    for name, case in rows.items():
        field, _, more = name.partition("-")
        yield f"{field}-key{'-' if more else ''}{more}", case
    yield (
        "model_rpm_limit-team-beside_the_key_s",
        Case(
            limited("team", {"model_rpm_limit": {"gpt-4o": 9}}, model_rpm_limit='{"gpt-4o":1}'),
            refuses(429, times=2),
        ),
    )


CASES = {**dict(of_owners()), **dict(of_keys())}


@pytest.fixture(scope="module", name="world")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One proxy for all rows."""
    world = World(tmp_path_factory.mktemp("rows"))
    yield world
    world.close()


@pytest.mark.parametrize("name", CASES)
class TestEachRow:
    def test_holds(self, world: World, name: str) -> None:
        """The proxy does what the table says."""
        case, alias = CASES[name], f"with-{uuid4().hex[:12]}"
        assert case.holds(world, case.limit(world, alias), alias)

    def test_is_held_by_its_enforcement(self, world: World, name: str) -> None:
        """With it taken out nothing holds: the test above would fail."""
        case = CASES[name]
        alias = f"{case.without}{uuid4().hex[:12]}"
        assert not case.holds(world, case.limit(world, alias), alias)


def test_every_row_that_is_enforced_has_its_case() -> None:
    """And no other row has one."""
    rows = {
        f"{limit.field}-{owner}"
        for limit in limits.LIMITS
        if limit.enforced_by in ("verifier", "proxy")
        for owner in limit.of
    }
    assert {"-".join(name.split("-")[:2]) for name in CASES} == rows
