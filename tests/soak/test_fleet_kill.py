"""SIGKILL at each step of `apply`: the next one ends with every key once, and nothing beside them."""

import os
import sys
from collections.abc import Iterator

import pytest
from harness import Cli, Result

from keyctl.db.database import Database
from keyctl.keystring import public_ids
from keyctl.services.verify import verify

# Fifty keys take an hour at each step; KEYCTL_KILL_KEYS=8 takes minutes.
COUNT = int(os.environ.get("KEYCTL_KILL_KEYS", "50"))
NAMES = [f"w-{number}" for number in range(1, COUNT + 1)]
FLEET = f"teams: {{t: {{}}}}\nkeys: {{'w-{{n}}': {{count: {COUNT}, team_id: t, deliver: SINK}}}}\n"
# Reads all before it writes, and puts it in place at once.
PUT = 'umask 077; cat > "$1.part" && mv "$1.part" "$1"'
SINKS = {
    "file": 'type = "file"\npath = "{folder}/{{alias}}"\n',
    "command": f'type = "command"\nargv = ["sh", "-c", \'{PUT}\', "put", "{{folder}}/{{{{alias}}}}"]\n',
}
# How many steps lie between two kills: a key that goes to a file is four.  Each of them: KEYCTL_KILL_EVERY=1.
EVERY = int(os.environ.get("KEYCTL_KILL_EVERY", "61"))


class World:
    """A fleet of keys, and the folder that its sink fills."""

    def __init__(self, cli: Cli, kind_of_sink: str) -> None:
        self.cli = cli
        self.folder = cli.home / "sunk"
        self.folder.mkdir(mode=0o700)
        sink = SINKS[kind_of_sink].format(folder=self.folder)
        cli.configure(f"bcrypt_cost = 4\n[sinks.{kind_of_sink}]\n{sink}")
        (cli.home / "fleet.yaml").write_text(FLEET.replace("SINK", kind_of_sink))

    def killed(self, step: str) -> bool:
        """Apply until the run is killed at a step; tell whether it came to it."""
        return self.cli.stepped(step, "SIGKILL", "apply", "fleet.yaml").exit_code < 0

    def applied(self) -> Result:
        """Apply until no command of a dead run holds a key any more."""
        result = self.cli("apply", "fleet.yaml")
        while result.exit_code == 7:
            result = self.cli("apply", "fleet.yaml")
        return result

    def assert_whole(self) -> None:
        """All keys, each once; the sink holds the one active secret of each, and nothing else."""
        held = {path.name: path.read_text().strip() for path in self.folder.iterdir()}
        database = Database(str(self.cli.database_url))
        verdicts = {name: verify(database, text) for name, text in held.items()}
        with database.read() as connection:
            alive = connection.exec_driver_sql(
                "SELECT id FROM secrets WHERE state <> 'revoked' ORDER BY id"
            ).scalars()
            keys = connection.exec_driver_sql(
                "SELECT key_alias FROM keys WHERE deleted_at IS NULL"
            ).scalars()
            assert sorted(keys) == sorted(NAMES)
            assert sorted(alive) == sorted(
                secret for text in held.values() for secret in public_ids(text)
            )
        database.engine.dispose()
        assert {
            (name, item.key_alias, item.valid, item.secret_state) for name, item in verdicts.items()
        } == {(name, name, True, "active") for name in NAMES}
        assert self.cli("plan", "fleet.yaml").stdout == f"{COUNT + 1} unchanged\n"
        assert self.cli("db", "check", "-o", "json", check=True).json["left"] == []


def steps() -> Iterator[int]:
    """Yield the numbers of the steps to be killed at, the first and the second among them."""
    yield from range(1, sys.maxsize, EVERY)


@pytest.mark.timeout(300 if EVERY > 50 else 7200)
@pytest.mark.parametrize("kind_of_sink", list(SINKS))
def test_killed_anywhere(cli: Cli, kind_of_sink: str) -> None:
    """Each run that is killed at a step is brought to its end by the next; until one comes to its end itself."""
    world = World(cli, kind_of_sink)
    empty = "version: 1\n"
    (cli.home / "empty.yaml").write_text(empty)
    kills = 0
    for number in steps():
        killed = world.killed(f"any:{number}")
        if killed:
            kills += 1
            assert world.applied().exit_code == 0
        world.assert_whole()
        if not killed:
            break
        cli("apply", "empty.yaml", "--prune", "--yes", check=True)
    assert kills > 0  # else a run that is never killed shows nothing
    assert cli("audit", "verify").exit_code == 0
