"""Periods of budgets: one that is over counts as new, whatever is changed, and cron writes it down."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from fleet_files import Fleets
from sqlalchemy import text
from world import Hand, World

from keyctl.db import queries
from keyctl.purses import PurseName, Terms
from keyctl.records import Organization, Team, User
from keyctl.services.audit import AuditService
from keyctl.services.budgets import BudgetService
from keyctl.services.directory import DirectoryService
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.keys.update_many import ManyChangesService
from keyctl.services.members import MemberService
from keyctl.services.spent import left_of
from keyctl.services.status import StatusService
from keyctl.services.tiers import TierService
from keyctl.services.verify import budgets_of, identify, verify
from keyctl.services.workspace import Workspace

DOLLAR = 10**9
DAILY: dict[str, Any] = {"max_budget": 2, "budget_duration": "1d"}
MONTHLY: dict[str, Any] = {"max_budget": 2, "budget_duration": "30d"}
DAY = timedelta(days=1)
FLEET = """
teams: {{ours: {{{budget}}}}}
keys: {{a: {{deliver: files, user_id: ada, {budget}}}}}
"""


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    return World(workspace)


def of_model(budget: Mapping[str, Any]) -> dict[str, Any]:
    """Return a budget of a model in a request."""
    return {"model_max_budget": {"o1": budget}}


def charge(world: World, name: PurseName, period: str) -> None:
    """Spend the two dollars of a budget with a meter, as a gateway does."""
    database = world.workspace.database
    with database.write() as connection:
        now = database.now(connection)
        terms = Terms(limit=2 * DOLLAR, period=period, anchor=now)
        queries.lock_purses(connection, {name: terms}, now=now)
        queries.spend_more(connection, {name: 2 * DOLLAR})


def rows(workspace: Workspace, query: str) -> list[tuple[Any, ...]]:
    """Return what the database answers."""
    with workspace.database.read() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def left(world: World, text_of_key: str) -> list[int]:
    """Return what is left of the budgets of a presented key, in dollars."""
    database = world.workspace.database
    _, found = identify(database, text_of_key)
    assert found is not None
    with database.read() as connection:
        now = database.now(connection)
        return [int(left_of(item, now)["left"]) for item in budgets_of(connection, found)]


class TestAnotherLength:
    """Of a budget whose period is over: what was spent in that stays there."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda workspace: ChangeService(workspace).update("a", {"budget_duration": "30d"}),
            lambda workspace: ChangeService(workspace).update("a", {"budget_duration": None}),
            lambda workspace: ManyChangesService(workspace).update(
                ["a", "b"], {"budget_duration": "30d"}
            ),
        ],
        ids=["one key", "cleared", "many keys"],
    )
    def test_of_a_key(
        self, world: World, clock: Clock, change: Callable[[Workspace], object]
    ) -> None:
        hand = Hand()
        world.make({"key_alias": "a", **DAILY}, hand=hand)
        world.make({"key_alias": "b", **DAILY})
        BudgetService(world.workspace).add("a", 2 * DOLLAR)
        clock.advance(2 * DAY)

        change(world.workspace)

        assert verify(world.workspace.database, hand.held).valid
        assert left(world, hand.held) == [2]
        AuditService(world.workspace).verify(state=True, step=lambda: None)

    @pytest.mark.parametrize(
        ("kind", "name"), [(Team, "web"), (User, "ada"), (Organization, "acme")]
    )
    def test_of_an_owner(self, world: World, clock: Clock, kind: Any, name: str) -> None:
        hand = Hand()
        directory = DirectoryService(world.workspace)
        directory.update(kind, name, {"max_budget": 2 * DOLLAR, "budget_duration": "1d"})
        world.make({"team_id": "web", "user_id": "ada"}, hand=hand)
        BudgetService(world.workspace).add(name, 2 * DOLLAR, kind=kind)
        clock.advance(2 * DAY)

        directory.update(kind, name, {"budget_duration": "30d"})

        assert verify(world.workspace.database, hand.held).valid
        assert set(left(world, hand.held)) == {2}

    def test_in_a_fleet(self, workspace: Workspace, clock: Clock, tmp_path: Path) -> None:
        DirectoryService(workspace).create(User, "ada", {})
        fleets = Fleets.at(workspace, tmp_path / "keys")
        fleets.apply(FLEET.format(budget="max_budget: 2, budget_duration: 1d"))
        for name in ("a", "ours"):
            BudgetService(workspace).add(name, 2 * DOLLAR)
        clock.advance(2 * DAY)

        fleets.apply(FLEET.format(budget="max_budget: 2, budget_duration: 30d"))

        for table in ("keys", "teams"):
            written = rows(workspace, f"SELECT spend, budget_duration FROM {table}")
            assert written == [(0, "30d")], table
        AuditService(workspace).verify(state=True, step=lambda: None)

    def test_keeps_what_was_overspent_where_that_is_configured(
        self, world: World, clock: Clock
    ) -> None:
        world.change({"settings": {"budget_rollover": True}})
        world.make({"key_alias": "a", **DAILY})
        BudgetService(world.workspace).add("a", 3 * DOLLAR)
        clock.advance(2 * DAY)
        ChangeService(world.workspace).update("a", {"budget_duration": "30d"})
        assert rows(world.workspace, "SELECT spend FROM keys") == [(DOLLAR,)]


class TestAnotherLengthOfAMeteredBudget:
    """What is spent of it in a period that is not over goes on counting, and ends with the new period."""

    def test_of_a_model(self, world: World, clock: Clock) -> None:
        hand = Hand()
        key_id = world.make({"key_alias": "a", **of_model(MONTHLY)}, hand=hand)
        charge(world, PurseName("keys", key_id, "model:o1"), "30d")

        ChangeService(world.workspace).update("a", of_model(DAILY))

        assert left(world, hand.held) == [0]
        clock.advance(DAY)
        assert left(world, hand.held) == [2]

    def test_of_a_member(self, world: World, clock: Clock) -> None:
        hand = Hand()
        members = MemberService(world.workspace)
        members.update("web", "ada", {"max_budget": 2 * DOLLAR, "budget_duration": "30d"})
        world.make({"team_id": "web", "user_id": "ada"}, hand=hand)
        charge(world, PurseName("teams", "web", "member:ada"), "30d")

        told = members.update("web", "ada", {"budget_duration": "1d"})

        assert (told["spend"], told["max_budget"]) == (2, 2)
        assert verify(world.workspace.database, hand.held).reason == "budget_exceeded"
        clock.advance(DAY)
        assert verify(world.workspace.database, hand.held).valid

    @pytest.mark.parametrize("holder", ["keys", "members"])
    def test_of_a_tier(self, world: World, clock: Clock, holder: str) -> None:
        """For everybody who names it, and for nobody else."""
        hand = Hand()
        tiers = TierService(world.workspace)
        tiers.create("small", {"max_budget": 2 * DOLLAR, "budget_duration": "30d"})
        request: dict[str, Any] = {"team_id": "web", "user_id": "ada"}
        if holder == "members":
            MemberService(world.workspace).update("web", "ada", {"budget_id": "small"})
            key_id = world.make(request, hand=hand)
            name = PurseName("teams", "web", "member:ada/tier:small")
        else:
            key_id = world.make({**request, "budget_id": "small"}, hand=hand)
            name = PurseName("keys", key_id, "tier:small")
        charge(world, name, "30d")
        charge(world, PurseName("keys", key_id, "tier:very_small"), "30d")

        tiers.update("small", {"budget_duration": "1d"})

        assert verify(world.workspace.database, hand.held).reason == "budget_exceeded"
        written = rows(world.workspace, "SELECT meter, budget_duration FROM meters ORDER BY 2")
        assert written == [(name.meter, "1d"), ("tier:very_small", "30d")]
        clock.advance(DAY)
        assert verify(world.workspace.database, hand.held).valid


class TestReset:
    @pytest.fixture(name="key_id")
    def _key_id(self, world: World, clock: Clock) -> str:
        """Of six budgets that are spent, the periods of three are over; one is of a key that ended."""
        windows = {"budget_limits": [DAILY, MONTHLY], "tpd_limit": 5}
        key_id = world.make({"key_alias": "a", **DAILY, **windows})
        ended = world.make({"key_alias": "b", **windows})
        limits = {"max_budget": DOLLAR, "budget_duration": "1d"}
        MemberService(world.workspace).update("web", "ada", limits)
        BudgetService(world.workspace).add("a", 2 * DOLLAR)
        charge(world, PurseName("keys", key_id, "window:1d"), "1d")
        charge(world, PurseName("keys", key_id, "window:30d"), "30d")
        charge(world, PurseName("keys", key_id, "tokens:daily"), "1d")
        charge(world, PurseName("keys", ended, "window:1d"), "1d")
        charge(world, PurseName("teams", "web", "member:ada"), "1d")
        EndingService(world.workspace).delete([ended])
        clock.advance(DAY)
        return key_id

    def test_writes_down_each_budget_whose_period_is_over(self, world: World, key_id: str) -> None:
        """Once, and by its name; of what has a meter no event tells, for it is usage."""
        service = BudgetService(world.workspace)
        status = StatusService(world.workspace)
        due = [service.due(), status.status()["budgets"]["reset_due"]]

        begun = list(service.reset_due())

        assert due == [3, 3]
        told = [(item.object_id, item.budget, item.previous_spend, item.spend) for item in begun]
        assert sorted(told) == [
            (key_id, "max_budget", 2 * DOLLAR, 0),
            (key_id, "window:1d", 2 * DOLLAR, 0),
            ("web", "member:ada", 2 * DOLLAR, 0),
        ]
        assert [item.budget for item in begun if item.audit is None] == ["window:1d", "member:ada"]
        assert (service.due(), list(service.reset_due())) == (0, [])
        AuditService(world.workspace).verify(state=True, step=lambda: None)

    def test_keeps_what_was_overspent_where_that_is_configured(
        self, world: World, key_id: str
    ) -> None:
        world.change({"settings": {"budget_rollover": True}})
        begun = list(BudgetService(world.workspace).reset_due())
        assert [(item.budget, item.spend) for item in begun] == [
            ("max_budget", 0),
            ("window:1d", 0),
            ("member:ada", DOLLAR),
        ]


class TestWhatIsShown:
    """Of a period that is over, though no cron ran."""

    def test_of_an_owner_and_a_member(self, world: World, clock: Clock) -> None:
        directory, members = DirectoryService(world.workspace), MemberService(world.workspace)
        limits = {"max_budget": 2 * DOLLAR, "budget_duration": "1d"}
        directory.update(Team, "web", limits)
        members.update("web", "ada", limits)
        BudgetService(world.workspace).add("web", 2 * DOLLAR)
        charge(world, PurseName("teams", "web", "member:ada"), "1d")

        def shown() -> tuple[int, int]:
            view = directory.info(Team, "web")
            (ada,) = [item for item in view["members_with_roles"] if item["user_id"] == "ada"]
            return int(view["left"]), int(ada["spend"])

        assert shown() == (0, 2)
        clock.advance(DAY)
        assert shown() == (2, 0)
        assert members.update("web", "ada", {"max_budget": DOLLAR})["warnings"] == []

    def test_of_a_user_with_a_tier(self, world: World) -> None:
        TierService(world.workspace).create("small", {"max_budget": 2 * DOLLAR})
        DirectoryService(world.workspace).update(User, "ada", {"budget_id": "small"})
        (budget,) = DirectoryService(world.workspace).info(User, "ada")["budgets"]
        assert (budget["what"], budget["left"], budget["limit"]) == ("tier:small", 2, 2)

    def test_by_the_status(self, world: World, clock: Clock) -> None:
        """Budgets with a meter are among those that are nearly spent."""
        key_id = world.make({"key_alias": "a", **DAILY, "budget_limits": [MONTHLY]})
        BudgetService(world.workspace).add("a", 2 * DOLLAR)
        charge(world, PurseName("keys", key_id, "window:30d"), "30d")

        def nearly() -> list[str]:
            budgets = StatusService(world.workspace).status()["budgets"]
            return [item["budget"] for item in budgets["nearly_spent"]]

        assert nearly() == ["max_budget", "window:30d"]
        clock.advance(DAY)
        assert nearly() == ["window:30d"]
        clock.advance(30 * DAY)
        assert nearly() == []
