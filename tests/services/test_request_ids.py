"""Request ids belong to their caller, and an alias tells nobody whose it is."""

from dataclasses import replace

import pytest
from world import CALLERS, World

from keyctl.db.queries import find_key
from keyctl.errors import AliasTakenError, RequestIdTakenError
from keyctl.policy.facts import Caller
from keyctl.services.workspace import Workspace


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    world = World(workspace)
    world.change({"team": {"policy": {"team_member_permissions": ["/key/generate"]}}})
    return world


def acting_by_key(world: World, name: str, user_id: str) -> Caller:
    """Return the caller *name* with a key of theirs."""
    key_id = world.make({"key_alias": f"{name}-own", "user_id": user_id, "team_id": "web"})
    with world.workspace.database.read() as connection:
        key = find_key(connection, key_id)
    assert key is not None
    return replace(CALLERS[name], actor=f"key:{key.id}", key=key)


class TestRequestIds:
    def test_another_callers_is_in_nobodys_way(self, world: World) -> None:
        """The same request id of three callers makes three keys, and each replays its own."""
        ada = acting_by_key(world, "internal_user", "ada")
        tina = acting_by_key(world, "team_admin", "tina")

        made = [
            world.make({"team_id": "web"}, caller, request_id="nightly", replay="answer")
            for caller in (ada, tina, None, ada, tina, None)
        ]

        assert len(set(made[:3])) == 3
        assert made[3:] == made[:3]

    def test_ones_own_names_one_request(self, world: World) -> None:
        """The same caller's other request of that name is exit 5, under the name as it was given."""
        ada = acting_by_key(world, "internal_user", "ada")
        world.make({"team_id": "web"}, ada, request_id="nightly")

        with pytest.raises(RequestIdTakenError, match="request id 'nightly'"):
            world.make({"team_id": "web", "tpm_limit": 1}, ada, request_id="nightly")


class TestAliases:
    def test_who_may_not_see_the_key_learns_no_more(self, world: World) -> None:
        """The refusal says that the alias is taken; only who may see the key is told how to."""
        world.make({"key_alias": "secret-project"})

        with pytest.raises(AliasTakenError) as stranger:
            world.make({"key_alias": "secret-project", "team_id": "web"}, CALLERS["internal_user"])
        with pytest.raises(AliasTakenError) as admin:
            world.make({"key_alias": "secret-project"})

        assert stranger.value.hint == "choose another alias"
        assert "keyctl info secret-project" in str(admin.value.hint)
