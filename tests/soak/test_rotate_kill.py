"""SIGKILL at each step of rotate: what the sink holds works, and the next run brings all to rest."""

from pathlib import Path
from typing import Any

import pytest
from harness import Cli, Result
from stepper import STEPS, WITH_A_COMMAND

CONFIRMED = ("confirmed", "checked")
# Writes the whole key to a file beside the target, waits, and puts it in place: its run may be
# dead by then.
SLOW = 'cat > "$1.part" && sleep 0.7 && mv "$1.part" "$1"'
SINKS = {
    "file": 'type = "file"\npath = "{folder}/{{alias}}"\n',
    # As slow as the test likes: until there is a file `go`, for ten seconds at most.
    "waiting": (
        'type = "command"\nargv = ["sh", "-c", \'cat > "$1.part"; for i in $(seq 200);'
        ' do [ -e "$2" ] && break; sleep 0.05; done; mv "$1.part" "$1"\','
        ' "put", "{folder}/{{alias}}", "{folder}/../go"]\n'
    ),
    "command": f'type = "command"\nargv = ["sh", "-c", \'{SLOW}\', "put", "{{folder}}/{{{{alias}}}}"]\n',
}
CASES = [
    *(("file", step) for step in STEPS),
    *(("command", step) for step in WITH_A_COMMAND),
]


def sink_of(cli: Cli, kind: str) -> Path:
    """Configure the sink `vault`, make a key `worker` that it holds, and return the sink's file."""
    folder = cli.home / "sunk"
    folder.mkdir(mode=0o700)
    cli.configure("bcrypt_cost = 4\n[sinks.vault]\n" + SINKS[kind].format(folder=folder))
    cli(
        *("generate", "--alias", "worker", "--deliver", "vault", "--max-budget", "5"),
        *("--auto-rotate", "--rotation-interval", "30d"),
        check=True,
    )
    return folder / "worker"


def make_due(cli: Cli) -> None:
    """Let the time to rotate every key have come."""
    cli.execute("UPDATE keys SET key_rotation_at = '2020-01-01 00:00:00.000000'")


def until_free(cli: Cli, *arguments: str) -> Result:
    """Run a command until no other run, nor the command of a dead one, has the key."""
    result = cli(*arguments)
    while result.exit_code == 7 or '"claimed"' in result.stdout:
        result = cli(*arguments)
    return result


def assert_at_rest(cli: Cli, sunk: Path) -> Any:
    """The sink holds the one active secret, and nothing is left over."""
    verdict = cli.verdict(sunk.read_text().strip())
    info = cli("info", "worker", "-o", "json", check=True).json
    assert (verdict["valid"], verdict["secret_state"]) == (True, "active")
    states = [secret["state"] for secret in info["secrets"]]
    assert (states.count("active"), states.count("staged")) == (1, 0)
    assert cli("db", "check", "-o", "json", check=True).json["left"] == []
    assert sorted(path.name for path in sunk.parent.iterdir()) == ["worker"]
    return info


@pytest.mark.parametrize(("kind_of_sink", "step"), CASES)
class TestKilledAtEachStep:
    def test_one_key(self, cli: Cli, kind_of_sink: str, step: str) -> None:
        """What the sink holds authenticates after the kill; the same command again ends it well."""
        sunk = sink_of(cli, kind_of_sink)
        before = cli("info", "worker", "-o", "json", check=True).json

        cli.killed(step, "rotate", "worker")
        assert cli.verdict(sunk.read_text().strip())["valid"]

        again = until_free(cli, "rotate", "worker")
        assert again.exit_code == 0, again.stderr
        info = assert_at_rest(cli, sunk)
        kept = ("key_id", "key_alias", "max_budget", "spend", "expires", "metadata", "created_at")
        assert {name: info[name] for name in kept} == {name: before[name] for name in kept}
        assert info["rotation_count"] == (2 if step in CONFIRMED else 1)

    def test_what_is_due(self, cli: Cli, kind_of_sink: str, step: str) -> None:
        """A cron line that is killed does no harm, and the next one finishes its work."""
        sunk = sink_of(cli, kind_of_sink)
        make_due(cli)

        cli.killed(step, "rotate", "--due")
        assert cli.verdict(sunk.read_text().strip())["valid"]

        again = until_free(cli, "rotate", "--due", "-o", "jsonl")
        assert again.exit_code == 0, again.stderr
        info = assert_at_rest(cli, sunk)
        assert info["rotation_count"] == 1


def test_a_living_command_of_a_dead_run_keeps_the_key_to_itself(cli: Cli) -> None:
    """A killed run's command could overwrite its successor's delivery: the claim lives with it."""
    go = cli.home / "go"
    go.touch()
    sunk = sink_of(cli, "waiting")
    go.unlink()

    cli.killed("half_delivered", "rotate", "worker")
    other = cli("rotate", "worker", "-o", "json")
    go.touch()

    assert (other.exit_code, other.error["code"]) == (7, "busy")
    assert until_free(cli, "rotate", "worker").exit_code == 0
    assert_at_rest(cli, sunk)


def test_repair_runs_interrupted_rotations_again(cli: Cli) -> None:
    """db check --repair delivers anew where a sink needs no person."""
    sunk = sink_of(cli, "file")
    cli.killed("delivered", "rotate", "worker")

    repaired = cli("db", "check", "--repair", "-o", "json", check=True).json["left"]

    assert [(item["problem"], item["result"]) for item in repaired] == [
        ("abandoned_secret", "rotated")
    ]
    assert_at_rest(cli, sunk)


def test_repair_names_the_command_for_a_key_that_a_person_holds(cli: Cli) -> None:
    """Without a sink db check --repair changes nothing and says what to type."""
    key = cli("generate", "--alias", "mine", "-o", "json", check=True).json
    cli.killed("delivered", "rotate", "mine")

    repaired = cli("db", "check", "--repair", "-o", "json", check=True).json["left"]

    assert [item["result"] for item in repaired] == [f"left: keyctl rotate {key['key_id']}"]
    assert cli.verdict(key["key"])["secret_state"] == "active"


def test_all_abandoned_secrets_retire_with_the_next_success(cli: Cli) -> None:
    """After two crashes and one success all that may be in the sink retires with one grace period."""
    sink_of(cli, "file")
    cli.killed("delivered", "rotate", "worker")
    cli.killed("delivered", "rotate", "worker")

    cli("rotate", "worker", "--grace", "1h", check=True)

    secrets = cli("info", "worker", "-o", "json", check=True).json["secrets"]
    assert [secret["state"] for secret in secrets] == ["active", *["retiring"] * 3]
    assert len({secret["not_after"] for secret in secrets[1:]}) == 1


def test_a_key_with_five_abandoned_secrets_is_left_for_a_person(cli: Cli) -> None:
    """rotate --due gives a key up that five runs died on; rotate KEY clears it."""
    sunk = sink_of(cli, "file")
    for _ in range(5):
        cli.killed("delivered", "rotate", "worker")
    make_due(cli)

    due = cli("rotate", "--due", "-o", "jsonl")

    assert (due.exit_code, due.json["result"], due.json["reason"]) == (9, "failed", "abandoned")
    cli("rotate", "worker", check=True)
    assert_at_rest(cli, sunk)
