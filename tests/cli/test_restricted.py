"""keyctl for people who run it through another account: a key, streams and named sinks, nothing else."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import typer
from harness import Cli
from inside import Inside
from servers import FOR_ANOTHER_ACCOUNT

from keyctl.cli import restricted
from keyctl.cli.app import COMMANDS, app
from keyctl.config import file

pytestmark = pytest.mark.sqlite_mostly

# Two accounts that no machine has: the one that holds the credentials, and the caller's.
KEEPER, CALLER = 61_001, 61_002
LAUNCHER = """
import sys
from pathlib import Path
from keyctl.config import file
file.SYSTEM_FILE = Path(sys.argv.pop(1))
from keyctl.entry import main
sys.argv[0] = "keyctl"
sys.exit(main())
"""


@pytest.fixture(name="system")
def _system(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's configuration, which says restricted; the test's environment names no other."""
    (tmp_path / "url").write_text(f"{cli.database_url}\n")
    path = tmp_path / "system.toml"
    path.write_text(
        f'restricted = true\nbcrypt_cost = 4\ndatabase_url_file = "{tmp_path}/url"\n'
        f'[sinks.box]\ntype = "file"\npath = "{tmp_path}/box-{{alias}}"\n'
    )
    path.chmod(0o600)
    monkeypatch.setattr(file, "SYSTEM_FILE", path)
    yield path
    monkeypatch.undo()


@pytest.fixture(name="bob")
def _bob(cli: Cli) -> dict[str, str]:
    """The environment of a caller with a key of their own."""
    cli("user", "create", "bob", check=True)
    return {"KEYCTL_API_KEY": cli.key("--user", "bob", "--alias", "own")}


@pytest.fixture(name="caller")
def _caller(inside: Inside, system: Path) -> Inside:
    """The program as the caller runs it: the variables that name places are not set."""
    assert system.exists()
    for name in restricted.VARIABLES:
        inside.environment.pop(name, None)
    return inside


class TestWhatIsLeft:
    def test_streams_and_named_sinks(
        self, bob: dict[str, str], caller: Inside, tmp_path: Path
    ) -> None:
        """A key to stdout, a key to a sink, a list: on the account's own database."""
        shown = caller("generate", "--alias", "shown", environment=bob)
        sunk = caller("generate", "--alias", "sunk", "--deliver", "box", environment=bob)
        listed = caller("list", "-o", "json", environment=bob, check=True)

        assert (shown.exit_code, shown.stdout[:3]) == (0, "sk-")
        assert (sunk.exit_code, sunk.stdout) == (0, "")
        assert (tmp_path / "box-sunk").read_text().startswith("sk-")
        assert {key["key_alias"] for key in listed.json["keys"]} == {"own", "shown", "sunk"}


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["list", "--config", "mine.toml"], "--config"),
            (["list", "--database-url", "sqlite:////tmp/mine.db"], "--database-url"),
            (["list", "--caller-key-file", "/etc/shadow"], "--caller-key-file"),
            (["generate", "--out-file", "/srv/x"], "--out-file"),
            (["generate", "--request", "/etc/shadow"], "--request"),
            (["team", "create", "x", "--policy", "/etc/shadow"], "--policy"),
            (["plan", "/etc"], "FILE|DIR…"),
            (["db", "backup", "/srv/x"], "FILE"),
        ],
    )
    def test_options_and_arguments_that_name_places(
        self, bob: dict[str, str], caller: Inside, cli: Cli, arguments: list[str], named: str
    ) -> None:
        """Exit 4 with the rule, before anything is read; and one event."""
        result = caller(*arguments, "-o", "json", environment=bob)

        violations = result.error["violations"]
        assert (result.exit_code, result.stdout, result.error["code"]) == (4, "", "restricted")
        assert [(item["rule"], item["field"]) for item in violations] == [
            ("caller.restricted", named)
        ]
        found = cli("audit", "list", "--action", "denied", "-o", "json", check=True).json["events"]
        assert [event["action"] for event in found] == ["caller_denied"]

    @pytest.mark.parametrize("name", restricted.VARIABLES)
    def test_variables(self, bob: dict[str, str], caller: Inside, name: str) -> None:
        """What the environment chooses is refused as options are."""
        result = caller("list", environment={**bob, name: "sqlite:////tmp/mine.db"})

        assert (result.exit_code, name in result.stderr) == (4, True)

    @pytest.mark.parametrize("command", [["list"], ["db", "upgrade"], ["verify", "-"], ["version"]])
    def test_nobody_acts_without_a_key(self, caller: Inside, command: list[str]) -> None:
        """There is no local operator, for no command."""
        assert caller(*command).exit_code == 4

    def test_a_key_that_does_not_authenticate(self, caller: Inside) -> None:
        """It is no key."""
        unknown = {"KEYCTL_API_KEY": "sk-" + "aB3" * 10}

        assert caller("list", environment=unknown).exit_code == 4

    def test_the_environment_steers_nothing(
        self, bob: dict[str, str], caller: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of what the caller set only the key and how to show things is left."""
        seen: dict[str, str] = {}
        cut = restricted.cut

        def watched(environment: Any) -> None:
            cut(environment)
            seen.update(environment)

        monkeypatch.setattr(restricted, "cut", watched)
        steering = {"PATH": "/srv/evil", "PGHOST": "evil", "XDG_STATE_HOME": "/srv", "HOME": "/srv"}
        caller("list", environment={**bob, **steering}, check=True)

        assert seen["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        assert not {"PGHOST", "XDG_STATE_HOME"} & set(seen)
        assert seen.get("HOME") != "/srv"

    def test_it_needs_a_database(self, caller: Inside, system: Path) -> None:
        """Without `database_url_file` the caller's home would choose it: exit 2."""
        system.write_text("restricted = true\n")

        result = caller("list", environment={"KEYCTL_API_KEY": "sk-x"})

        assert (result.exit_code, "needs database_url_file" in result.stderr) == (2, True)


def test_every_parameter_that_names_a_place_is_known() -> None:
    """A new option or argument for a file, folder or URL is refused where it must be."""
    place = re.compile(r"\b(files?|folders?|url|dir|path)\b", re.IGNORECASE)
    known = {"--out-format", "--force", "--prune"}  # speak of files, and name none
    root: Any = typer.main.get_command(app)

    def walk(command: Any) -> Iterator[Any]:
        yield from getattr(command, "params", ())
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner)

    for name in COMMANDS:
        for item in walk(root.commands[name]):
            text = f"{item.opts} {getattr(item, 'metavar', '')} {getattr(item, 'help', '')}"
            if not place.search(text.replace("-", " ").replace("_", " ")) or known & set(item.opts):
                continue
            flagged = restricted.OPTIONS & set(item.opts)
            assert flagged or any(
                part in (item.metavar or "") for part in ("FILE", "DIR", "PATH")
            ), (
                name,
                item.opts,
            )


@FOR_ANOTHER_ACCOUNT
def test_a_second_account(tmp_path: Path) -> None:
    """The caller's account reads neither database nor configuration; through the keeper's it gets keys."""
    home = Path(f"/var/tmp/keyctl-{uuid4().hex[:8]}")  # noqa: S108  # both accounts must get there
    home.mkdir(mode=0o755)
    try:
        (home / "data").mkdir(mode=0o700)
        database = f"sqlite:///{home}/data/keyctl.db"
        admin = Cli(tmp_path / "home", database)
        admin("user", "create", "bob", check=True)
        key = admin.key("--user", "bob")
        (home / "url").write_text(database)
        (home / "config.toml").write_text(
            f'restricted = true\nbcrypt_cost = 4\ndatabase_url_file = "{home}/url"\n'
        )
        for item in (home / "data", *(home / "data").rglob("*"), home / "url"):
            os.chown(item, KEEPER, KEEPER)
        for item in (home / "url", home / "config.toml"):
            item.chmod(0o600)
        os.chown(home / "config.toml", KEEPER, KEEPER)

        def run(
            account: int, *arguments: str, **environment: str
        ) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [
                    *("setpriv", f"--reuid={account}", f"--regid={account}", "--clear-groups"),
                    *(sys.executable, "-c", LAUNCHER, str(home / "config.toml"), *arguments),
                ],
                env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment},
                cwd="/",
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

        alone = run(CALLER, "list", KEYCTL_DATABASE_URL=database)
        through = run(KEEPER, "generate", "--alias", "mine", KEYCTL_API_KEY=key)
        elsewhere = run(KEEPER, "list", KEYCTL_API_KEY=key, KEYCTL_DATABASE_URL=database)
        file = run(KEEPER, "generate", "--out-file", f"{home}/data/x", KEYCTL_API_KEY=key)
        nobody = run(KEEPER, "list")

        assert (alone.returncode, "Permission denied" in alone.stderr) == (2, True)
        assert (through.returncode, through.stdout[:3]) == (0, "sk-"), through.stderr
        assert [item.returncode for item in (elsewhere, file, nobody)] == [4, 4, 4]
    finally:
        shutil.rmtree(home)
