"""keyctl runs where containers, cron and services run it, or says what is missing there."""

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
from harness import KEYCTL, Cli
from servers import ANOTHER_ACCOUNT, FOR_ANOTHER_ACCOUNT, open_folder


def run(*command: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run a command line in an environment with nothing in it but what is given."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # noqa: PLW1510  # below
        command,
        **{
            "env": {},
            "capture_output": True,
            "text": True,
            "timeout": 120,
            "check": False,
            **options,
        },
    )


@FOR_ANOTHER_ACCOUNT
class TestAnAccountWithoutAnEntry:
    def test_is_told_what_is_missing(self) -> None:
        """The embedded database needs a home."""
        for command in (["list"], ["generate"], ["config", "show"]):
            done = run(*ANOTHER_ACCOUNT, *KEYCTL, *command, cwd="/")
            assert (command, done.returncode) == (command, 6)
            assert done.stderr == (
                "error: there is no home folder for the embedded database\n"
                "hint: set KEYCTL_DATABASE_URL, or set HOME to an absolute path\n"
            )
        assert run(*ANOTHER_ACCOUNT, *KEYCTL, "config", "path", cwd="/").returncode == 0

    def test_in_another_account_s_home_is_told(self) -> None:
        """As after `sudo -u app` that keeps HOME: exit 2, and not the defaults without a word."""
        with open_folder() as folder:
            (folder / "home").mkdir(mode=0o700)
            environment = {"HOME": str(folder / "home")}
            done = run(*ANOTHER_ACCOUNT, *KEYCTL, "list", env=environment, cwd="/")
        assert (done.returncode, "set HOME" in done.stderr) == (2, True), done


@pytest.mark.parametrize("kind", ["sqlite"])
def test_no_plugin_of_pydantic_is_loaded(cli: Cli, tmp_path: Path) -> None:
    """One that is installed would see what keyctl validates, key strings among it."""
    about = tmp_path / "nosy-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nosy\nVersion: 1\n", "utf-8")
    (about / "entry_points.txt").write_text("[pydantic]\nnosy = nosy:plugin\n", "utf-8")
    (tmp_path / "nosy.py").write_text("print('loaded', flush=True)\nplugin = None\n", "utf-8")
    cli.environment["PYTHONPATH"] = str(tmp_path)
    program = (*KEYCTL, "generate", "--max-budget", "5")

    done = run(*program, env=cli.environment, cwd=cli.home)

    assert (done.returncode, done.stdout.startswith("sk-")) == (0, True), done


@pytest.mark.parametrize("kind", ["sqlite"])
class TestARemovedFolder:
    def test_is_only_missed_where_a_path_begins_in_it(self, cli: Cli, tmp_path: Path) -> None:
        gone = tmp_path / "gone"

        def in_a_removed_folder(*arguments: str) -> "subprocess.CompletedProcess[str]":
            gone.mkdir()
            script = 'rmdir "$0"; exec "$@"'
            return run(
                "sh", "-c", script, str(gone), *KEYCTL, *arguments, env=cli.environment, cwd=gone
            )  # fmt: skip

        assert in_a_removed_folder("generate", "--alias", "a").returncode == 0
        assert in_a_removed_folder("rotate", "a", "--out-file", str(tmp_path / "a")).returncode == 0
        done = in_a_removed_folder("rotate", "a", "--out-file", "a")
        assert (done.returncode, "current folder" in done.stderr) == (2, True)


class TestTheFirstProcess:
    @FOR_ANOTHER_ACCOUNT
    @pytest.mark.parametrize("kind", ["sqlite"])
    def test_ends_at_sigterm_while_it_waits_for_a_lock(self, cli: Cli, database_url: str) -> None:
        """In a container keyctl is process 1, from which the kernel keeps signals."""
        cli.key()
        path = database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            process = subprocess.Popen(
                ["unshare", "-p", "-f", "--kill-child", *KEYCTL, "generate", "--alias", "late"],
                env=cli.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            child = first_child(process.pid)
            assert first_child(child)  # it waits in a process of its own
            time.sleep(1)  # until it is at the lock, which nothing shows from outside
            os.kill(child, signal.SIGTERM)
            process.communicate(timeout=15)  # the lock is waited for 20 seconds
        assert process.returncode == 128 + signal.SIGTERM
        assert "late" not in cli("list", check=True).stdout

    @FOR_ANOTHER_ACCOUNT
    @pytest.mark.parametrize("kind", ["sqlite"])
    def test_passes_on_the_status(self, cli: Cli) -> None:
        first = ("unshare", "-p", "-f", *KEYCTL)
        assert run(*first, "generate", env=cli.environment).returncode == 0
        assert run(*first, "info", "nobody", env=cli.environment).returncode == 3


def first_child(pid: int) -> int:
    """Return a process's child, once there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(200):
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.05)
    raise AssertionError("it began no process")
