"""Rows that somebody wrote past keyctl: named, and in nobody's way."""

from datetime import timedelta
from typing import Any

import pytest
from clock import Clock
from sqlalchemy import text
from world import Hand, World

from keyctl.db.queries import KeyFilter
from keyctl.errors import UnreadableRowError
from keyctl.records import Team
from keyctl.services.budgets import BudgetService
from keyctl.services.directory import DirectoryService
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.read import KeyService
from keyctl.services.repair import CheckService
from keyctl.services.rotate.due import DueOrder, DueService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace

FOREIGN = {
    "no JSON": ("models", "[1,2"),
    "another shape": ("models", '{"a": 1}'),
    "items of another type": ("models", "[1, 2]"),
    "numbers that are none": ("model_rpm_limit", '{"gpt-4o": "many"}'),
    "an object that is null": ("metadata", "null"),
    "no length of time": ("grace_period", "5ms"),
    "no period": ("budget_duration", "soon"),
}


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    world = World(workspace)
    for name in ("good", "bad", "other"):
        world.make({"key_alias": name, "team_id": "web", "budget_duration": "1d"})
    return world


def spoil(world: World, column: str, value: Any, *, alias: str = "bad") -> str:
    """Write a value past keyctl and return the key's id."""
    key_id = str(KeyService(world.workspace).info(alias)["key_id"])
    with world.workspace.database.engine.begin() as connection:
        connection.execute(
            text(f"UPDATE keys SET {column} = :value WHERE id = :id"),  # ours
            {"value": value, "id": key_id},
        )
    return key_id


class TestOneKey:
    @pytest.mark.parametrize("kind_of_value", FOREIGN)
    def test_it_is_named_and_the_others_are_listed(self, world: World, kind_of_value: str) -> None:
        """`info` is exit 11 with the key and the column; `list` shows the others and notes it."""
        column, value = FOREIGN[kind_of_value]
        key_id = spoil(world, column, value)
        workspace = world.workspace

        with pytest.raises(UnreadableRowError, match=f"key {key_id} .*{column}") as caught:
            KeyService(workspace).info(key_id)
        page, _ = KeyService(workspace).page(KeyFilter(), after=None, limit=10)

        assert int(caught.value.exit_code) == 11
        assert {view["key_alias"] for view in page} == {"good", "other"}
        assert [item.object_id for item in workspace.unreadable] == [key_id]

    def test_pages_go_on_behind_it(self, world: World) -> None:
        """A page that holds nothing else is empty, and has a cursor."""
        spoil(world, "models", "[1,2")
        service, found, after = KeyService(world.workspace), [], None

        for _ in range(4):
            page, after = service.page(KeyFilter(), after=after, limit=1)
            found += [view["key_alias"] for view in page]
            if after is None:
                break

        assert (sorted(found), after) == (["good", "other"], None)

    def test_the_others_are_blocked(self, world: World) -> None:
        """Each key for itself: the failure names the one that cannot be read."""
        key_id = spoil(world, "models", "[1,2")

        ended = EndingService(world.workspace).block(["good", key_id, "other"], blocked=True)

        assert [item.result for item in ended] == ["blocked", "failed", "blocked"]
        assert isinstance(ended[1].error, UnreadableRowError)

    def test_new_keys_are_made(self, world: World) -> None:
        """What every writing command sweeps first passes over it, pending though it looks."""
        spoil(world, "confirmed_at", None)
        spoil(world, "models", "[1,2", alias="bad")
        world.workspace.database.is_swept = False

        assert world.make({"key_alias": "new"})

    def test_budgets_of_others_begin_anew(self, world: World, clock: Clock) -> None:
        """A budget that cannot be read is passed over once, and does not stop the run."""
        key_id = spoil(world, "models", "[1,2")
        clock.advance(timedelta(days=2))

        begun = list(BudgetService(world.workspace).reset_due())

        assert len(begun) == 2
        assert [item.object_id for item in world.workspace.unreadable] == [key_id]

    def test_others_are_rotated(self, world: World, clock: Clock) -> None:
        """`rotate --due` has a line for each of the others."""
        for name in ("one", "two"):
            world.make({"key_alias": name, "auto_rotate": True, "rotation_interval": "1d"})
        key_id = spoil(world, "models", "[1,2", alias="two")
        clock.advance(timedelta(days=2))

        lines = list(DueService(world.workspace).rotate_due(DueOrder()))

        assert [(line.key_alias, line.reason) for line in lines] == [("one", "no_sink")]
        assert [item.object_id for item in world.workspace.unreadable] == [key_id]


class TestVerifying:
    def test_others_are_verified(self, world: World) -> None:
        """A key whose row cannot be read is no unknown key, and others are verified beside it."""
        good, bad = Hand(), Hand()
        for hand, alias in ((good, "g"), (bad, "b")):
            world.make({"key_alias": alias}, hand=hand)
        spoil(world, "models", "[1,2", alias="b")

        assert verify(world.workspace.database, good.held).valid
        with pytest.raises(UnreadableRowError):
            verify(world.workspace.database, bad.held)

    def test_a_team_that_cannot_be_read_is_named(self, world: World) -> None:
        """It is the team's row, and the error says so."""
        hand = Hand()
        world.make({"team_id": "web"}, hand=hand)
        with world.workspace.database.engine.begin() as connection:
            connection.execute(text("UPDATE teams SET models = 'x' WHERE id = 'web'"))

        with pytest.raises(UnreadableRowError, match="team web cannot be read: its models"):
            verify(world.workspace.database, hand.held)

    def test_a_team_whose_budgets_cannot_be_read_is_named(self, world: World) -> None:
        """A window without an amount limits nobody knows how much: nobody is let in."""
        hand = Hand()
        world.make({"team_id": "web"}, hand=hand)
        with world.workspace.database.engine.begin() as connection:
            window = '[{"budget_duration":"1d"}]'
            connection.execute(text(f"UPDATE teams SET budget_limits = '{window}'"))

        with pytest.raises(UnreadableRowError, match="team web cannot be read: its budget_limits"):
            verify(world.workspace.database, hand.held)

    def test_an_organization_whose_budgets_cannot_be_read_is_named(self, world: World) -> None:
        """As a team is."""
        hand = Hand()
        world.make({"team_id": "web"}, hand=hand)
        with world.workspace.database.engine.begin() as connection:
            budgets = '{"o1":{"max_budget":"much"}}'
            connection.execute(text(f"UPDATE organizations SET model_max_budget = '{budgets}'"))

        told = "organization acme cannot be read: its model_max_budget"
        with pytest.raises(UnreadableRowError, match=told):
            verify(world.workspace.database, hand.held)


class TestCheck:
    def test_every_row_is_listed(self, world: World) -> None:
        """Keys, owners, policies and hashes, each with what is wrong about it."""
        key_id = spoil(world, "tags", "7")
        with world.workspace.database.engine.begin() as connection:
            connection.execute(text("UPDATE users SET metadata = '[]' WHERE id = 'eve'"))
            connection.execute(text("UPDATE teams SET policy = '{\"x\": 1}' WHERE id = 'else'"))
            connection.execute(
                text(
                    "UPDATE secrets SET hash = 'plain' WHERE key_id = "
                    "(SELECT id FROM keys WHERE key_alias = 'good')"
                )
            )

        found = CheckService(world.workspace).check()["unreadable"]

        assert sorted((item["object_type"], item["columns"]) for item in found) == [
            ("key", ("tags",)),
            ("secret", ("hash",)),
            ("team", ("policy",)),
            ("user", ("metadata",)),
        ]
        assert key_id in {item["object_id"] for item in found}

    def test_the_directory_lists_the_others(self, world: World) -> None:
        """A team that cannot be read is left out and noted."""
        with world.workspace.database.engine.begin() as connection:
            connection.execute(text("UPDATE teams SET models = 'x' WHERE id = 'web'"))

        page, _ = DirectoryService(world.workspace).page(Team, after=None, limit=10)

        assert [view["team_id"] for view in page] == ["else"]
        assert [item.object_id for item in world.workspace.unreadable] == ["web"]
