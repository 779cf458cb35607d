"""What can be a name, and what an older version took for one."""

import pytest

from keyctl.db.queries import directory
from keyctl.names import is_name
from keyctl.policy.documents import stored_policy
from keyctl.principals import principal_values, tier_values
from keyctl.records import Team
from keyctl.services.directory import DirectoryService
from keyctl.services.workspace import Workspace


@pytest.mark.parametrize("text", ["web", " web", "a b", "ü", "日本", "🔑", "x" * 255])
def test_a_name_has_something_to_see(text: str) -> None:
    """Blanks may stand in it and around it."""
    assert is_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "   ",
        "\u00a0",
        "\u200b",
        "\u2800",
        "\u3164\u115f\u1160\uffa0",
        " \ufe0f",
        "a\nb",
        "x" * 256,
    ],
)
def test_a_text_that_is_no_name(text: str) -> None:
    """Nothing of it can be seen, or it cannot stand in one line."""
    assert not is_name(text)


class TestWhatIsStored:
    def test_a_policy_is_read_as_it_is(self, workspace: Workspace) -> None:
        """A tag of blanks in a stored policy makes no key of its team unusable."""
        DirectoryService(workspace).create(Team, "web", {"policy": {"allowed_tags": [" "]}})

        with workspace.database.read() as connection:
            found = stored_policy(directory.find(connection, Team, "web"))

        assert found is not None
        assert found.allowed_tags == [" "]

    def test_an_owner_can_be_changed(self, workspace: Workspace) -> None:
        """What is there under an id of blanks is given limits as any other."""
        service = DirectoryService(workspace)
        service.create(Team, " ", {})

        view = service.update(Team, " ", principal_values(Team, " ", {"rpm_limit": 5}, new=False))

        assert (view["team_id"], view["rpm_limit"]) == (" ", 5)
        assert tier_values(" ", {"rpm_limit": 5}, new=False) == {"rpm_limit": 5}
