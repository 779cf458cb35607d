"""No change leads another's next key string to where it would be more than its reader was given."""

from pathlib import Path
from typing import Any

import pytest
from holders import Held, Holder, Into, operator, refused
from world import World

from keyctl.fields import parse_grace
from keyctl.services.workspace import Workspace

EACH: dict[str, Any] = {"team_id": "web"}


@pytest.fixture(name="world")
def _world(workspace: Workspace, tmp_path: Path) -> World:
    world = World(workspace)
    sinks = {
        "by_alias": {"type": "file", "path": f"{tmp_path}/{{alias}}"},
        "by_id": {"type": "file", "path": f"{tmp_path}/{{key_id}}"},
        "program": {"type": "command", "argv": ["cat"]},
    }
    world.change({"settings": {"sinks": sinks, "default_sink": "by_id"}})
    return world


@pytest.fixture(name="local")
def _local(world: World) -> Holder:
    return operator(world)


@pytest.fixture(name="poor")
def _poor(local: Holder) -> Held:
    return local.generate({**EACH, "user_id": "tina", "models": ["gpt-4o"]})


class TestAnAlias:
    @pytest.mark.parametrize("sink", ["by_alias", "program"])
    def test_that_is_part_of_the_place_of_a_richer_key_stays(
        self, local: Holder, poor: Held, sink: str
    ) -> None:
        """Else the next rotation would put it where the caller reads."""
        rich = local.generate({**EACH, "user_id": "ada", "key_alias": "rich"}, sink=sink)
        assert refused(poor.update, rich.key_id, {"key_alias": "app"}) == {"caller.models"}

    def test_that_is_no_part_of_the_place_is_changed(self, local: Holder, poor: Held) -> None:
        """The key stays where it is."""
        rich = local.generate({**EACH, "user_id": "ada", "key_alias": "rich"}, sink="by_id")
        assert poor.update(rich.key_id, {"key_alias": "app"})["key_alias"] == "app"

    def test_of_a_key_within_the_ceiling_is_changed(self, local: Holder, poor: Held) -> None:
        """The caller could make one like it."""
        request = {**EACH, "user_id": "ada", "key_alias": "poor", "models": ["gpt-4o"]}
        key = local.generate(request, sink="by_alias")
        assert poor.update(key.key_id, {"key_alias": "app"})["key_alias"] == "app"

    def test_of_the_very_key_is_changed(self, local: Holder) -> None:
        """Who holds it gains nothing."""
        key = local.generate({"user_id": "ada", "key_alias": "mine"}, sink="by_alias")
        assert key.update(key.key_id, {"key_alias": "app"})["key_alias"] == "app"


class TestTheDefaultSink:
    def test_is_not_the_own_one_of_a_key_that_cron_does_not_rotate(
        self, local: Holder, poor: Held
    ) -> None:
        """No string of it would come there."""
        rich = local.generate({**EACH, "user_id": "ada"})
        assert refused(poor.rotate, rich.key_id, Into("by_id")) == {"caller.models"}

    def test_does_not_become_it_by_a_caller_who_holds_less(self, local: Holder, poor: Held) -> None:
        """To switch rotation on leads the next string there."""
        rich = local.generate({**EACH, "user_id": "ada"})
        on = {"auto_rotate": True, "rotation_interval": "1d"}
        assert refused(poor.update, rich.key_id, on) == {"caller.models"}

    def test_is_the_own_one_of_a_key_that_cron_rotates(self, local: Holder, poor: Held) -> None:
        """It goes where cron would put it."""
        on = {"auto_rotate": True, "rotation_interval": "1d"}
        rich = local.generate({**EACH, "user_id": "ada", **on})
        hand = Into("by_id")
        poor.rotate(rich.key_id, hand)
        assert hand.held.startswith("sk-")


class TestAKeyThatMayIssue:
    @pytest.fixture(name="mint")
    def _mint(self, local: Holder) -> Held:
        bounds = {"duration": "90d", "models": ["o1"], "max_budget": 5}
        return local.generate({"user_id": "eve", "duration": "30d", "may_issue": bounds})

    def test_that_gives_itself_more_time_administers_no_more(self, mint: Held) -> None:
        """Else it would mint for ever, a prolongation at a time."""
        longer = {"duration": "60d", "models": ["o1"], "max_budget": 5}
        (secret,) = mint.update(mint.key_id, longer)["secrets"]
        assert secret["administers"] is False
        assert refused(mint.generate, {}) == {"caller.issued_by_another"}

    def test_gives_no_other_key_of_its_user_the_right_to_live_longer(
        self, local: Holder, mint: Held
    ) -> None:
        """That one works on, at gateways."""
        other = local.generate({"user_id": "eve", "duration": "1d"})
        longer = {"duration": "60d", "models": ["o1"], "max_budget": 5}
        (secret,) = mint.update(other.key_id, longer)["secrets"]
        assert secret["administers"] is False

    def test_is_rotated_by_an_old_secret_of_its_own_only_to_the_end_of_that(
        self, mint: Held
    ) -> None:
        """What it may issue are other keys."""
        mint.rotate(mint.key_id, grace=parse_grace("1h"))
        assert refused(mint.rotate, mint.key_id) == {"caller.expires"}


def test_an_admin_whose_key_ends_prolongs_no_right_to_administer(
    local: Holder, world: World
) -> None:
    """It is said, with the command that gives the right back; a shorter life changes nothing."""
    world.change({"user": {"role": "proxy_admin"}})
    admin = local.generate({"user_id": "ada", "duration": "9d"})
    key = local.generate({"user_id": "eve", "duration": "5d"})
    (secret,) = admin.update(key.key_id, {"duration": "8d"})["secrets"]
    assert secret["administers"] is True

    workspace = admin.workspace
    acting = Holder(workspace, None)
    (secret,) = acting.update(key.key_id, {"duration": "30d"})["secrets"]

    assert secret["administers"] is False
    (warning,) = workspace.warnings
    assert warning == (
        f"secret {secret['id']} of key {key.key_id} administers no more; an admin whose key does not"
        f" end gives that back: keyctl update {key.key_id} --administers {secret['id']}"
    )
