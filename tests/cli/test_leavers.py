"""What becomes of keys whose user is deleted: said before, said after, and never revived unasked."""

import pytest
from harness import Cli
from terminal import shown_to_end, spawn

pytestmark = pytest.mark.in_process

ZOE = "zoe@example.com"


@pytest.fixture(name="left")
def _left(cli: Cli) -> tuple[str, str]:
    """A key that a deleted user left as it was: its id and its key string."""
    cli("user", "create", ZOE, check=True)
    key = cli.key("--user", ZOE, "--alias", "zoes")
    key_id = cli("info", "zoes", "-o", "json", check=True).json["key_id"]
    cli("user", "delete", ZOE, "--keys", "keep", "--yes", check=True)
    return key_id, key


class TestKeptKeys:
    def test_the_answer_says_that_they_stop_and_what_helps(self, cli: Cli) -> None:
        """For people as a warning, in JSON as `warnings` beside `keys`."""
        for user in ("yan", ZOE):
            cli("user", "create", user, check=True)
            cli.key("--user", user, "--alias", f"of-{user}")
        key_id = cli("info", f"of-{ZOE}", "-o", "json", check=True).json["key_id"]
        said = (
            f"{key_id} (of-{ZOE}) works no more until it gets another owner:"
            " keyctl update KEY --user NEW"
        )

        told = cli("user", "delete", "yan", "--keys", "keep", check=True)
        answer = cli("user", "delete", ZOE, "--keys", "keep", "-o", "json", check=True).json

        assert "(of-yan) works no more until it gets another owner" in told.stderr
        assert answer["warnings"] == [said]
        assert answer["keys"] == [
            {"key_id": key_id, "key_alias": f"of-{ZOE}", "result": "kept"},
        ]

    @pytest.mark.parametrize(
        "command", [("update", "zoes", "--max-budget", "5"), ("rotate", "zoes")]
    )
    def test_a_command_on_one_says_what_helps(
        self, cli: Cli, left: tuple[str, str], command: tuple[str, ...]
    ) -> None:
        """Not to make the user again."""
        key_id, _ = left

        done = cli(*command)

        assert (done.exit_code, done.stdout, done.stderr.splitlines()) == (
            3,
            "",
            [
                f"error: key {key_id} does not work: user {ZOE!r}, its owner, was deleted",
                (
                    f"hint: keyctl update {key_id} --user NEW gives it another owner,"
                    f" keyctl delete {key_id} ends it"
                ),
            ],
        )

    def test_info_says_what_helps(self, cli: Cli, left: tuple[str, str]) -> None:
        """On the page, and in JSON beside the reason."""
        key_id, _ = left
        remedy = f"its user was deleted; keyctl update {key_id} --user NEW"

        page = cli("info", key_id, check=True).stdout
        effect = cli("info", key_id, "-o", "json", check=True).json["effective"]

        assert f"works: no: user_blocked\nremedy: {remedy}\n" in page
        assert (effect["works"], effect["reason"], effect["remedy"]) == (
            False,
            "user_blocked",
            remedy,
        )

    def test_its_secrets_can_be_ended(self, cli: Cli) -> None:
        """A leaked old secret dies, whoever the key was of."""
        cli("user", "create", ZOE, check=True)
        cli.key("--user", ZOE, "--alias", "zoes")
        cli("rotate", "zoes", check=True)
        cli("user", "delete", ZOE, "--keys", "keep", check=True)

        done = cli("revoke", "zoes", "-o", "json", check=True)

        assert [item["result"] for item in done.json["results"]] == ["revoked"]

    def test_another_owner_brings_one_back(self, cli: Cli, left: tuple[str, str]) -> None:
        """The same key string is valid again."""
        key_id, key = left
        before = cli.verdict(key)
        cli("user", "create", "yan", check=True)

        cli("update", key_id, "--user", "yan", check=True)

        assert (before["valid"], before["reason"]) == (False, "user_blocked")
        assert cli.verdict(key)["valid"] is True


class TestTheSameIdAgain:
    def test_is_refused_while_a_key_would_work_again(self, cli: Cli, left: tuple[str, str]) -> None:
        """Who left still knows the key string."""
        key_id, key = left

        done = cli("user", "create", ZOE)

        assert (done.exit_code, done.stderr.splitlines()) == (
            5,
            [
                (
                    f"error: an earlier user {ZOE!r} left 1 live key,"
                    f" which would work again: {key_id} (zoes)"
                ),
                (
                    "hint: first keyctl block KEY (unblock lets it in again), keyctl delete KEY,"
                    " or keyctl update KEY --user NEW"
                ),
            ],
        )
        assert cli.verdict(key)["valid"] is False

    def test_is_refused_by_plan_and_apply(self, cli: Cli, left: tuple[str, str]) -> None:
        """At plan time, with the place in the file."""
        key_id, key = left
        fleet = f"version: 1\nusers: {{{ZOE}: {{}}}}\n"

        planned, applied = (
            cli(verb, "-", *more, input=fleet)
            for verb, more in (("plan", ()), ("apply", ("--yes",)))
        )

        assert (planned.exit_code, applied.exit_code) == (5, 5)
        assert f"left 1 live key, which would work again: {key_id} (zoes)" in planned.stderr
        assert cli.verdict(key)["valid"] is False

    @pytest.mark.parametrize(
        ("settle", "valid"),
        [
            (("block", "zoes"), False),
            (("delete", "zoes", "--yes"), False),
            (("update", "zoes", "--user", "yan"), True),
        ],
    )
    def test_is_free_once_each_key_is_settled(
        self, cli: Cli, left: tuple[str, str], settle: tuple[str, ...], valid: bool
    ) -> None:
        """By each of the commands that the refusal names."""
        cli("user", "create", "yan", check=True)
        cli(*settle, check=True)

        cli("user", "create", ZOE, check=True)

        assert cli.verdict(left[1])["valid"] is valid

    def test_a_team_made_again_has_none_of_the_old_members(self, cli: Cli) -> None:
        """Its keys are gone before: a team with live keys is not deleted."""
        for command in (
            ("user", "create", ZOE),
            ("team", "create", "web"),
            ("team", "add-member", "web", ZOE, "--role", "admin"),
        ):
            cli(*command, check=True)
        cli.key("--team", "web", "--alias", "shop")
        refused = cli("team", "delete", "web")
        cli("delete", "shop", check=True)
        cli("team", "delete", "web", check=True)

        cli("team", "create", "web", check=True)

        assert refused.exit_code == 5
        team = cli("team", "info", "web", "-o", "json", check=True).json
        assert team["members_with_roles"] == []


class TestKeysMadeWithTheLeftOnes:
    @pytest.fixture(name="minted", autouse=True)
    def _minted(self, cli: Cli) -> str:
        """A key that somebody made for another with a key of their own, in a team."""
        cli("user", "create", "yan", check=True)
        cli("user", "create", ZOE, "--role", "proxy_admin", check=True)
        cli("team", "create", "web", check=True)
        cli("team", "add-member", "web", ZOE, "--role", "admin", check=True)
        own = {"KEYCTL_API_KEY": cli.key("--user", ZOE, "--team", "web", "--alias", "zoes")}
        made = cli("generate", "--user", "yan", "--alias", "minted", environment=own, check=True)
        return made.stdout.strip()

    @pytest.mark.parametrize(
        "leaving",
        [
            ("user", "delete", ZOE, "--yes", "--keys", "keep"),
            ("user", "delete", ZOE, "--yes", "--keys", "block", "-o", "json"),
            ("user", "update", ZOE, "--role", "internal_user", "--keys", "delete"),
            ("team", "add-member", "web", ZOE, "--keys", "block"),
            ("team", "update-member", "web", ZOE, "--role", "user", "--keys", "block"),
            ("team", "remove-member", "web", ZOE, "--keys", "delete"),
        ],
    )
    def test_are_told_when_these_end(self, cli: Cli, minted: str, leaving: tuple[str, ...]) -> None:
        """They go on working for whoever has them."""
        key_id = cli("info", "zoes", "-o", "json", check=True).json["key_id"]

        done = cli(*leaving, check=True)

        assert done.stderr.splitlines()[-1] == (
            "warning: 1 key was made with this key and still works:"
            f" keyctl list --issued-by {key_id}"
        )
        assert cli.verdict(minted)["valid"]

    def test_are_not_told_of_keys_that_are_kept(self, cli: Cli) -> None:
        """Who only leaves a team goes on with the key, by intent."""
        done = cli("team", "remove-member", "web", ZOE, "--keys", "keep", check=True)

        assert "still work" not in done.stderr


class TestBefore:
    @pytest.fixture(autouse=True)
    def _two_keys(self, cli: Cli) -> None:
        cli("user", "create", ZOE, check=True)
        for alias in ("one", "two"):
            cli.key("--user", ZOE, "--alias", alias)

    @pytest.mark.parametrize("what", ["block", "delete", "keep"])
    def test_a_dry_run_names_the_keys(self, cli: Cli, what: str) -> None:
        """In JSON, what would become of each of them."""
        shown = cli("user", "delete", ZOE, "--keys", what, "--dry-run", check=True)
        answer = cli("user", "delete", ZOE, "--keys", what, "--dry-run", "-o", "json", check=True)

        assert shown.stdout in {
            f"would delete user {ZOE} and {what} 2 keys ({names})\n"
            for names in ("one, two", "two, one")
        }
        assert (answer.json["user_id"], answer.json["would"]) == (ZOE, "delete")
        assert {(key["key_alias"], key["would"]) for key in answer.json["keys"]} == {
            ("one", what),
            ("two", what),
        }

    def test_a_dry_run_refuses_what_the_run_would(self, cli: Cli) -> None:
        """With the same words."""
        refused, tried = (
            cli("user", "delete", ZOE, "--yes", *more) for more in ((), ("--dry-run",))
        )

        assert (tried.exit_code, tried.stderr) == (5, refused.stderr)

    def test_a_terminal_is_asked_with_their_names(self, cli: Cli) -> None:
        """Who says no hears that nothing was changed."""
        child = spawn(cli, "user", "delete", ZOE, "--keys", "delete", columns=120)
        child.expect(
            r"delete user zoe@example\.com and delete 2 keys \((one, two|two, one)\)\? \[y/N\]"
        )
        child.sendline("n")
        child.expect("nothing was changed")
        _, status = shown_to_end(child)

        assert status == 130
        assert cli("user", "info", ZOE).exit_code == 0
