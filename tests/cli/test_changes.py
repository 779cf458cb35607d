"""update, block, delete, revoke, spend and budget reset, as people and cron use them."""

import json
from typing import Any

import pytest
from harness import Cli
from inside import Inside

from keyctl.cli.console import Console
from keyctl.cli.many import warn_of_issued
from keyctl.cli.session import Common, Session

pytestmark = pytest.mark.in_process


def made(cli: Cli, *arguments: str) -> Any:
    """Make a key and return its answer."""
    return cli("generate", "-o", "json", *arguments, check=True).json


class TestUpdate:
    def test_what_is_not_named_stays(self, cli: Cli) -> None:
        """A merge patch: objects are merged, null clears, the rest and the secret stay."""
        key = made(cli, "--alias", "a", "--max-budget", "5", "--tpm-limit", "100")
        patch = {"metadata": {"app": "web", "old": None}, "tpm_limit": None, "rpm_limit": 7}
        cli("update", "a", "--metadata", "old=1", check=True)

        after = cli("update", "a", "--request", "-", "-o", "json", input=json.dumps(patch)).json

        names = ("key_id", "max_budget", "tpm_limit", "rpm_limit", "metadata")
        assert [after[name] for name in names] == [key["key_id"], 5, None, 7, {"app": "web"}]
        assert cli.verdict(key["key"])["valid"]
        event = cli("audit", "list", "--limit", "1", "-o", "json", check=True).json["events"][0]
        assert (event["action"], event["before"]["tpm_limit"], event["after"]["tpm_limit"]) == (
            "key_updated",
            100,
            None,
        )
        assert (event["seq"], set(after["audit"])) == (after["audit"]["seq"], {"seq", "head"})

    def test_clear_empties_a_field(self, cli: Cli) -> None:
        """--clear FIELD is null in a patch."""
        made(cli, "--alias", "a", "--duration", "1d", "--max-budget", "5")
        after = cli(
            *("update", "a", "--clear", "max_budget", "--clear", "duration", "-o", "json"),
            check=True,
        ).json
        assert (after["max_budget"], after["expires"]) == (None, None)

    def test_an_alias_that_is_taken(self, cli: Cli) -> None:
        """Another live key's alias is a conflict, and nothing changes."""
        made(cli, "--alias", "a")
        made(cli, "--alias", "b")
        result = cli("update", "b", "--alias", "a", "--tpm-limit", "5", "-o", "json")
        assert (result.exit_code, result.stdout, result.error["code"]) == (5, "", "alias_taken")
        assert cli("info", "b", "-o", "json", check=True).json["tpm_limit"] is None

    @pytest.mark.parametrize("field", ["key_id", "token", "no_such_field", "confirmed_at"])
    def test_what_is_no_field(self, cli: Cli, field: str) -> None:
        """Identity and inner columns are not to be set: exit 2."""
        made(cli, "--alias", "a")
        result = cli("update", "a", "--request", "-", "-o", "json", input=json.dumps({field: "x"}))
        assert (result.exit_code, result.stdout) == (2, "")

    def test_a_dry_run_changes_nothing(self, cli: Cli) -> None:
        """The verdict and the record as it would be, and the record as it was stays."""
        made(cli, "--alias", "a")
        result = cli("update", "a", "--tpm-limit", "5", "--dry-run", "-o", "json", check=True).json
        assert (result["allowed"], result["record"]["tpm_limit"]) == (True, 5)
        assert cli("info", "a", "-o", "json", check=True).json["tpm_limit"] is None


class TestEndings:
    def test_each_of_several_has_its_own_result(self, cli: Cli) -> None:
        """One unknown key does not stop the others: exit 9 with a result for each."""
        for alias in ("a", "b"):
            made(cli, "--alias", alias)
        result = cli("delete", "a", "nobody", "b", "--yes", "-o", "json")
        assert result.exit_code == 9
        assert [
            (item["given"], item["result"], item["reason"]) for item in result.json["results"]
        ] == [
            ("a", "deleted", None),
            ("nobody", "failed", "key_not_found"),
            ("b", "deleted", None),
        ]

    def test_one_that_fails_alone_is_the_command_s_failure(self, cli: Cli) -> None:
        """Its own status, the error on stderr, stdout empty."""
        made(cli)
        result = cli("delete", "nobody", "-o", "json")
        assert (result.exit_code, result.stdout, result.error["code"]) == (3, "", "key_not_found")

    def test_many_need_a_yes_and_may_be_counted(self, cli: Cli) -> None:
        """Without a terminal several keys need --yes; --expect-count refuses another number."""
        for alias in ("a", "b"):
            made(cli, "--alias", alias)
        assert cli("block", "a", "b").exit_code == 2
        assert cli("block", "a", "b", "--yes", "--expect-count", "3").exit_code == 2
        assert cli("list", "--state", "blocked", "-o", "json", check=True).json["keys"] == []
        assert cli("block", "a", "b", "--yes", "--expect-count", "2").exit_code == 0
        blocked = cli("list", "--state", "blocked", "-o", "json", check=True).json["keys"]
        assert len(blocked) == 2

    def test_a_filter_takes_all_that_match(self, cli: Cli) -> None:
        """delete --team ends the team's keys and no others; --dry-run only shows them."""
        cli("team", "create", "web", check=True)
        mine, other = made(cli, "--team", "web"), made(cli)
        plan = cli("delete", "--team", "web", "--dry-run", "-o", "json", check=True).json
        cli("delete", "--team", "web", "--yes", check=True)
        assert plan["keys"] == [mine["key_id"]]
        assert cli.verdict(mine["key"])["reason"] == "revoked"
        assert cli.verdict(other["key"])["valid"]

    def test_a_deleted_key_is_remembered(self, cli: Cli) -> None:
        """info answers to its id, its alias is free, and nothing brings it back."""
        key = made(cli, "--alias", "a")
        cli("delete", "a", check=True)
        info = cli("info", key["key_id"], "-o", "json", check=True).json
        assert (info["state"], info["key_alias"]) == ("deleted", "a")
        assert made(cli, "--alias", "a")["key_id"] != key["key_id"]
        for command in (["unblock"], ["update", "--tpm-limit", "1"], ["revoke"]):
            assert cli(command[0], key["key_id"], *command[1:]).exit_code == 3

    def test_a_grace_period_can_be_ended(self, cli: Cli) -> None:
        """revoke ends retiring secrets, all or those named; never the active one."""
        key = made(cli, "--alias", "a")
        cli("rotate", "a", check=True)
        active = cli("info", "a", "-o", "json", check=True).json["secrets"][0]["id"]

        refused = cli("revoke", "a", active, "-o", "json")
        cli("revoke", "a", key["key"][3:15], check=True)

        assert (refused.exit_code, refused.error["code"]) == (5, "secret_active")
        assert cli.verdict(key["key"])["reason"] == "revoked"

    def test_a_second_rotation_keeps_the_first_deadline(self, cli: Cli) -> None:
        """Rotating again during a grace period does not lengthen the first old secret's life."""
        made(cli, "--alias", "a")
        first = cli("rotate", "a", "--grace", "1h", "-o", "json", check=True).json["old_secret"]
        cli("rotate", "a", "--grace", "24h", check=True)
        secrets = cli("info", "a", "-o", "json", check=True).json["secrets"]
        assert [item["not_after"] for item in secrets if item["id"] == first["id"]] == [
            first["not_after"]
        ]


class TestDryRunsOfEndings:
    @pytest.mark.parametrize("verb", ["block", "unblock", "delete"])
    def test_a_key_that_is_not_there_is_not_found(self, inside: Inside, verb: str) -> None:
        """As the run itself says it: a misspelt name, and a key that is deleted."""
        inside("generate", "--alias", "here", check=True)
        inside("generate", "--alias", "gone", check=True)
        inside("delete", "gone", check=True)

        for name in ("her", "gone"):
            would = inside(verb, "here", name, "--dry-run", "-o", "json")
            run = inside(verb, name, "-o", "json")

            assert (would.exit_code, would.stdout, would.error) == (3, "", run.error)
        assert inside(verb, "here", "--dry-run").stdout == f"would {verb} here\n"

    def test_what_the_rules_refuse_is_refused(self, inside: Inside) -> None:
        """As the command itself: exit 4 with the rule; nothing is on record."""
        inside("user", "create", "bob", check=True)
        inside("generate", "--user", "bob", "--alias", "stopped", check=True)
        inside("block", "stopped", check=True)
        bob = {"KEYCTL_API_KEY": inside("generate", "--user", "bob", check=True).stdout.strip()}
        head = inside("audit", "head").stdout

        tried = inside("unblock", "stopped", "--dry-run", environment=bob)

        assert (tried.exit_code, tried.stdout) == (4, "")
        assert inside("audit", "head").stdout == head
        assert inside("unblock", "stopped", environment=bob).stderr == tried.stderr

    def test_of_several_keys_each_is_told(self, inside: Inside) -> None:
        """Exit 9 with those that could be and those that could not, as the run would end."""
        seen = b'{"team_member_permissions": ["/key/info", "/key/list"]}'
        inside("team", "create", "web", "--policy", "-", input=seen, check=True)
        inside("user", "create", "bob", check=True)
        inside("team", "add-member", "web", "bob", check=True)
        inside("generate", "--team", "web", "--service-account", "--alias", "ci", check=True)
        inside("generate", "--user", "bob", "--alias", "own", check=True)
        key_id = inside("info", "ci", "-o", "json", check=True).json["key_id"]
        bob = {"KEYCTL_API_KEY": inside("generate", "--user", "bob", check=True).stdout.strip()}

        tried = inside("delete", "ci", "own", "--dry-run", "-o", "json", environment=bob)

        assert (tried.exit_code, tried.json) == (
            9,
            {
                "would": "delete",
                "keys": ["own"],
                "failed": [{"given": "ci", "key_id": key_id, "reason": "policy_denied"}],
            },
        )
        assert "1 of 2 keys would fail" in tried.stderr


class TestSpend:
    def test_amounts_are_added_exactly(self, cli: Cli) -> None:
        """Twenty processes that add a nano-dollar each add twenty."""
        made(cli, "--alias", "a", "--max-budget", "5")
        results = cli.race([["spend", "a", "--add", "0.000000001"]] * 20)
        assert {result.exit_code for result in results} == {0}
        spent = cli("spend", "a", "--add", "0.1", "-o", "json", check=True)
        assert '"spend": 0.10000002' in spent.stdout

    def test_a_reset_sets_it_to_zero(self, cli: Cli) -> None:
        """A key over its budget works again."""
        key = made(cli, "--alias", "a", "--max-budget", "1")
        cli("spend", "a", "--add", "1", check=True)
        assert cli.verdict(key["key"])["reason"] == "budget_exceeded"
        cli("spend", "a", "--reset", check=True)
        assert cli.verdict(key["key"])["valid"]

    @pytest.mark.parametrize("rollover", [False, True])
    def test_periods_that_are_over_begin_anew(self, cli: Cli, rollover: bool) -> None:
        """Spend starts at zero, or at the overage; missed periods are skipped; each is on record."""
        cli.configure(f"bcrypt_cost = 4\nbudget_rollover = {str(rollover).lower()}\n")
        cli("team", "create", "web", "--max-budget", "9", "--budget-duration", "daily", check=True)
        made(cli, "--alias", "a", "--max-budget", "1", "--budget-duration", "1d")
        cli("spend", "a", "--add", "1.5", check=True)
        assert cli("budget", "reset", "--due", "-o", "json", check=True).json["results"] == []
        for table in ("keys", "teams"):
            cli.execute(f"UPDATE {table} SET budget_reset_at = '2021-01-01 00:00:00'")

        done = cli("budget", "reset", "--due", "-o", "json", check=True).json["results"]

        by_type = {item["object_type"]: item for item in done}
        assert {name: item["spend"] for name, item in by_type.items()} == {
            "key": 0.5 if rollover else 0,
            "team": 0,
        }
        assert by_type["key"]["previous_spend"] == 1.5
        assert by_type["key"]["budget_reset_at"] > "2026"
        assert cli("budget", "reset", "--due", "-o", "json", check=True).json["results"] == []
        events = cli("audit", "list", "--action", "budget_reset", "-o", "json", check=True).json
        assert len(events["events"]) == 2

    def test_a_correction_counts_in_the_period_that_is_now(self, cli: Cli) -> None:
        """Of a key whose period is over and not reset yet: what is added is not forgotten at the reset."""
        key = made(cli, "--alias", "a", "--max-budget", "1", "--budget-duration", "1d")
        cli("spend", "a", "--add", "0.25", check=True)
        cli.execute("UPDATE keys SET budget_reset_at = '2021-01-01 00:00:00'")

        done = cli("spend", "a", "--add", "1.5", "-o", "json", check=True).json

        assert (done["previous_spend"], done["spend"]) == (0, 1.5)
        assert done["budget_reset_at"] > "2026"
        assert cli.verdict(key["key"])["reason"] == "budget_exceeded"
        assert cli("budget", "reset", "--due", "-o", "json", check=True).json["results"] == []

    def test_a_period_without_a_date_is_due(self, cli: Cli) -> None:
        """What has a duration but was never given a date counts as due."""
        made(cli, "--alias", "a", "--max-budget", "1", "--budget-duration", "1d")
        cli.execute("UPDATE keys SET budget_reset_at = NULL")
        done = cli("budget", "reset", "--due", "-o", "json", check=True).json["results"]
        assert [item["object_type"] for item in done] == ["key"]


class TestWhatAnUpdateSays:
    def test_tells_before_and_after(self, inside: Inside) -> None:
        """A line for each field that changed, and in JSON under `changes`."""
        inside("generate", "--alias", "a", "--max-budget", "20", check=True)

        told = inside("update", "a", "--max-budget", "50", "--rpm-limit", "7", check=True).stdout
        document = inside("update", "a", "--max-budget", "60", "-o", "json", check=True).json

        assert "(a): updated" in told
        assert told.splitlines()[1:] == ["  max_budget $20 → $50", "  rpm_limit none → 7"]
        assert document["changes"] == {"max_budget": {"before": 50, "after": 60}}

    def test_clears_by_the_name_of_an_option(self, inside: Inside) -> None:
        """`--clear max-budget` is `--clear max_budget`."""
        inside("generate", "--alias", "a", "--max-budget", "20", check=True)

        told = inside("update", "a", "--clear", "max-budget", check=True).stdout

        assert "max_budget $20 → none" in told


class TestListEdits:
    def test_add_and_remove_leave_the_rest(self, inside: Inside) -> None:
        """What is not named stays on the list."""
        inside(*("generate", "--alias", "a", "--models", "x,y", "--tag", "lab"), check=True)

        edits = ("--add-model", "z", "--remove-model", "x", "--add-tag", "b", "--remove-tag", "lab")
        view = inside("update", "a", *edits, "-o", "json", check=True).json

        assert (view["models"], view["tags"]) == (["y", "z"], ["b"])

    @pytest.mark.parametrize(
        ("models", "edit", "status"),
        [
            ("x", ("--remove-model", "x"), 2),
            ("x,y", ("--remove-model", "z"), 3),
            ("x", ("--add-model", "y", "--model", "z"), 2),
            (None, ("--add-model", "y"), 2),
        ],
    )
    def test_what_would_turn_a_list_into_its_opposite(
        self, inside: Inside, models: str | None, edit: tuple[str, ...], status: int
    ) -> None:
        """An empty list allows all: nobody gets there by taking one away, or leaves it by adding one."""
        inside("generate", "--alias", "a", *(("--models", models) if models else ()), check=True)

        assert inside("update", "a", *edit).exit_code == status


class TestRevokeOfALiveKey:
    def test_says_that_it_goes_on_and_what_to_type(self, inside: Inside) -> None:
        """Nothing was retiring: the key works on, and stderr says how to stop it."""
        inside("generate", "--alias", "a", check=True)

        result = inside("revoke", "a")

        assert (result.exit_code, "unchanged" in result.stdout) == (0, True)
        assert "goes on working" in result.stderr
        assert "--grace none" in result.stderr


class TestKeysThatALeakedOneMade:
    @pytest.mark.parametrize(
        "stop",
        [
            ("rotate", "leaked", "--grace", "none", "-q"),
            ("rotate", "leaked", "--grace", "none", "-o", "json"),
            ("block", "leaked"),
            ("delete", "leaked", "-q"),
        ],
    )
    def test_are_told_as_long_as_they_work(self, cli: Cli, stop: tuple[str, ...]) -> None:
        """On stderr, also with -q, when the key that made them is stopped; those that work no more are not."""
        cli("user", "create", "bob", check=True)
        leaked = {"KEYCTL_API_KEY": cli.key("--user", "bob", "--alias", "leaked")}
        minted = cli("generate", "--alias", "minted", environment=leaked, check=True).stdout.strip()
        cli("generate", "--alias", "ended", environment=leaked, check=True)
        assert "still work" not in cli("delete", "ended", "-q", check=True).stderr
        key_id = cli("info", "leaked", "-o", "json", check=True).json["key_id"]

        told = cli(*stop, check=True)

        assert cli.verdict(minted)["valid"]
        assert told.stderr.splitlines()[-1] == (
            "warning: 1 key was made with this key and still works:"
            f" keyctl list --issued-by {key_id}"
        )
        named = cli("list", "--issued-by", key_id, "-o", "json", check=True).json["keys"]
        assert [key["key_alias"] for key in named] == ["minted"]

    def test_are_told_when_a_grace_period_is_ended(self, cli: Cli) -> None:
        """While the grace lasts the old string still works, and nothing is said; revoke ends it."""
        cli("user", "create", "bob", check=True)
        leaked = {"KEYCTL_API_KEY": cli.key("--user", "bob", "--alias", "leaked")}
        for alias in ("one", "two"):
            cli("generate", "--alias", alias, environment=leaked, check=True)
        rotated = cli("rotate", "leaked", "--grace", "1h", check=True)
        revoked = cli("revoke", "leaked", check=True)
        assert "still work" not in rotated.stderr
        assert "2 keys were made with this key and still work: " in revoked.stderr

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_database_that_is_lost_after_the_change_fails_nothing(
        self, cli: Cli, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The key is ended: a warning says that the others are not known, and how to ask for them."""
        lost = cli.home / "lost.db"
        lost.write_text("no database")
        common = Common(None, f"sqlite:///{lost}", str(cli.config), None, None)
        console = Console.of([], {}, closed=frozenset())

        with Session(common, console, ("auto",)) as session:
            warn_of_issued(session, ["key_1"])

        said = capfd.readouterr().err
        assert said.startswith(
            "warning: it is not known whether keys that were made with it still work: "
        )
        assert said.endswith("; keyctl list --issued-by key_1\n")

    def test_of_several_keys_each_is_named(self, cli: Cli) -> None:
        """Those that made none are not."""
        cli("user", "create", "bob", check=True)
        for alias in ("a", "b"):
            maker = {"KEYCTL_API_KEY": cli.key("--user", "bob", "--alias", alias)}
            cli("generate", "--alias", f"{alias}1", environment=maker, check=True)
        cli.key("--alias", "c")
        told = cli("delete", "a", "b", "c", "a1", "--yes", check=True)
        key_id = cli("audit", "list", "--key", "b", "-o", "json", check=True).json["events"][0]
        assert told.stderr == (
            f"warning: 1 key was made with {key_id['object_id']} and still works:"
            f" keyctl list --issued-by {key_id['object_id']}\n"
        )

    @pytest.mark.parametrize(
        ("described", "more"),
        [("keys: {}", ("--prune",)), ("keys: {leaked: {blocked: true}}", ("-o", "json"))],
    )
    def test_are_told_when_a_fleet_ends_or_blocks_it(
        self, cli: Cli, described: str, more: tuple[str, ...]
    ) -> None:
        """After all that apply says itself."""
        cli.configure(
            f'bcrypt_cost = 4\n[sinks.file]\ntype = "file"\npath = "{cli.home}/{{alias}}.key"\n'
        )
        cli("user", "create", "bob", check=True)
        fleet = "version: 1\nkeys: {leaked: {user_id: bob, deliver: file, administers: true}}\n"
        cli("apply", "-", "--yes", input=fleet, check=True)
        leaked = {"KEYCTL_API_KEY": (cli.home / "leaked.key").read_text().strip()}
        cli("generate", "--alias", "minted", environment=leaked, check=True)
        key_id = cli("info", "leaked", "-o", "json", check=True).json["key_id"]

        told = cli("apply", "-", "--yes", *more, input=f"version: 1\n{described}\n", check=True)

        assert told.stderr.splitlines()[-1] == (
            "warning: 1 key was made with this key and still works:"
            f" keyctl list --issued-by {key_id}"
        )


class TestDeletingOwners:
    def test_a_dry_run_says_whether_it_could_be(self, inside: Inside) -> None:
        """Exit 5 while live keys are there, else what would be done; nothing is written."""
        inside("team", "create", "web", check=True)
        inside("generate", "--alias", "a", "--team", "web", check=True)

        assert inside("team", "delete", "web", "--dry-run").exit_code == 5
        inside("delete", "a", check=True)
        assert inside("team", "delete", "web", "--dry-run").stdout == "would delete team web\n"
        assert inside("team", "info", "web").exit_code == 0


class TestDenials:
    def test_name_the_override_to_who_may_use_it(self, inside: Inside) -> None:
        """An admin reads what to add; a rule that nobody may step over is not offered."""
        inside("team", "create", "web", "--model", "x", check=True)

        result = inside("generate", "--team", "web", "--model", "y", "-o", "json")

        assert result.exit_code == 4
        assert "--override team.models --reason TEXT" in result.error["hint"]


class TestAnInterruptedBatch:
    def test_says_how_far_it_came_and_how_to_go_on(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C in the second of three: one is deleted, exit 130."""
        from keyctl.services.keys import end

        inside("generate", "--count", "3", "--alias", "ci-{n}", check=True)
        really, calls = end.EndingService._end_batch, []

        def end_batch(self: end.EndingService, given: Any, *others: Any) -> Any:
            calls.append(given)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return really(self, given, *others)

        monkeypatch.setattr(end, "BATCH", 1)
        monkeypatch.setattr(end.EndingService, "_end_batch", end_batch)
        result = inside("delete", "ci-1", "ci-2", "ci-3", "--yes")

        assert result.exit_code == 130
        assert "1 of 3 done; run it again to delete the rest" in result.stderr
        assert len(inside("list", "-o", "json").json["keys"]) == 2


class TestChosenAsListChooses:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--alias", "a*"], ["a1", "a2"]),
            (["--tag", "old"], ["a1"]),
            (["--model", "gpt-4o"], ["a2"]),
            (["--search", "quux-"], ["quux-b"]),
            (["--created-after", "1d", "--alias", "*2"], ["a2"]),
            (["--over-budget"], ["quux-b"]),
        ],
    )
    def test_each_filter(self, cli: Cli, arguments: list[str], expected: list[str]) -> None:
        """`block`, `delete` and `rotate` act on what `list` shows with the same options, and `update` too."""
        cli.key("--alias", "a1", "--tag", "old")
        cli.key("--alias", "a2", "--model", "gpt-4o")
        cli.key("--alias", "quux-b", "--max-budget", "0")
        listed = cli("list", *arguments, "-o", "json", check=True).json["keys"]
        assert sorted(key["key_alias"] for key in listed) == expected
        ids = sorted(key["key_id"] for key in listed)

        for verb in ("block", "delete"):
            done = cli(verb, *arguments, "--dry-run", "-o", "json", check=True).json
            assert sorted(done["keys"]) == ids
        own = [
            word.replace("--", "--with-") if word in ("--alias", "--tag", "--model") else word
            for word in arguments
        ]
        count = ("--expect-count", str(len(ids)))
        changed = cli("update", *own, "--rpm-limit", "7", "--yes", *count, "-o", "json", check=True)
        assert sorted(item["key_id"] for item in changed.json["results"]) == ids

    def test_a_filter_beside_a_key(self, cli: Cli) -> None:
        """Either names keys or chooses them; a wrong word chooses nothing and is an error."""
        cli.key("--alias", "a1")

        assert cli("update", "a1", "--with-tag", "x", "--rpm-limit", "1").exit_code == 2
        assert cli("block", "a1", "--tag", "x").exit_code == 2
        assert cli("delete", "--tag", "x", "--yes").exit_code == 3
