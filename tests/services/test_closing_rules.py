"""Each rule that is marked as closing closes something: without it, somebody ends up with more."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from clock import Clock
from closed_world import Element, Right, escaped, holdings
from holders import Held, operator
from ledger import Ledger, admitted
from world import World

from keyctl import money
from keyctl.errors import KeyctlError
from keyctl.policy import ceiling, engine, issuing, members, operations
from keyctl.records import Organization, Team
from keyctl.services import acting
from keyctl.services.members import MemberService
from keyctl.services.workspace import Workspace

pytestmark = pytest.mark.sqlite_mostly


def _index(permission: str) -> dict[str, Any]:
    return {"index_name": "i", "index_permissions": [permission]}


# What the caller's key has, and the key that is asked for: refused by one rule only.
ASKED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "caller.expires": ({"duration": "1h"}, {"duration": "2h"}),
    "caller.models": ({"models": ["gpt-4*"]}, {"models": ["o1"]}),
    "caller.allowed_routes": ({"key_type": "management"}, {"key_type": "llm_api"}),
    "caller.budget_ceiling": (
        {"max_budget": 5, "budget_duration": "30d"},
        {"max_budget": 5, "budget_duration": "1s"},
    ),
    "caller.model_max_budget": (
        {"model_max_budget": {"o1": {"max_budget": 1, "budget_duration": "30d"}}},
        {"model_max_budget": {"o1": {"max_budget": 2, "budget_duration": "30d"}}},
    ),
    "caller.rpm_limit": ({"rpm_limit": 3}, {"rpm_limit": 4}),
    "caller.tpm_limit": ({"tpm_limit": 3}, {"tpm_limit": 4}),
    "caller.tpd_limit": ({"tpd_limit": 3}, {"tpd_limit": 4}),
    "caller.max_parallel_requests": (
        {"max_parallel_requests": 1},
        {"max_parallel_requests": 2},
    ),
    "caller.rpm_limit_type": ({"rpm_limit": 3}, {"rpm_limit": 3, "rpm_limit_type": "dynamic"}),
    "caller.tpm_limit_type": ({"tpm_limit": 3}, {"tpm_limit": 3, "tpm_limit_type": "dynamic"}),
    **{
        f"caller.{name}": ({name: {"a": 1}}, {name: {"a": 2}})
        for name in ("model_rpm_limit", "model_tpm_limit", "mcp_rpm_limit", "tag_rpm_limit")
    },
    **{
        f"caller.{name}": ({name: ["a"]}, {name: ["b"]})
        for name in ("guardrails", "tags", "policies", "enforced_params")
    },
    **{
        f"caller.{name}": ({name: ["a"]}, {name: ["a", "b"]})
        for name in ("prompts", "allowed_cache_controls")
    },
    "caller.object_permission": (
        {"object_permission": {"mcp_servers": ["a"]}},
        {"object_permission": {"mcp_servers": ["a", "b"]}},
    ),
    "caller.allowed_vector_store_indexes": (
        {"allowed_vector_store_indexes": [_index("read")]},
        {"allowed_vector_store_indexes": [_index("write")]},
    ),
    # Only admins name these: what is left out is filled in by the same rule.
    "caller.allowed_passthrough_routes": ({"allowed_passthrough_routes": ["/a"]}, {}),
    "caller.denied_passthrough_routes": ({"denied_passthrough_routes": ["/a"]}, {}),
    "caller.purse": ({"team_id": "web"}, {}),
    "caller.admin_only": ({"duration": "1d"}, {"may_issue": {"duration": "9d"}}),
}


class Coalition:
    """ada and tina, and what they hold."""

    def __init__(self, workspace: Workspace) -> None:
        self.world = World(workspace)
        policy = {"create_member_keys": True, "team_member_permissions": ["/key/generate"]}
        self.world.change({"team": {"policy": policy, "max_budget": 100 * money.NANO}})
        self.local = operator(self.world)
        self.held: list[Held] = []

    def given(self, request: dict[str, Any]) -> Held:
        """Return what an admin gave them at the start."""
        held = self.local.generate(request)
        self.held.append(held)
        return held

    def holds(self) -> tuple[set[Element], set[Right]]:
        """Return what they hold now."""
        database = self.world.workspace.database
        with database.engine.connect() as connection:
            now = database.now(connection).replace(tzinfo=None)
            ids = {str(held.key_string)[3:15] for held in self.held}
            return holdings(connection, ids, now=now)

    def gains(self, *actions: Callable[[], Any]) -> bool:
        """Tell whether they hold more after these actions, each as far as it is allowed."""
        start = self.holds()
        for action in actions:
            try:
                answer = action()
            except KeyctlError:
                break
            if isinstance(answer, Held):
                self.held.append(answer)
        return bool(escaped(self.holds(), start))


@pytest.fixture(name="coalition")
def _coalition(workspace: Workspace) -> Coalition:
    return Coalition(workspace)


def without(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Take one rule out of those that are asked, and what it fills in."""
    rest = tuple(item for item in engine.RULES if item.id != rule)
    assert len(rest) == len(engine.RULES) - 1
    monkeypatch.setattr(engine, "RULES", rest)
    rows = tuple(row for row in ceiling._ROWS if row.rule != rule)  # it has no other name
    monkeypatch.setattr(ceiling, "_ROWS", rows)


@pytest.mark.parametrize("rule", ASKED)
def test_a_key_that_is_made(
    coalition: Coalition, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """It is refused, and would be more than was given."""
    own, asked = ASKED[rule]
    ada = coalition.given({"user_id": "ada", **own})
    assert not coalition.gains(lambda: ada.generate(asked))
    without(monkeypatch, rule)
    assert coalition.gains(lambda: ada.generate(asked))


def test_a_block_by_an_admin(coalition: Coalition, monkeypatch: pytest.MonkeyPatch) -> None:
    """caller.admin_block: what an admin took away stays away."""
    tina = coalition.given({"user_id": "tina", "team_id": "web", "duration": "1d"})
    ada = coalition.given({"user_id": "ada", "team_id": "web"})
    coalition.local.end("block", ada.key_id)
    assert not coalition.gains(lambda: tina.end("unblock", ada.key_id))
    without(monkeypatch, "caller.admin_block")
    assert coalition.gains(lambda: tina.end("unblock", ada.key_id))


class TestWhatIsRaisedOutsideThePureRules:
    def test_a_secret_that_somebody_else_took(
        self, coalition: Coalition, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """caller.issued_by_another: tina would act as ada."""
        tina = coalition.given({"user_id": "tina", "team_id": "web"})
        taken = tina.generate({"user_id": "ada", "team_id": "web"})
        coalition.held.append(taken)
        act = lambda: taken.generate({"team_id": "web"})  # noqa: E731
        assert not coalition.gains(act)
        real = acting.caller_of

        def careless(connection: Any, found: Any, *more: Any, **named: Any) -> Any:
            raised = replace(found, secret=replace(found.secret, administers=True))
            return real(connection, raised, *more, **named)

        monkeypatch.setattr(acting, "caller_of", careless)
        assert coalition.gains(act)

    def test_a_secret_that_a_caller_says_administers(
        self, coalition: Coalition, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """caller.raises_administration: only an admin says so."""
        tina = coalition.given({"user_id": "tina", "team_id": "web"})
        taken = tina.generate({"user_id": "ada", "team_id": "web"})
        raise_it = lambda: tina.rotate(taken.key_id, administers=True)  # noqa: E731
        assert not coalition.gains(raise_it)
        monkeypatch.setattr(issuing, "check_may_raise", lambda *_: None)
        assert coalition.gains(raise_it)

    def test_a_key_that_may_not_call_the_route(
        self, coalition: Coalition, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """caller.route: a key for inference would make ada an admin of the organization."""
        olga = coalition.given({"user_id": "olga", "key_type": "llm_api"})
        coalition.given({"user_id": "ada"})

        def promote() -> None:
            MemberService(olga.workspace).add(Organization, "acme", "ada", "org_admin")

        assert not coalition.gains(promote)
        monkeypatch.setattr(operations, "missing_route", lambda *_: iter(()))
        assert coalition.gains(promote)

    def test_a_role_that_a_team_admin_gives(
        self, coalition: Coalition, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """caller.member_role: ada would administer the team as long as her own key lives."""
        tina = coalition.given({"user_id": "tina", "team_id": "web", "duration": "1d"})
        coalition.given({"user_id": "ada"})

        def promote() -> None:
            MemberService(tina.workspace).add(Team, "web", "ada", "admin")

        assert not coalition.gains(promote)
        monkeypatch.setattr(members, "check", lambda *_, **__: [])
        assert coalition.gains(promote)


def test_more_keys_than_may_be_issued(
    coalition: Coalition, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """caller.may_issue.max_keys: a gateway would admit more than what all of them may cost."""
    bounds = {"max_keys": 2, "max_budget": 2, "duration": "9d"}
    ci = coalition.given({"user_id": "eve", "duration": "9d", "may_issue": bounds})
    engine_ = coalition.world.workspace.database.engine
    url = engine_.url.render_as_string(hide_password=False)
    ledger, now = Ledger(), clock().replace(tzinfo=None)
    with engine_.connect() as connection:
        ledger.open(connection)

    def overspent() -> list[str]:
        """Issue two keys if that is allowed, spend what they have, and return what that is too much of."""
        over: list[str] = []
        for _ in range(2):
            try:
                made = ci.generate({})
            except KeyctlError:
                break
            ledger.issue(ci.key_id, made.key_id)
            while admitted(url, str(made.key_string), 1, clock=clock, model="o1"):
                with engine_.connect() as connection:
                    over += ledger.admit(connection, str(made.key_string)[3:15], 1, now=now)
        return over

    assert overspent() == []
    without(monkeypatch, "caller.may_issue.max_keys")
    assert overspent() == [f"all that {ci.key_id} issued"] * 4


def test_every_other_rule_of_callers_says_what_it_is_there_for() -> None:
    """It closes nothing, and guards something."""
    for item in engine.RULES:
        assert bool(item.guards) != item.closes or item.binds == "key", item.id


def test_every_closing_rule_is_shown_here() -> None:
    """A rule that is marked has its attack above."""
    marked = {rule.id for rule in engine.RULES if rule.closes}
    shown = {
        *ASKED,
        *("caller.admin_block", "caller.issued_by_another"),
        *("caller.raises_administration", "caller.member_role"),
        *("caller.route", "caller.may_issue.max_keys"),
        "caller.restricted",  # shown by a second account, where restricted mode is tested
    }
    assert shown == marked
