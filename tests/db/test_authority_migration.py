"""Which secrets from before `administers` was stored go on to administer."""

from dataclasses import replace
from typing import Any

import pytest
from schema_steps import downgrade
from sqlalchemy import text
from world import CALLERS, Hand, World

from keyctl.services.keys.update import ChangeService
from keyctl.services.repair import CheckService, rights_lost
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.workspace import Workspace


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    return World(workspace)


def upgraded(workspace: Workspace) -> dict[str, bool]:
    """Return which secrets administer after an upgrade from the schema before, by alias."""
    downgrade(workspace.database, "1_0002")
    workspace.database.upgrade()
    query = text(
        "SELECT key_alias, administers FROM secrets JOIN keys ON keys.id = key_id"
        " WHERE state = 'active'"
    )
    with workspace.database.engine.connect() as connection:
        return {row.key_alias: bool(row.administers) for row in connection.execute(query)}


class TestSecretsFromBefore:
    def test_administer_if_the_local_operator_staged_them_and_nothing_moved_them(
        self, world: World
    ) -> None:
        """Not those that a caller's key staged, nor those whose user changed since."""
        workspace = world.workspace
        world.make({"key_alias": "kept", "user_id": "ada"})
        world.make({"key_alias": "by-a-caller", "user_id": "tina"}, CALLERS["proxy_admin"])
        world.make({"key_alias": "moved", "user_id": "ada"})
        ChangeService(workspace).update("moved", {"user_id": "eve"})
        world.make({"key_alias": "taken", "user_id": "ada"})
        by_admin = replace(workspace, caller=CALLERS["proxy_admin"])
        RotateService(by_admin).rotate(RotateOrder(given="taken"), Hand())

        assert upgraded(workspace) == {
            "kept": True,
            "by-a-caller": False,
            "moved": False,
            "taken": False,
        }

    def test_that_lost_their_right_are_listed_with_the_command_that_gives_it_back(
        self, world: World
    ) -> None:
        """Only keys of people and teams, and only those whose routes hold an operation."""
        workspace = world.workspace
        for request in (
            {"key_alias": "listed", "user_id": "ada"},
            {"key_alias": "of-nobody"},
            {"key_alias": "only-calls-models", "user_id": "ada", "key_type": "llm_api"},
        ):
            world.make(request, CALLERS["proxy_admin"])
        upgraded(workspace)

        found = rights_lost(workspace.database)["administers_lost"]
        assert [item["key_alias"] for item in found] == ["listed"]
        lost = found[0]
        report: dict[str, Any] = CheckService(workspace).check()

        assert (lost["key_alias"], lost["command"]) == (
            "listed",
            f"keyctl update {lost['key_id']} --administers {lost['secret_id']}",
        )
        assert report["administers_lost"] == [lost]
        assert report["left"] == []

    def test_of_blocked_keys_count_as_blocked_by_an_admin(self, world: World) -> None:
        """Nobody knows any more who did it."""
        workspace = world.workspace
        world.make({"key_alias": "blocked", "user_id": "ada", "blocked": True})
        upgraded(workspace)
        with workspace.database.engine.connect() as connection:
            row = connection.execute(text("SELECT blocked_by_admin FROM keys")).one()

        assert bool(row.blocked_by_admin)
