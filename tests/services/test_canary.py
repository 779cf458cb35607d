"""The plaintext is in exactly one place, for every command and every failure we can inject."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import STEPPER, Cli
from stepper import STEPS
from stored import everything_stored

SUPPLIED = "sk-Canary_supplied_by_a_person-0123456789"


def assert_only_in(place: str, key: str, database_url: str, *others: str) -> None:
    """The key is once in *place*, and neither it nor its secret part anywhere else."""
    secret = key.partition("_")[2] or key
    assert place.count(key) == 1
    for other in (*others, everything_stored(database_url)):
        assert secret not in other


FORMS = {
    "key": ["-o", "key"],
    "json": ["-o", "json"],
    "env": ["-o", "env"],
    "table": ["-o", "table"],
    "auto": [],
}


class TestSuccess:
    @pytest.mark.parametrize("form", FORMS)
    def test_each_output_shows_it_once(self, cli: Cli, database_url: str, form: str) -> None:
        """stdout holds the key once; stderr and the database do not."""
        source = cli.home / "source"
        source.write_text(SUPPLIED)

        made = cli("generate", "--alias", "a", "--key-file", str(source), *FORMS[form], check=True)

        assert_only_in(made.stdout, SUPPLIED, database_url, made.stderr)

    def test_a_file_takes_it_from_stdout(self, cli: Cli, database_url: str, tmp_path: Path) -> None:
        """With --out-file the key is in the file and not in the JSON answer."""
        out = tmp_path / "key"

        made = cli("generate", "--alias", "a", "--out-file", str(out), "-o", "json", check=True)

        key = out.read_text().strip()
        assert_only_in(out.read_text(), key, database_url, made.stdout, made.stderr)

    def test_no_other_command_says_it(self, cli: Cli, database_url: str) -> None:
        """Whatever is asked afterwards, by stdin too, the key is not repeated."""
        key = cli.key("--alias", "a")
        said = []
        for arguments in (
            ["verify", "-", "-o", "json"],
            ["info", "-", "-o", "json"],
            ["block", "-", "-o", "json"],
            ["block", "-", "--dry-run", "-o", "json"],
            ["unblock", "-"],
            ["delete", "-", "--dry-run"],
            ["revoke", "-", "-o", "json"],
            ["spend", "-", "--add", "1"],
            ["update", "-", "--max-budget", "5"],
            ["generate", "--alias", "b", "--key-stdin", "-o", "json"],
        ):
            result = cli(*arguments, input=key)
            said.append(result.stdout + result.stderr)
        for arguments in (["list", "-o", "json"], ["audit", "list", "-o", "json"], ["db", "check"]):
            result = cli(*arguments, check=True)
            said.append(result.stdout + result.stderr)

        assert_only_in(key, key, database_url, *said)

    def test_a_rotation_shows_the_new_one_once(self, cli: Cli, database_url: str) -> None:
        """rotate prints the new key and never the old one."""
        old = cli.key("--alias", "a")

        made = cli("rotate", "a", "-o", "json", check=True)

        assert_only_in(made.stdout, made.json["key"], database_url, made.stderr)
        assert_only_in(old, old, database_url, made.stdout, made.stderr)


DRIVER = """
import sys
from keyctl.services.delivery import confirm, protocol
from keyctl.services.issue import new_key, stage
from sqlalchemy import text
confirm.RETRY_SECONDS = 0.5

def broken(*_args, **_options):
    {failure}

{target} = broken
from keyctl.entry import main
sys.argv[1:] = {arguments!r}
main()
"""

FAILURES = {
    "bug_in_confirm": ("new_key.NewKeyRows.confirm", "raise RuntimeError('bug')", 1),
    "database_lost": (
        "new_key.NewKeyRows.confirm",
        "from keyctl.errors import DatabaseLostError; raise DatabaseLostError('gone')",
        6,
    ),
    "bad_self_check": (
        "protocol.check_written",
        "from keyctl.errors import CorruptedError; raise CorruptedError('differs')",
        11,
    ),
    "bug_in_stage": ("stage.KeyStaging.write", "raise RuntimeError(str(_args))", 1),
}


class TestFailure:
    @pytest.mark.parametrize("name", FAILURES)
    def test_an_injected_failure_tells_nothing(
        self, cli: Cli, database_url: str, name: str
    ) -> None:
        """A bug, a lost database or a failed self-check leaves the key on stdout at the most."""
        source = cli.home / "source"
        source.write_text(SUPPLIED)
        target, failure, status = FAILURES[name]
        program = DRIVER.format(
            failure=failure,
            target=target,
            arguments=["generate", "--alias", "a", "--key-file", str(source)],
        )

        done = subprocess.run(
            [sys.executable, "-c", program],
            env=cli.environment,
            cwd=cli.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )

        assert done.returncode == status, done.stderr
        assert done.stdout.decode().count(SUPPLIED) <= 1
        assert_only_in(SUPPLIED, SUPPLIED, database_url, done.stderr.decode())

    @pytest.mark.parametrize("step", STEPS)
    def test_a_kill_leaves_it_nowhere_else(
        self, cli: Cli, database_url: str, step: str, tmp_path: Path
    ) -> None:
        """After SIGKILL at any step the key is in the file or nowhere: no half file lies around."""
        source, out = cli.home / "source", tmp_path / "out" / "key"
        source.write_text(SUPPLIED)
        out.parent.mkdir()
        subprocess.run(
            [
                *(*STEPPER, step, "--", "generate"),
                *("--key-file", str(source), "--out-file", str(out)),
            ],
            env=cli.environment,
            cwd=cli.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )

        assert os.listdir(out.parent) in ([], ["key"])
        assert SUPPLIED not in everything_stored(database_url)

    @pytest.mark.parametrize("target", ["closed", "full", "gone"])
    def test_a_stdout_that_fails_gets_nothing_and_nobody_else_does(
        self, cli: Cli, database_url: str, target: str
    ) -> None:
        """Closed, full or without a reader: exit 8, and the key is nowhere at all."""
        source = cli.home / "source"
        source.write_text(SUPPLIED)
        redirect = {"closed": ">&-", "full": ">/dev/full", "gone": "| true"}[target]
        done = cli.shell(
            f"set -o pipefail; $KEYCTL generate --alias a --key-file '{source}' {redirect}"
        )
        again = cli("generate", "--alias", "a", "--key-file", str(source))

        # A pipe may take the bytes before its reader goes: then they count as delivered.
        if target != "gone" or done.exit_code:
            assert done.exit_code == 8, done.stderr
            assert (again.exit_code, again.stdout.strip()) == (0, SUPPLIED), again.stderr
        assert_only_in(SUPPLIED, SUPPLIED, database_url, done.stderr, again.stderr)


ARGUMENTS = (
    ["info", SUPPLIED],
    ["generate", "--alias", SUPPLIED],
    ["generate", f"--alias={SUPPLIED}"],
    ["generate", "--metadata", f"k={SUPPLIED}"],
    ["generate", f"--{SUPPLIED}"],
    ["verify", SUPPLIED],
    [SUPPLIED],
    ["rotate", SUPPLIED, "--grace", "none"],
    ["delete", "--yes", SUPPLIED],
)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
class TestArguments:
    @pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda found: " ".join(found)[:20])
    @pytest.mark.parametrize("output", [[], ["-o", "json"]], ids=["text", "json"])
    def test_a_key_string_is_refused_and_not_repeated(
        self, cli: Cli, arguments: list[str], output: list[str]
    ) -> None:
        """Arguments are visible to other users: exit 2, whatever the position, without repeating it."""
        result = cli(*arguments, *output)

        assert (result.exit_code, result.stdout) == (2, "")
        assert "Canary" not in result.stderr
        assert not output or result.error["code"] == "secret_in_argument"

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://keyctl:correct-horse@127.0.0.1:1/keys",
            "postgresql://keyctl@127.0.0.1:1/keys?password=correct-horse",
        ],
    )
    def test_a_password_is_refused_and_not_repeated(self, cli: Cli, url: str) -> None:
        """A database URL with a password, wherever in it, belongs into the environment or a file."""
        result = cli("list", "--database-url", url)

        assert (result.exit_code, result.stdout) == (2, "")
        assert "correct-horse" not in result.stderr
