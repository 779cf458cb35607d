"""Budget tiers and members' limits: set on the command line, held by the verifier."""

import json

import pytest
from harness import Cli

from keyctl.gateway import Verifier

pytestmark = pytest.mark.in_process


def members(cli: Cli) -> list[dict[str, object]]:
    """Return the members of team web as `team info` tells them."""
    found: list[dict[str, object]] = cli("team", "info", "web", "-o", "json", check=True).json[
        "members_with_roles"
    ]
    return found


class TestTiers:
    def test_a_tier_lives_from_create_to_delete(self, cli: Cli) -> None:
        """Made, changed, shown, listed; archived once nobody names it."""
        made = cli(
            *("budget", "create", "small", "--max-budget", "5", "--budget-duration", "1d"),
            *("--rpm-limit", "60", "-o", "json"),
            check=True,
        ).json
        assert (made["budget_id"], made["max_budget"], made["rpm_limit"]) == ("small", 5, 60)
        body = json.dumps({"model_max_budget": {"o1": {"budget_limit": 1, "time_period": "1d"}}})
        changed = cli(
            *("budget", "update", "small", "--request", "-", "--clear", "rpm-limit", "-o", "json"),
            input=body,
            check=True,
        ).json
        assert changed["model_max_budget"] == {"o1": {"max_budget": 1, "budget_duration": "1d"}}
        assert changed["rpm_limit"] is None
        assert "small" in cli("budget", "list", check=True).stdout
        key = cli("generate", "--budget-id", "small", "-o", "json", check=True).json
        assert key["budget_id"] == "small"
        refused = cli("budget", "delete", "small", "-o", "json")
        assert (refused.exit_code, key["key_id"] in refused.error["message"]) == (5, True)
        cli("update", key["key_id"], "--clear", "budget-id", check=True)
        cli("budget", "delete", "small", check=True)
        assert cli("budget", "info", "small").exit_code == 3
        actions = [
            event["action"]
            for event in cli("audit", "list", "-o", "json", check=True).json["events"]
            if event["object_type"] == "budget"
        ]
        assert sorted(actions) == ["budget_created", "budget_deleted", "budget_updated"]

    def test_an_unknown_tier_is_not_found(self, cli: Cli) -> None:
        """Wherever it is named, with the nearest name."""
        cli("budget", "create", "small", check=True)
        cli("team", "create", "web", check=True)
        cli("user", "create", "ada", check=True)
        cli("team", "add-member", "web", "ada", check=True)
        for command in (
            ("generate", "--budget-id", "smal"),
            ("user", "update", "ada", "--budget-id", "smal"),
            ("team", "update-member", "web", "ada", "--budget-id", "smal"),
        ):
            result = cli(*command, "-o", "json")
            assert (result.exit_code, result.error["code"]) == (3, "budget_not_found"), command
            assert "small" in result.error["hint"]
        assert cli("budget", "create", "small", "-o", "json").error["code"] == "already_exists"

    def test_a_tier_holds_for_a_user(self, cli: Cli) -> None:
        """With all of the user's keys together."""
        cli("budget", "create", "small", "--max-budget", "1", check=True)
        cli("user", "create", "ada", "--budget-id", "small", check=True)
        keys = [cli("generate", "--user", "ada", check=True).stdout.strip() for _ in range(2)]
        with Verifier(str(cli.database_url)) as verifier:
            verifier.verify(keys[0]).record(1)
            assert verifier.verify(keys[1]).reason == "budget_exceeded"


class TestMembers:
    def test_limits_of_a_member_are_set_shown_and_held(self, cli: Cli) -> None:
        """Of the user's keys in that team, and of nobody else's."""
        cli("team", "create", "web", check=True)
        for user in ("ada", "bob"):
            cli("user", "create", user, check=True)
            cli("team", "add-member", "web", user, check=True)
        own, others = (
            cli("generate", "--team", "web", "--user", user, check=True).stdout.strip()
            for user in ("ada", "bob")
        )
        told = cli(
            *("team", "update-member", "web", "ada", "--max-budget", "2", "--budget-duration"),
            *("30d", "--rpm-limit", "5", "--tpm-limit", "900", "-o", "json"),
            check=True,
        ).json
        assert (told["max_budget"], told["budget_duration"], told["spend"]) == (2, "30d", 0)
        with Verifier(str(cli.database_url)) as verifier:
            verifier.verify(own).record(2.5)
            assert verifier.verify(own).reason == "budget_exceeded"
            assert verifier.verify(others).valid
        assert members(cli) == [
            {
                "user_id": "ada",
                "role": "user",
                "max_budget": 2,
                "budget_duration": "30d",
                "rpm_limit": 5,
                "tpm_limit": 900,
                "budget_id": None,
                "spend": 2.5,
            },
            {"user_id": "bob", "role": "user"},
        ]
        assert "2.5" in cli("team", "info", "web", check=True).stdout

    def test_leaving_and_joining_gives_nothing_back(self, cli: Cli) -> None:
        """The limit goes with the membership; what was spent stays, and is said when a limit is set."""
        cli("team", "create", "web", check=True)
        cli("user", "create", "ada", check=True)
        cli("team", "add-member", "web", "ada", check=True)
        cli("team", "update-member", "web", "ada", "--max-budget", "2", check=True)
        key = cli("generate", "--team", "web", "--user", "ada", "-o", "json", check=True).json
        with Verifier(str(cli.database_url)) as verifier:
            verifier.verify(key["key"]).record(2)
        cli("delete", key["key_id"], "--yes", check=True)
        cli("team", "remove-member", "web", "ada", check=True)
        cli("team", "add-member", "web", "ada", check=True)
        told = cli("team", "update-member", "web", "ada", "--max-budget", "2", "-o", "json").json
        assert told["warnings"] == ["user ada has spent $2 in team web already"]

    def test_what_cannot_be_set_is_refused(self, cli: Cli) -> None:
        """A stranger, nothing at all, no role, a negative amount."""
        cli("team", "create", "web", check=True)
        cli("user", "create", "ada", check=True)
        update = ("team", "update-member", "web", "ada")
        assert cli(*update, "--max-budget", "1").exit_code == 3
        cli("team", "add-member", "web", "ada", check=True)
        assert cli(*update).exit_code == 2
        assert cli(*update, "--clear", "role").exit_code == 2
        assert cli(*update, "--max-budget", "-1").exit_code == 2
        assert cli(*update, "--rpm-limit", "-1").exit_code == 2
        assert cli(*update, "--role", "admin", "--budget-id", "nope").exit_code == 3
        assert members(cli) == [{"user_id": "ada", "role": "user"}]
        cli(*update, "--role", "admin", check=True)
        assert members(cli) == [{"user_id": "ada", "role": "admin"}]


class TestSpend:
    def test_of_an_owner_is_corrected_as_a_key_s(self, cli: Cli) -> None:
        """By its id alone, or by an option where ids are alike; on record each time."""
        for group in ("team", "user", "org"):
            cli(group, "create", "web", "--max-budget", "5", check=True)
            told = cli("spend", f"--{group}", "web", "--add", "1.5", "-o", "json", check=True).json
            assert (told["previous_spend"], told["spend"], told["max_budget"]) == (0, 1.5, 5)
        cli("team", "create", "api", check=True)
        told = cli("spend", "api", "--add", "2", "-o", "json", check=True).json
        assert (told["team_id"], told["spend"]) == ("api", 2)
        assert cli("spend", "api", "--reset", check=True).stdout == "api: $2 → $0\n"
        actions = [
            event["action"]
            for event in cli("audit", "list", "-o", "json", check=True).json["events"]
            if event["action"].endswith("_spend_changed")
        ]
        assert sorted(set(actions)) == [
            "organization_spend_changed",
            "team_spend_changed",
            "user_spend_changed",
        ]

    def test_what_is_nobody_or_several_is_refused(self, cli: Cli) -> None:
        """And so are two owners at once, and none."""
        for group in ("team", "user"):
            cli(group, "create", "web", check=True)
        assert cli("spend", "nobody", "--reset").exit_code == 3
        assert cli("spend", "--team", "nobody", "--reset").exit_code == 3
        told = cli("spend", "web", "--reset").stderr
        assert "error: 'web' names the user and the team\nhint: say which: --team" in told
        for arguments in ((), ("--team", "web", "--user", "web"), ("web", "--org", "web")):
            assert cli("spend", *arguments, "--reset").exit_code == 2

    def test_a_slip_is_told_with_the_nearest_name(self, cli: Cli) -> None:
        """Of a key or of an owner: nobody says which it is to be."""
        cli("team", "create", "search", check=True)
        cli("generate", "--alias", "checkout", check=True)
        for given, meant in (("serach", "search"), ("chekout", "checkout")):
            slip = cli("spend", given, "--add", "1")
            assert (slip.exit_code, slip.stdout) == (3, "")
            assert f"there is no key, team, user or organization {given!r}" in slip.stderr
            assert f"hint: did you mean {meant}?" in slip.stderr
        assert "key string" in cli("spend", "-", "--reset", input="sk-" + "x" * 40).stderr


class TestWarnings:
    def test_what_nobody_enforces_is_said_by_name(self, cli: Cli) -> None:
        """When the key is made, and when such a field is changed; other fields say nothing."""
        body = json.dumps({"key_alias": "a", "prompts": ["p"], "guardrails": ["g"]})
        key = cli("generate", "--request", "-", "-o", "json", input=body, check=True).json
        assert key["warnings"] == [
            "prompts is kept and shown, and nobody enforces it",
            "guardrails without a licence make LiteLLM refuse every request of the key",
        ]
        assert "prompts is kept" not in cli("update", "a", "--rpm-limit", "5", check=True).stderr
        changed = cli("update", "a", "--prompt", "q", check=True).stderr
        assert "prompts is kept and shown, and nobody enforces it" in changed

    def test_a_budget_that_is_spent_already_is_said(self, cli: Cli) -> None:
        """Of a key and of an owner, when it is set."""
        cli("generate", "--alias", "a", "--spend", "5", check=True)
        told = cli("update", "a", "--max-budget", "2", check=True).stderr
        assert "max_budget is spent already: $5 of $2" in told
        cli("team", "create", "web", check=True)
        cli("spend", "web", "--add", "3", check=True)
        told = cli("team", "update", "web", "--max-budget", "1", check=True).stderr
        assert "max_budget is spent already: $3 of $1" in told

    @pytest.mark.parametrize("command", [("update", "a"), ("team", "update", "web")])
    def test_each_new_budget_that_is_spent_already_is_a_warning(
        self, cli: Cli, command: tuple[str, ...]
    ) -> None:
        """Windows, single models and a day's tokens too."""
        cli("team", "create", "web", check=True)
        key = cli("generate", "--alias", "a", "--team", "web", check=True).stdout.strip()

        def give(amount: float, tokens: int) -> str:
            body = {
                "budget_limits": [{"budget_duration": "1d", "max_budget": amount}],
                "model_max_budget": {"o1": {"max_budget": amount}, "o3": {"max_budget": amount}},
                "tpd_limit": tokens,
                "max_budget": amount,
            }
            return cli(*command, "--request", "-", input=json.dumps(body), check=True).stderr

        assert "already" not in give(9, 9)
        with Verifier(str(cli.database_url)) as verifier:
            verifier.verify(key, model="o1").record(1, tokens=4)

        told = give(0.5, 4)

        assert sorted(line for line in told.splitlines() if "already" in line) == [
            "warning: budget_limits is spent already: $1 of $0.5 (window:1d)",
            "warning: max_budget is spent already: $1 of $0.5",
            "warning: model_max_budget is spent already: $1 of $0.5 (model:o1)",
            "warning: tpd_limit is spent already: 4 of 4 tokens",
        ]
        assert "already" not in cli(*command, "--rpm-limit", "9", check=True).stderr
