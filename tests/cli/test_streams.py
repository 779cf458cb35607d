"""What goes where: the payload on stdout, talk on stderr, a panel on a real terminal."""

import json
from pathlib import Path

import pexpect
import pytest
from harness import Cli
from terminal import on_terminal, spawn, uncoloured

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

HOSTILE = {
    "FORCE_COLOR": "1",
    "GITHUB_ACTIONS": "true",
    "COLUMNS": "20",
    "LANG": "C",
    "LC_ALL": "C",
    "TERM": "dumb",
}


class TestJson:
    @pytest.mark.parametrize("extra", [HOSTILE, {**HOSTILE, "NO_COLOR": "1", "FORCE_COLOR": ""}])
    def test_stays_json_in_any_environment(self, cli: Cli, extra: dict[str, str]) -> None:
        """No colour, width or locale gets into a JSON document, on stdout or stderr."""
        made = cli("generate", "--alias", "a", "-o", "json", environment=extra, check=True)
        listed = cli("list", "-o", "json", environment=extra, check=True)
        refused = cli("generate", "--alias", "a", "-o", "json", environment=extra)

        assert made.json["key_alias"] == "a"
        assert [key["key_alias"] for key in listed.json["keys"]] == ["a"]
        assert (refused.exit_code, json.loads(refused.stderr)["error"]["code"]) == (
            5,
            "alias_taken",
        )

    def test_is_one_document_with_nothing_on_stderr(self, cli: Cli) -> None:
        """A script that reads stdout and minds stderr has nothing to mind."""
        made = cli("generate", "-o", "json", check=True)

        assert (made.stderr, made.json["replayed"]) == ("", False)


class TestInAPipe:
    def test_talk_is_on_stderr(self, cli: Cli) -> None:
        """stdout is the bare key and a newline; the summary is on stderr."""
        made = cli("generate", "--alias", "a", check=True)

        assert made.stdout.startswith("sk-")
        assert (made.stdout.count("\n"), len(made.stdout)) == (1, 66)
        assert made.stderr.startswith("key key_")

    def test_an_env_line_can_be_read_by_a_shell(self, cli: Cli) -> None:
        """-o env gives NAME=key under the name that was asked for."""
        made = cli("generate", "-o", "env", "--env-var", "GATEWAY_KEY", check=True)

        name, _, key = made.stdout.strip().partition("=")
        assert (name, cli.verdict(key)["valid"]) == ("GATEWAY_KEY", True)


class TestClosedDescriptors:
    @pytest.mark.parametrize(
        ("redirect", "status"), [("<&-", 0), ("2>&-", 0), (">&-", 8), (">&- 2>&- <&-", 8)]
    )
    def test_are_filled_before_anything_is_opened(
        self, cli: Cli, redirect: str, status: int
    ) -> None:
        """No file or socket gets the number of a closed stream; a closed stdout is no success."""
        done = cli.shell(f"exec {redirect}; exec $KEYCTL generate --alias a")

        assert done.exit_code == status, done.stderr
        listed = cli("list", "-o", "json")
        found = [] if listed.exit_code == 6 else listed.json["keys"]
        assert len(found) == (1 if status == 0 else 0)

    @pytest.mark.parametrize("nowhere", ["2>/dev/full", "2> >(true)"])
    def test_a_stderr_that_takes_nothing_changes_no_status(self, cli: Cli, nowhere: str) -> None:
        """A key that was made is a success, and what is refused is refused for what it is."""
        for arguments, status in (
            ("generate --alias a", 0),
            ("list --team nobody", 3),
            ("generate --alias a", 5),
            ("block a nothing --yes", 9),
        ):
            done = cli.shell(f"exec bash -c 'sleep 0.1; exec $KEYCTL {arguments}' {nowhere}")
            assert (arguments, done.exit_code) == (arguments, status)

    def test_an_answer_in_json_needs_an_open_stdout(self, cli: Cli, tmp_path: Path) -> None:
        """With --out-file and -o json a closed stdout is found out before anything is written."""
        done = cli.shell(f"$KEYCTL generate --out-file '{tmp_path}/k' -o json >&-")

        assert (done.exit_code, (tmp_path / "k").exists()) == (8, False)


class TestOnATerminal:
    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_the_panel_shows_the_key_once_on_one_line(self, cli: Cli, columns: int) -> None:
        """Whatever the width, the key is neither cut nor wrapped, and it says that it is shown once."""
        output = uncoloured(
            on_terminal(cli, "generate", "--alias", "a", "--max-budget", "50", columns=columns)
        )

        keys = [line.strip() for line in output.splitlines() if "sk-" in line]
        assert len(keys) == 1
        assert cli.verdict(keys[0])["valid"]
        assert "Shown once" in output
        assert "$50" in output

    def test_a_key_is_asked_for_without_an_echo(self, cli: Cli) -> None:
        """verify asks on a terminal, and what is typed does not appear."""
        key = cli.key()
        child = spawn(cli, "verify", columns=80)
        child.expect("key: ")
        child.sendline(key)
        child.expect(pexpect.EOF)
        child.close()

        assert key not in (child.before or "")
        assert child.exitstatus == 0

    def test_an_interrupt_is_130(self, cli: Cli) -> None:
        """Ctrl-C at the prompt is exit 130."""
        child = spawn(cli, "verify", columns=80)
        child.expect("key: ")
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()

        assert child.exitstatus == 130

    def test_several_keys_are_asked_about(self, cli: Cli) -> None:
        """delete of many asks on a terminal, and no is no."""
        cli("generate", "--count", "2", "--alias", "ci-{n}", check=True)
        child = spawn(cli, "delete", "ci-1", "ci-2", columns=80)
        child.expect("delete 2 keys")
        child.sendline("n")
        child.expect(pexpect.EOF)
        child.close()

        assert child.exitstatus == 130
        assert len(cli("list", "-o", "json", check=True).json["keys"]) == 2


@pytest.mark.parametrize("command", ["export", "apply fleet.yaml -o json"])
def test_a_document_that_nobody_takes_is_no_success(cli: Cli, command: str) -> None:
    """Before anything is made a closed stdout is found out, where it should take the whole answer."""
    (cli.home / "fleet.yaml").write_text("teams: {web: {}}\n")

    done = cli.shell(f"$KEYCTL {command} >&-")

    assert done.exit_code == 8
    assert "stdout is closed" in done.stderr
    assert cli("team", "list", "-o", "json", check=True).json["teams"] == []


class TestThePanelOfARotation:
    def test_says_what_info_says_and_until_when_the_old_secret_works(self, cli: Cli) -> None:
        """Its budget and end are the key's own, and the old secret's end is named."""
        cli(*("generate", "--alias", "a", "--max-budget", "20", "--duration", "30d"), check=True)
        key = cli("info", "a", "-o", "json", check=True).json

        shown = uncoloured(on_terminal(cli, "rotate", "a", columns=80))

        old = cli("info", "a", "-o", "json", check=True).json["secrets"][1]
        until = old["not_after"].replace("T", " ")[:19]
        assert "$20" in shown
        assert key["expires"][:10] in shown
        assert "unlimited" not in shown
        assert f"sk-{old['id']}… works until {until} UTC" in " ".join(shown.split())

    def test_says_that_a_leaked_key_works_no_more(self, cli: Cli) -> None:
        """Without a grace period the panel, the summary and the answer say that the old secret has ended."""
        cli("generate", "--alias", "a", check=True)
        first = cli("info", "a", "-o", "json", check=True).json["secrets"][0]["id"]

        shown = uncoloured(on_terminal(cli, "rotate", "a", "--grace", "none", columns=80))
        told = cli("rotate", "a", "--grace", "none", check=True).stderr
        answer = cli("rotate", "a", "--grace", "none", "-o", "json", check=True).json

        assert f"sk-{first}… works no more" in " ".join(shown.split())
        assert "… works no more\n" in told
        assert answer["old_secret"]["state"] == "revoked"

    def test_names_the_file_that_took_the_key(self, cli: Cli, tmp_path: Path) -> None:
        """The path is in the panel, the key is not."""
        cli("generate", "--alias", "a", check=True)

        shown = uncoloured(
            on_terminal(cli, "rotate", "a", "--out-file", str(tmp_path / "k"), columns=160)
        )

        assert f"delivered to  {tmp_path / 'k'}" in shown
        assert (tmp_path / "k").read_text().strip() not in shown


class TestACopyThatIsDone:
    def test_opens_a_second_copy_of_the_keys_only_after_a_yes(
        self, cli: Cli, tmp_path: Path
    ) -> None:
        """A person at a terminal is asked before --abort; no leaves the old database closed, yes opens it."""
        cli.key("--alias", "a")
        target = f"sqlite:///{tmp_path / 'moved.db'}"
        copied = cli("db", "copy", "--target-url", target, check=True)

        for answer, status, state in (("n", 130, "moved"), ("y", 0, "current")):
            child = spawn(cli, "db", "copy", "--abort", columns=100)
            child.expect("Open this one again")
            child.sendline(answer)
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == status, child.before
            assert cli("db", "status", "-o", "json").json["state"] == state

        assert "now name the new database" in copied.stderr
