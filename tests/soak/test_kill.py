"""SIGKILL at each step of generate: nothing active that nobody has, and a re-run that works."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import STEPPER, Cli
from stepper import STEPS

from keyctl.db.database import Database
from keyctl.db.queries import find_key, secrets_of

CONFIRMED = ("confirmed", "checked")


def active(cli: Cli) -> set[str]:
    """Return the ids of all active secrets."""
    return {
        secret_id
        for states in cli.secrets().values()
        for secret_id, state in states.items()
        if state == "active"
    }


def delivered(texts: list[str]) -> set[str]:
    """Return the public ids of the whole key strings in *texts*."""
    from keyctl.keystring import public_ids

    return {public_id for text in texts for public_id in public_ids(text)}


@pytest.mark.parametrize("step", STEPS)
class TestKilledAtEachStep:
    def test_in_a_pipe_with_an_alias(self, cli: Cli, step: str) -> None:
        """What is active was printed whole; the same command again succeeds, or the alias is taken."""
        first = cli.killed(step, "generate", "--alias", "ci", "--max-budget", "5")
        assert active(cli) <= delivered([first])

        again = cli("generate", "--alias", "ci", "--max-budget", "5", "-o", "json")
        left = cli("db", "check", "-o", "json", check=True).json["left"]

        if step in CONFIRMED:
            assert (again.exit_code, again.error["code"]) == (5, "alias_taken")
            assert cli.verdict(first.strip())["valid"]
        else:
            assert again.exit_code == 0, again.stderr
            assert cli.verdict(again.json["key"])["valid"]
            assert active(cli) == delivered([again.stdout])
        # What was taken over leaves a staged secret that ends by itself; there is one key.
        assert len([1 for found in cli.secrets().values() if found]) == 1
        assert {entry["problem"] for entry in left} <= {"abandoned_secret"}

    def test_into_a_file_with_neither_alias_nor_request_id(
        self, cli: Cli, step: str, tmp_path: Path
    ) -> None:
        """The same command again puts a working key into the file, or finds the one that works."""
        out = tmp_path / "key"
        cli.killed(step, "generate", "--out-file", str(out))
        before = out.read_text() if out.exists() else ""
        assert active(cli) <= delivered([before])

        again = cli("generate", "--out-file", str(out))

        expected = (5, before) if step in CONFIRMED else (0, out.read_text())
        assert (again.exit_code, out.read_text()) == expected, again.stderr
        assert cli.verdict(out.read_text().strip())["valid"]
        assert os.listdir(tmp_path) == [
            name for name in os.listdir(tmp_path) if not name.endswith(".part")
        ]

    def test_from_a_list_into_a_folder(self, cli: Cli, step: str, tmp_path: Path) -> None:
        """The same command again, at once, leaves a working key in each file; what is confirmed it refuses."""
        (cli.home / "keys.csv").write_text("alias\na\nb\n")
        out = tmp_path / "keys"
        arguments = ("generate", "--from", "keys.csv", "--out-dir", str(out))
        cli.killed(step, *arguments)

        again = cli(*arguments)

        assert again.exit_code == (9 if step in CONFIRMED else 0), again.stderr
        texts = [path.read_text() for path in sorted(out.iterdir())]
        assert [cli.verdict(text.strip())["secret_state"] for text in texts] == ["active"] * 2
        assert active(cli) == delivered(texts)

    def test_as_json_with_a_request_id(self, cli: Cli, step: str) -> None:
        """The same request again gives one key, or the answer without it where it was given."""
        arguments = ("generate", "--request-id", "deploy-1", "-o", "json")
        first = cli.killed(step, *arguments)
        assert active(cli) <= delivered([first])

        again = cli(*arguments, check=True)

        assert (again.json["replayed"], "key" in again.json) == (
            (True, False) if step in CONFIRMED else (False, True)
        )
        key = first if step in CONFIRMED else again.stdout
        assert cli.verdict(json.loads(key)["key"])["valid"]
        assert len(active(cli)) == 1


def dead_generate(cli: Cli, *arguments: str) -> Any:
    """Leave a pending key of a killed run behind and return its view."""
    cli.killed("delivered", "generate", *arguments)
    return cli("list", "--state", "pending", "-o", "json", check=True).json["keys"][0]


class TestTakeover:
    def test_the_same_request_keeps_the_key_id(self, cli: Cli) -> None:
        """A request with the same fingerprint and alias takes the pending key over, id kept."""
        pending = dead_generate(cli, "--alias", "ci", "--max-budget", "5")

        again = cli("generate", "--alias", "ci", "--max-budget", "5", "-o", "json", check=True)

        assert again.json["key_id"] == pending["key_id"]

    def test_the_abandoned_secret_keeps_its_end(self, cli: Cli) -> None:
        """The string that may have been delivered works until its deadline, and no longer.

        It is on its way out from then on: nothing that lengthens a key's life lengthens its own.
        """
        pending = dead_generate(cli, "--alias", "ci")
        before = cli("info", pending["key_id"], "-o", "json", check=True).json["secrets"]

        cli("generate", "--alias", "ci", check=True)

        after = cli("info", "ci", "-o", "json", check=True).json["secrets"]
        (abandoned,) = [item for item in after if item["id"] == before[0]["id"]]
        assert abandoned == {**before[0], "state": "retiring"}

    def test_another_request_with_the_alias_begins_its_own_key(
        self, cli: Cli, database_url: str
    ) -> None:
        """The pending key is archived and the alias goes to the new one."""
        pending = dead_generate(cli, "--alias", "ci", "--max-budget", "5")

        again = cli("generate", "--alias", "ci", "--max-budget", "6", "-o", "json", check=True)

        database = Database(database_url)
        with database.read() as connection:
            old = find_key(connection, pending["key_id"])
            states = {item.state for item in secrets_of(connection, pending["key_id"])}
        database.engine.dispose()
        assert old is not None
        assert (again.json["key_id"] == old.id, old.deleted_at is None) == (False, False)
        assert states == {"revoked"}

    def test_another_request_with_the_request_id_is_a_conflict(self, cli: Cli) -> None:
        """A request id stands for one request, finished or not."""
        dead_generate(cli, "--request-id", "r1", "--max-budget", "5")

        again = cli("generate", "--request-id", "r1", "--max-budget", "6", "-o", "json")

        assert (again.exit_code, again.stdout, again.error["code"]) == (5, "", "request_id_taken")

    def test_a_supplied_key_can_be_supplied_again(self, cli: Cli) -> None:
        """A run that died with a supplied key does not use the string up."""
        text = "sk-Supplied_by_a_person-0123456789"
        source = cli.home / "supplied"
        source.write_text(text)
        cli.killed("delivered", "generate", "--key-file", str(source))

        again = cli("generate", "--key-file", str(source))

        assert (again.exit_code, again.stdout) == (0, text + "\n"), again.stderr
        assert cli.verdict(text)["valid"]

    def test_a_living_run_is_waited_for_or_respected(self, cli: Cli) -> None:
        """While a run is alive its alias is taken; a dead one's lock file proves nothing of others."""
        process = subprocess.Popen(
            [
                *(*STEPPER, "delivered", "SIGSTOP", "--"),
                *("generate", "--alias", "ci"),
            ],
            env=cli.environment,
            cwd=cli.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            os.waitpid(process.pid, os.WUNTRACED)
            other = cli("generate", "--alias", "ci", "-o", "json")
            process.send_signal(signal.SIGCONT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait(timeout=60)

        assert (other.exit_code, other.error["code"]) == (5, "alias_taken")
        assert (process.returncode, cli.verdict(out.decode().strip())["valid"]) == (0, True)


def test_a_dead_run_past_its_deadline_is_archived_by_any_writer(cli: Cli) -> None:
    """Any later writing command archives what a crash left pending."""
    pending = dead_generate(cli, "--alias", "ci")
    cli.execute("UPDATE claims SET deadline_at = '2020-01-01 00:00:00.000000'")

    cli("team", "create", "web", check=True)

    assert cli("info", pending["key_id"], "-o", "json", check=True).json["state"] == "deleted"


def test_repair_archives_pending_keys_of_dead_runs(cli: Cli) -> None:
    """db check --repair archives what nobody depends on, and its alias is free again."""
    dead_generate(cli, "--alias", "ci")

    repaired = cli("db", "check", "--repair", "-o", "json", check=True).json["left"]

    assert [(item["key_alias"], item["result"]) for item in repaired] == [("ci", "archived")]
    assert cli("generate", "--alias", "ci", "--max-budget", "7").exit_code == 0
