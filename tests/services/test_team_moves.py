"""The keys of a team belong to an organization through it, and follow it to another one."""

from typing import Any

import pytest
from world import World

from keyctl.db import queries
from keyctl.records import Team
from keyctl.services.audit import AuditService, EventFilter
from keyctl.services.directory import DirectoryService
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.workspace import Workspace


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    return World(workspace)


def organization_of(world: World, key_id: str) -> str | None:
    """Return the organization that a key belongs to."""
    with world.workspace.database.read() as connection:
        (key,) = queries.find_keys(connection, [key_id])
    return key.organization_id


def move(world: World, organization_id: str | None) -> dict[str, Any]:
    """Let team web belong to this organization."""
    values = {"organization_id": organization_id}
    return DirectoryService(world.workspace).update(Team, "web", values)


class TestATeamThatMoves:
    def test_takes_its_keys_along_on_record(self, world: World) -> None:
        """The live ones, each with an event that says why; what others keep stays theirs."""
        mine = world.make({"team_id": "web", "key_alias": "mine"})
        ended = world.make({"team_id": "web"})
        strange = world.make({"team_id": "else"})
        EndingService(world.workspace).delete([ended])

        move(world, "other")

        found = [organization_of(world, key_id) for key_id in (mine, ended, strange)]
        assert found == ["other", "acme", None]
        events, _ = AuditService(world.workspace).page(EventFilter(), limit=2)
        assert [(item["action"], item["object_id"], item["reason"]) for item in events] == [
            ("key_updated", mine, "its team web moved"),
            ("team_updated", "web", None),
        ]
        assert world.workspace.warnings[-1:] == [
            "1 keys of team 'web' follow it to organization 'other'"
        ]
        ChangeService(world.workspace).update("mine", {"rpm_limit": 1})

    def test_out_of_every_organization_takes_them_too(self, world: World) -> None:
        """They spend no budget any more that their team has left; and back again."""
        key_id = world.make({"team_id": "web"})

        move(world, None)
        alone = organization_of(world, key_id)
        move(world, "acme")

        assert (alone, organization_of(world, key_id)) == (None, "acme")

    def test_leaves_a_state_that_the_chain_tells(self, world: World) -> None:
        """What was written is what the audit events say."""
        world.make({"team_id": "web"})

        move(world, "other")

        head = AuditService(world.workspace).verify(state=True, step=lambda: None)
        assert head.seq == AuditService(world.workspace).head()["seq"]
