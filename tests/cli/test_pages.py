"""Pages for one thing: how everything stands, and what a key may do in effect."""

import pytest
from inside import Inside


class TestStatus:
    def test_is_one_screen_of_what_wants_attention(self, inside: Inside) -> None:
        """Counts, what ends within a week, and budgets that are nearly spent."""
        inside("team", "create", "web", "--max-budget", "10", check=True)
        inside("generate", "--alias", "soon", "--duration", "2d", check=True)
        inside("generate", "--alias", "dear", "--max-budget", "5", check=True)
        inside("spend", "dear", "--add", "4", check=True)
        inside("generate", "--alias", "stopped", check=True)
        inside("block", "stopped", check=True)

        found = inside("status", "-o", "json", check=True).json

        assert found["keys"] == {
            "active": 2,
            "blocked": 1,
            "expired": 0,
            "pending": 0,
            "deleted": 0,
        }
        assert [key["key_alias"] for key in found["ending_within_7d"]] == ["soon"]
        (nearly,) = found["budgets"]["nearly_spent"]
        assert (nearly["object_type"], nearly["spend"], nearly["max_budget"]) == ("key", 4, 5)
        assert (found["unfinished"], found["outbox"]) == (0, [])
        assert found["audit"]["seq"] == inside("audit", "head", "-o", "json").json["seq"]

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_names_the_command_to_look_closer(self, inside: Inside) -> None:
        """Each number that is not zero comes with what shows more."""
        inside("generate", "--alias", "soon", "--duration", "2d", check=True)

        shown = inside("status", terminal=80).stdout

        assert "keyctl list --expires-before 7d" in shown
        assert len(shown.splitlines()) < 24


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
class TestHelpAndVersion:
    def test_help_is_that_of_the_command(self, inside: Inside) -> None:
        """`help team create` is `team create --help`, `help` the whole."""
        for words in ((), ("generate",), ("team", "create")):
            assert inside("help", *words).stdout == inside(*words, "--help").stdout

    def test_help_of_nothing(self, inside: Inside) -> None:
        """Exit 2 with the nearest command."""
        result = inside("help", "tem")

        assert (result.exit_code, "did you mean team?" in result.stderr) == (2, True)

    def test_version_is_told_as_json(self, inside: Inside) -> None:
        """The program's version and the schema it works with."""
        assert set(inside("version", "-o", "json").json) == {"version", "schema", "python"}
