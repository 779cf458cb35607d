"""What is said of limits that break no rule."""

from typing import Any

import pytest
from world import Hand, World, order_of

from keyctl.records import Team
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate import GenerateService
from keyctl.services.keys.update import ChangeService
from keyctl.services.workspace import Workspace

BUDGET = {"max_budget": 1, "budget_duration": "1d"}


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    return World(workspace)


def warnings(world: World, request: dict[str, Any]) -> list[str]:
    """Return what is said of a new key."""
    answer = GenerateService(world.workspace).generate(order_of(request), Hand()).answer
    return list(answer["warnings"])


class TestALimitOfAModel:
    @pytest.mark.parametrize(
        ("field", "value"),
        [("model_max_budget", BUDGET), ("model_rpm_limit", 5), ("model_tpm_limit", 5)],
    )
    def test_that_the_key_does_not_name_is_told_with_the_one_that_is_meant(
        self, world: World, field: str, value: Any
    ) -> None:
        """The limit of a slip of the pen holds for nothing."""
        request = {"models": ["gpt-4o-mini", "o1"], field: {"gpt-4o-mni": value, "o1": value}}

        assert warnings(world, request) == [
            f"{field} names what is not in the list of models: gpt-4o-mni (did you mean gpt-4o-mini?)"
        ]

    @pytest.mark.parametrize(
        "request_",
        [
            {"models": [], "model_rpm_limit": {"gpt-4o": 5}},
            {"models": ["gpt-4*"], "model_rpm_limit": {"gpt-4o": 5}},
            {"models": ["openai/gpt-4o"], "model_rpm_limit": {"gpt-4o": 5}},
            {"models": ["all-team-models"], "team_id": "web", "model_rpm_limit": {"gpt-4o": 5}},
            {"models": ["gpt-4o"], "aliases": {"gpt-4": "gpt-4o"}, "model_rpm_limit": {"gpt-4": 5}},
            {"models": ["fast-ones"], "model_rpm_limit": {"gpt-4o": 5}},
        ],
        ids=["inherits", "pattern", "provider", "the team's", "alias", "maybe a group's"],
    )
    def test_that_the_key_may_use_is_not_told(self, world: World, request_: dict[str, Any]) -> None:
        """Nor one that may be of a group of models."""
        assert warnings(world, request_) == []

    def test_is_told_when_it_is_changed(self, world: World) -> None:
        """Of a key, and of a team."""
        key_id = world.make({"models": ["gpt-4o-mini"]})
        said = "names what is not in the list of models: gpt-4o-mni (did you mean gpt-4o-mini?)"
        limit = {"gpt-4o-mni": 5}

        ChangeService(world.workspace).update(key_id, {"model_rpm_limit": limit})
        teams = DirectoryService(world.workspace)
        teams.create(Team, "new", {"models": ["gpt-4o-mini"], "model_tpm_limit": limit})
        teams.update(Team, "new", {"model_rpm_limit": limit})

        assert world.workspace.warnings == [
            f"model_rpm_limit {said}",
            f"model_tpm_limit {said}",
            f"model_rpm_limit {said}",
        ]
