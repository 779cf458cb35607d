"""Sinks that fail, hang or lose half, and a database that goes away: what is active is known."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from databases import administered
from harness import STEPPER, Cli
from processes import group
from sqlalchemy import make_url

PYTHON_SINK = """
import os, sys, time
from pathlib import Path

FOLDER = Path(__file__).parent
print("imported")
os.system("echo imported")

def take(key, answer):
    (FOLDER / "taken").write_text(key + " " + answer["key_id"])
    (FOLDER / "environment").write_text(" ".join(os.environ))

def fail(key, answer):
    raise ValueError(key)

def leave(key, answer):
    sys.exit(3)

def leave_well(key, answer):
    sys.exit()

def leave_at_once(key, answer):
    os._exit(0)

def hang(key, answer):
    (FOLDER / "pid").write_text(str(os.getpid()))
    time.sleep(60)
"""
CONFIG = """
bcrypt_cost = 4
[sinks.good]
type = "file"
path = "{home}/good"
[sinks.no_folder]
type = "file"
path = "{home}/missing/{{key_id}}"
[sinks.full]
type = "file"
path = "{home}/full/{{key_id}}"
[sinks.error]
type = "command"
argv = ["sh", "-c", "exit 3"]
[sinks.half]
type = "command"
argv = ["sh", "-c", "head -c 20 > {home}/half; exit 1"]
[sinks.hang]
type = "command"
argv = ["sh", "-c", "echo $$ > {home}/pid; cat > {home}/hung; sleep 60"]
timeout = "1s"
[sinks.no_program]
type = "command"
argv = ["no-such-program"]
[sinks.not_a_program]
type = "command"
argv = ["{home}/not_a_program"]
[sinks.python]
type = "python"
function = "acme_sink:take"
[sinks.python_error]
type = "python"
function = "acme_sink:fail"
[sinks.python_exit]
type = "python"
function = "acme_sink:leave"
[sinks.python_exit_0]
type = "python"
function = "acme_sink:leave_well"
[sinks.python_exit_at_once]
type = "python"
function = "acme_sink:leave_at_once"
[sinks.python_hang]
type = "python"
function = "acme_sink:hang"
timeout = "1s"
[sinks.python_missing]
type = "python"
function = "acme_sink:nothing"
"""
CHECKED = ("no_folder", "no_program", "python_missing")
NOT_TAKEN = ("full", "not_a_program")
UNKNOWN = (
    *("error", "half", "hang", "python_error", "python_hang"),
    *("python_exit", "python_exit_0", "python_exit_at_once"),
)


@pytest.fixture(name="sinks")
def _sinks(cli: Cli) -> Cli:
    """The program with one sink of each fault."""
    cli.configure(CONFIG.format(home=cli.home))
    (cli.home / "acme_sink.py").write_text(PYTHON_SINK)
    program = cli.home / "not_a_program"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o700)
    cli.environment["PYTHONPATH"] = str(cli.home)
    return cli


@pytest.fixture(name="full")
def _full(sinks: Cli) -> Any:
    """A folder on a file system without room."""
    folder = sinks.home / "full"
    folder.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=16", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
        timeout=10,
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount the small file system that this needs")
    (folder / "filler").write_bytes(b"x" * 4096)
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=60)


def key_of(cli: Cli) -> Any:
    """Make a key that a person holds."""
    return cli("generate", "--alias", "worker", "-o", "json", check=True).json


class TestGenerate:
    @pytest.mark.parametrize("sink", UNKNOWN)
    def test_a_new_key_that_nobody_surely_has_is_revoked(self, sinks: Cli, sink: str) -> None:
        """Exit 8, the key archived, its alias free again at once."""
        result = sinks("generate", "--alias", "worker", "--deliver", sink, "-o", "json")

        assert (result.exit_code, result.stdout, result.error["code"]) == (
            8,
            "",
            "delivery_failed",
        )
        assert {state for states in sinks.secrets().values() for state in states.values()} == {
            "revoked"
        }
        assert sinks("generate", "--alias", "worker", "--deliver", "good").exit_code == 0

    @pytest.mark.parametrize("sink", CHECKED)
    def test_a_sink_that_fails_its_check_costs_nothing(self, sinks: Cli, sink: str) -> None:
        """Exit 8 before anything is written."""
        result = sinks("generate", "--deliver", sink, "-o", "json")
        assert (result.exit_code, result.stdout, result.error["code"]) == (
            8,
            "",
            "delivery_failed",
        )
        assert result.error["hint"]
        assert sinks.secrets() == {}

    def test_a_function_gets_the_key_and_the_answer(self, sinks: Cli) -> None:
        """A Python sink that returns has taken the key."""
        answer = sinks("generate", "--deliver", "python", "-o", "json", check=True).json
        key, key_id = (sinks.home / "taken").read_text().split()
        assert (key_id, "key" in answer) == (answer["key_id"], False)
        assert sinks.verdict(key)["valid"]

    def test_what_its_module_says_is_no_part_of_the_answer(self, sinks: Cli) -> None:
        """stdout is one JSON document, although the module is imported before it is printed."""
        made = sinks("generate", "--deliver", "python", "-o", "json", check=True)
        assert made.json["replayed"] is False
        assert made.stderr == "imported\nimported\n"

    def test_a_function_gets_none_of_keyctl_s_credentials(self, sinks: Cli) -> None:
        """Of the environment it inherits the rest."""
        sinks.environment.update(KEYCTL_SOURCE_URL="postgresql://a:b@c/d", OTHER="x")
        sinks.environment["KEYCTL_SOURCE_URL_FILE"] = "/run/secrets/source"

        sinks("generate", "--deliver", "python", check=True)

        inherited = set((sinks.home / "environment").read_text().split())
        assert {name for name in inherited if name.startswith("KEYCTL_")} == {"KEYCTL_CONFIG"}
        assert "OTHER" in inherited


class TestRotate:
    @pytest.mark.parametrize("sink", CHECKED)
    def test_a_sink_that_fails_its_check_costs_nothing(self, sinks: Cli, sink: str) -> None:
        """Exit 8 before anything is written."""
        key = key_of(sinks)
        result = sinks("rotate", "worker", "--deliver", sink, "-o", "json")
        assert (result.exit_code, result.stdout) == (8, "")
        assert list(sinks.secrets()[key["key_id"]].values()) == ["active"]

    @pytest.mark.parametrize("sink", NOT_TAKEN)
    def test_what_was_surely_not_taken_is_revoked(
        self, sinks: Cli, sink: str, request: pytest.FixtureRequest
    ) -> None:
        """A full disk or a program that cannot start: the old secret goes on alone."""
        if sink == "full":
            request.getfixturevalue("full")
        key = key_of(sinks)

        result = sinks("rotate", "worker", "--deliver", sink, "-o", "json")

        assert (result.exit_code, result.stdout, result.error["code"]) == (
            8,
            "",
            "delivery_failed",
        )
        states = sorted(sinks.secrets()[key["key_id"]].values())
        assert states == ["active", "revoked"]
        assert sinks.verdict(key["key"])["secret_state"] == "active"
        assert sinks("db", "check", "-o", "json", check=True).json["left"] == []

    @pytest.mark.parametrize("sink", UNKNOWN)
    def test_where_nobody_knows_both_secrets_work(self, sinks: Cli, sink: str) -> None:
        """The old secret is untouched, the new one authenticates, and the next success ends both."""
        key = key_of(sinks)

        result = sinks("rotate", "worker", "--deliver", sink, "-o", "json")

        assert (result.exit_code, result.stdout, result.error["code"]) == (
            8,
            "",
            "delivery_failed",
        )
        assert sorted(sinks.secrets()[key["key_id"]].values()) == ["active", "staged"]
        assert sinks.verdict(key["key"])["secret_state"] == "active"
        left = sinks("db", "check", "-o", "json", check=True).json["left"]
        assert [(item["key_id"], item["problem"]) for item in left] == [
            (key["key_id"], "abandoned_secret")
        ]
        sinks("rotate", "worker", "--deliver", "good", "--grace", "1h", check=True)
        assert sorted(sinks.secrets()[key["key_id"]].values()) == [
            "active",
            "retiring",
            "retiring",
        ]
        assert sinks.verdict((sinks.home / "good").read_text().strip())["valid"]

    @pytest.mark.parametrize("sink", ["hang", "python_hang"])
    def test_a_sink_that_hangs_is_ended(self, sinks: Cli, sink: str) -> None:
        """At its time-out the whole process group is killed before the answer is unknown."""
        key_of(sinks)
        assert sinks("rotate", "worker", "--deliver", sink).exit_code == 8
        assert group((sinks.home / "pid").read_text().strip()) == []

    def test_what_a_sink_says_is_not_repeated(self, sinks: Cli) -> None:
        """A function that fails with the key in its message leaves no trace of it."""
        key_of(sinks)
        result = sinks("rotate", "worker", "--deliver", "python_error")
        assert "sk-" not in result.stderr.replace("sk-<", "")


class TestDatabaseLost:
    def stopped(self, cli: Cli, step: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a command line and return it as it stands still at *step*."""
        process = subprocess.Popen(
            [*STEPPER, step, "SIGSTOP", "--", *arguments],
            env=cli.environment,
            cwd=cli.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.waitpid(process.pid, os.WUNTRACED)
        return process

    def gone_on(self, process: "subprocess.Popen[bytes]") -> tuple[int, str]:
        """Let it run to its end and return its status and what it said."""
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        return process.returncode, err.decode()

    @pytest.mark.parametrize("step", ["delivered", "confirmed"])
    @pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
    def test_a_broken_connection_is_replaced(self, sinks: Cli, step: str) -> None:
        """A server that drops connections before the confirm or after it costs nothing."""
        key = key_of(sinks)
        process = self.stopped(sinks, step, "rotate", "worker", "--deliver", "good")
        sinks.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        assert self.gone_on(process)[0] == 0

        assert sorted(sinks.secrets()[key["key_id"]].values()) == ["active", "retiring"]
        assert sinks.verdict((sinks.home / "good").read_text().strip())["secret_state"] == "active"

    def test_a_database_that_stays_away_is_exit_6_and_both_secrets_work(
        self, sinks: Cli, database_url: str, postgres_url: str
    ) -> None:
        """Delivered, not confirmed: the run says so, and the same command again ends it well."""
        key = key_of(sinks)
        process = self.stopped(sinks, "delivered", "rotate", "worker", "--deliver", "good")
        away(database_url, postgres_url)

        status, said = self.gone_on(process)
        back(database_url, postgres_url)

        # Whoever holds a SQLite file open writes to it wherever it is moved; nobody else finds it.
        undone = "not read back" if "sqlite" in database_url else "not confirmed"
        assert (status, undone in said, "run the same command again" in said) == (6, True, True)
        assert sinks.verdict(key["key"])["valid"]
        assert sinks.verdict((sinks.home / "good").read_text().strip())["valid"]
        sinks("rotate", "worker", "--deliver", "good", check=True)
        assert sinks.verdict((sinks.home / "good").read_text().strip())["secret_state"] == "active"
        assert sinks("db", "check", "-o", "json", check=True).json["left"] == []

    def test_a_lost_answer_to_the_commit_is_found_out(self, sinks: Cli) -> None:
        """If the confirm was committed but its answer lost, the next try sees that it was."""
        key = key_of(sinks)
        result = sinks.stepped("answer_lost", "SIGKILL", "rotate", "worker", "--deliver", "good")

        assert result.exit_code == 0, result.stderr
        assert sorted(sinks.secrets()[key["key_id"]].values()) == ["active", "retiring"]
        info = sinks("info", "worker", "-o", "json", check=True).json
        assert info["rotation_count"] == 1


def away(database_url: str, postgres_url: str) -> None:
    """Take the database away."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        path.parent.rename(path.parent.with_name("away"))
        return
    with administered(postgres_url) as execute:
        execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS false')
        execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{url.database}'"
        )


def back(database_url: str, postgres_url: str) -> None:
    """Bring the database back."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        path.parent.with_name("away").rename(path.parent)
        return
    with administered(postgres_url) as execute:
        execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS true')
