"""Pages for one thing: how everything stands, and what a key may do in effect."""

import pytest
from harness import Cli
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

    def test_takes_a_period_that_is_over_for_new(self, inside: Inside, cli: Cli) -> None:
        """Also when no cron has written it down."""
        inside(
            *("generate", "--alias", "dear", "--max-budget", "5", "--budget-duration", "1d"),
            check=True,
        )
        inside("spend", "dear", "--add", "5", check=True)
        cli.execute("UPDATE keys SET budget_reset_at = '2026-01-01 00:00:00+00:00'")

        assert inside("status", "-o", "json", check=True).json["budgets"]["nearly_spent"] == []

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


class TestKeyPage:
    def test_tells_what_a_key_may_do_in_effect(self, inside: Inside) -> None:
        """Each list of models, the smallest rate and every budget, with whose it is."""
        inside(
            *("team", "create", "web", "--max-budget", "10", "--rpm-limit", "5"),
            *("--model", "gpt-4*"),
            check=True,
        )
        inside(
            *("generate", "--alias", "a", "--team", "web", "--max-budget", "8"),
            *("--model", "gpt-4o"),
            check=True,
        )
        inside("spend", "a", "--add", "3", check=True)

        effect = inside("info", "a", "-o", "json", check=True).json["effective"]

        assert (effect["works"], effect["reason"]) == (True, None)
        assert [(item["of"], item["models"]) for item in effect["models"]] == [
            ("key", ["gpt-4o"]),
            ("team", ["gpt-4*"]),
        ]
        assert effect["rpm_limit"]["limit"] == 5
        assert [(item["of"], item["left"]) for item in effect["budgets"]] == [
            ("key", 5),
            ("team", 10),
        ]

    def test_says_why_an_active_key_is_refused(self, inside: Inside) -> None:
        """Its own state says active, its team is blocked."""
        inside("team", "create", "web", check=True)
        inside("generate", "--alias", "a", "--team", "web", check=True)
        inside("team", "update", "web", "--blocked", check=True)

        assert inside("info", "a", "-o", "json").json["effective"]["reason"] == "team_blocked"
        assert "refused: team_blocked" in inside("info", "a", terminal=80).stdout

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_has_secrets_and_the_last_events(self, inside: Inside) -> None:
        """As tables under their headings, on a screen with short dates."""
        inside("generate", "--alias", "a", check=True)
        inside("update", "a", "--max-budget", "5", check=True)

        shown = inside("info", "a", terminal=100, environment={"NO_COLOR": "1"}).stdout

        assert "\nsecrets\n" in shown
        assert "\nlast events\n" in shown
        assert "max_budget none → $5" in shown


class TestOwnerPage:
    def test_has_members_keys_by_spend_and_what_is_left(self, inside: Inside) -> None:
        """The dearest key first."""
        inside("team", "create", "web", "--max-budget", "10", check=True)
        inside("user", "create", "ada", check=True)
        inside("team", "add-member", "web", "ada", check=True)
        for alias, spent in (("a", "1"), ("b", "2")):
            inside("generate", "--alias", alias, "--team", "web", check=True)
            inside("spend", alias, "--add", spent, check=True)

        view = inside("team", "info", "web", "-o", "json", check=True).json
        shown = inside("team", "info", "web", check=True).stdout

        assert (view["left"], view["keys"]["count"], view["keys"]["spend"]) == (10, 2, 3)
        assert [key["key_alias"] for key in view["keys"]["dearest"]] == ["b", "a"]
        assert "1 member\n" in shown
        assert view["members_with_roles"] == [{"user_id": "ada", "role": "user"}]
        assert "2 keys that exist, $3 spent with them" in shown

    def test_of_a_user_has_teams_and_organizations_with_roles(self, inside: Inside) -> None:
        """Also to the user, and empty lists where there are none."""
        inside("org", "create", "acme", check=True)
        inside("team", "create", "web", "--org", "acme", check=True)
        inside("team", "create", "data", check=True)
        for user in ("ada", "eve"):
            inside("user", "create", user, check=True)
        inside("org", "add-member", "acme", "ada", check=True)
        inside("team", "add-member", "web", "ada", "--role", "admin", check=True)
        inside("team", "add-member", "data", "ada", check=True)
        own = inside("generate", "--user", "ada", check=True).stdout.strip()

        view = inside("user", "info", "ada", "-o", "json", check=True).json
        shown = inside(
            "user", "info", "ada", environment={"KEYCTL_API_KEY": own}, check=True
        ).stdout
        other = inside("user", "info", "eve", "-o", "json", check=True).json

        assert view["teams"] == [
            {"team_id": "data", "role": "user"},
            {"team_id": "web", "role": "admin"},
        ]
        assert view["organizations"] == [{"organization_id": "acme", "role": "internal_user"}]
        assert (other["teams"], other["organizations"]) == ([], [])
        lines = [line.split() for line in shown.splitlines()]
        start = lines.index(["member", "of", "2", "teams"])
        assert lines[start + 1 : start + 4] == [
            ["team_id", "role"],
            ["data", "user"],
            ["web", "admin"],
        ]
        assert ["member", "of", "1", "organization"] in lines
