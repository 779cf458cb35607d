"""rotate --due on many hosts at once, and what it says of each key."""

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import STEPPER, Cli
from world import CALLERS, World

from keyctl.services.rotate.due import DueService
from keyctl.services.workspace import Workspace

KEYS = 500
PROCESSES = {"sqlite": 4, "postgresql": 8}
CONFIG = """
bcrypt_cost = 4
default_sink = "files"
[sinks.files]
type = "file"
path = "{folder}/{{key_id}}"
[sinks.broken]
type = "command"
argv = ["false"]
"""


@pytest.fixture(name="sunk")
def _sunk(cli: Cli) -> Path:
    """The folder in which the default sink keeps each key's secret."""
    folder = cli.home / "sunk"
    folder.mkdir(mode=0o700)
    cli.configure(CONFIG.format(folder=folder))
    return folder


def make(cli: Cli, *arguments: str) -> str:
    """Make a key that rotates by itself and return its id."""
    made = cli(
        *("generate", "--auto-rotate", "--rotation-interval", "30d", "-o", "json"),
        *arguments,
        check=True,
    )
    return str(made.json["key_id"])


def make_due(cli: Cli) -> None:
    """Let the time to rotate every key have come."""
    cli.execute("UPDATE keys SET key_rotation_at = '2020-01-01 00:00:00.000000' WHERE auto_rotate")


def lines(text: str) -> list[dict[str, Any]]:
    """Return JSON lines as values."""
    return [json.loads(line) for line in text.splitlines()]


def test_many_hosts_rotate_each_key_exactly_once(cli: Cli, kind: str, sunk: Path) -> None:
    """Any number of cron lines at once: each key once, nothing lost, nobody sees a busy database."""
    cli(
        *("generate", "--count", str(KEYS), "--auto-rotate", "--rotation-interval", "30d"),
        check=True,
    )
    make_due(cli)

    results = cli.race([["rotate", "--due", "-o", "jsonl"]] * PROCESSES[kind])

    assert {result.exit_code for result in results} == {0}, [result.stderr for result in results]
    said = [line for result in results for line in lines(result.stdout)]
    rotated = Counter(line["key_id"] for line in said if line["result"] == "rotated")
    assert (len(rotated), set(rotated.values())) == (KEYS, {1})
    keys = lines(cli("list", "-o", "jsonl", check=True).stdout)
    assert {key["rotation_count"] for key in keys} == {1}
    secrets = cli.secrets()
    assert {Counter(states.values())["active"] for states in secrets.values()} == {1}
    for key_id in rotated:
        text = (sunk / key_id).read_text()
        assert secrets[key_id][text[3:15]] == "active"
    assert cli.verdict((sunk / key_id).read_text().strip())["valid"]
    assert cli("db", "check", "-o", "json", check=True).json["left"] == []


def test_how_many_are_due_counts_what_the_caller_may_list(workspace: Workspace) -> None:
    """The progress of a run tells a team's admin nothing about other teams' keys."""
    world = World(workspace)
    for team in ("web", "else", "else"):
        world.make({"team_id": team, "auto_rotate": True, "rotation_interval": "30d"})
    with workspace.database.write() as connection:
        connection.exec_driver_sql("UPDATE keys SET key_rotation_at = '2020-01-01'")

    counts = {name: DueService(world.acting(CALLERS[name])).count() for name in CALLERS}

    everything = {"local", "proxy_admin", "proxy_admin_viewer"}
    of_the_team = {"org_admin", "team_admin", "service_account"}
    assert counts == {
        name: 3 if name in everything else 1 if name in of_the_team else 0 for name in CALLERS
    }


class TestWhatIsSaidOfEachKey:
    def test_nothing_due_is_a_success_without_a_word(self, cli: Cli, sunk: Path) -> None:
        """A cron line with nothing to do prints nothing and exits 0."""
        make(cli)
        result = cli("rotate", "--due", "-o", "jsonl")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
        assert list(sunk.iterdir()) == []

    def test_blocked_and_expired_keys_are_skipped(self, cli: Cli, sunk: Path) -> None:
        """A key that is not in use is never revived by its rotation."""
        blocked, expired = make(cli), make(cli, "--duration", "1h")
        cli("block", blocked, check=True)
        make_due(cli)
        cli.execute(
            f"UPDATE keys SET expires = '2021-01-01 00:00:00.000000' WHERE id = '{expired}'"
        )

        result = cli("rotate", "--due", "-o", "jsonl")

        assert result.exit_code == 0
        assert {
            (line["key_id"], line["result"], line["reason"]) for line in lines(result.stdout)
        } == {
            (blocked, "skipped", "blocked"),
            (expired, "skipped", "expired"),
        }
        assert list(sunk.iterdir()) == []

    def test_a_key_that_fails_stops_none_of_the_others(self, cli: Cli, sunk: Path) -> None:
        """A broken sink costs its own key only; the exit status tells that one failed."""
        good = make(cli, "--alias", "good")
        made = cli(
            *("generate", "--auto-rotate", "--rotation-interval", "30d", "--alias", "bad"),
            *("-o", "json"),
            check=True,
        ).json
        cli.execute("UPDATE keys SET sink = 'broken' WHERE key_alias = 'bad'")
        make_due(cli)

        result = cli("rotate", "--due", "-o", "jsonl")

        assert result.exit_code == 9
        told = {
            line["key_alias"]: (line["result"], line["reason"]) for line in lines(result.stdout)
        }
        assert told["good"] == ("rotated", None)
        assert (told["bad"][0], "ended with status 1" in told["bad"][1]) == ("failed", True)
        assert "1 rotated, 0 skipped, 1 failed" in result.stderr
        assert [path.name for path in sunk.iterdir()] == [good]
        assert cli.verdict(made["key"])["secret_state"] == "active"

    def test_without_a_sink_a_key_is_failed_and_untouched(self, cli: Cli) -> None:
        """A key that only a person could receive is not rotated by cron."""
        key = cli(
            *("generate", "--auto-rotate", "--rotation-interval", "30d", "-o", "json"), check=True
        ).json
        make_due(cli)

        result = cli("rotate", "--due", "-o", "jsonl")

        assert (result.exit_code, result.json["result"], result.json["reason"]) == (
            9,
            "failed",
            "no_sink",
        )
        assert cli.verdict(key["key"])["secret_state"] == "active"
        assert len(cli.secrets()[key["key_id"]]) == 1

    def test_an_archived_key_is_not_due(self, cli: Cli, sunk: Path) -> None:
        """A deleted key is nobody's business any more."""
        cli("delete", make(cli), check=True)
        make_due(cli)
        assert cli("rotate", "--due", "-o", "jsonl", check=True).stdout == ""
        assert list(sunk.iterdir()) == []


class TestHowMuch:
    def test_max_leaves_the_rest(self, cli: Cli, sunk: Path) -> None:
        """--max N rotates N and leaves the others due; --fail-if-due makes that exit 10."""
        for _ in range(3):
            make(cli)
        make_due(cli)

        result = cli("rotate", "--due", "--max", "2", "--fail-if-due", "-o", "jsonl")

        assert (result.exit_code, len(lines(result.stdout)), len(list(sunk.iterdir()))) == (
            10,
            2,
            2,
        )
        rest = cli("rotate", "--due", "--fail-if-due", "-o", "jsonl")
        assert (rest.exit_code, len(lines(rest.stdout))) == (0, 1)

    def test_a_dry_run_shows_and_does_nothing(self, cli: Cli, sunk: Path) -> None:
        """--dry-run lists what is due and writes neither key nor event."""
        key_id = make(cli)
        make_due(cli)
        before = cli("audit", "head", "-o", "json", check=True).json

        result = cli("rotate", "--due", "--dry-run", "-o", "jsonl", check=True)

        assert [(line["key_id"], line["result"]) for line in lines(result.stdout)] == [
            (key_id, "due")
        ]
        assert cli("audit", "head", "-o", "json", check=True).json == before
        assert list(sunk.iterdir()) == []

    def test_a_dry_run_with_max_shows_so_many(self, cli: Cli, sunk: Path) -> None:
        """--dry-run --max 2 of three due keys shows two, as the run would rotate two."""
        for _ in range(3):
            make(cli)
        make_due(cli)

        result = cli("rotate", "--due", "--dry-run", "--max", "2", "-o", "jsonl", check=True)

        assert [line["result"] for line in lines(result.stdout)] == ["due"] * 2

    def test_no_key_is_begun_after_the_deadline(self, cli: Cli, sunk: Path) -> None:
        """After --deadline keys are left for the next run; a bad deadline is exit 2."""
        make(cli)
        make_due(cli)
        bad = cli("rotate", "--due", "--deadline", "5 minutes", "-o", "json")
        assert (bad.exit_code, bad.stdout) == (2, "")
        assert cli("rotate", "--due", "--deadline", "5m", check=True).exit_code == 0
        assert len(list(sunk.iterdir())) == 1

    def test_a_deadline_of_a_month_is_no_deadline_of_none(self, cli: Cli, sunk: Path) -> None:
        """Months have no seconds of their own: they are counted as 31 days."""
        make(cli)
        make_due(cli)

        cli("rotate", "--due", "--deadline", "1mo", check=True)

        assert len(list(sunk.iterdir())) == 1

    def test_sigterm_finishes_the_current_key_and_stops(self, cli: Cli, sunk: Path) -> None:
        """A terminated run ends the key that it is on, releases the others and is exit 130."""
        for _ in range(3):
            make(cli)
        make_due(cli)
        process = subprocess.Popen(
            [*STEPPER, "delivered", "SIGTERM", "--", "rotate", "--due", "-o", "jsonl"],
            env=cli.environment,
            cwd=cli.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = process.communicate(timeout=60)

        assert process.returncode == 130, err
        assert [line["result"] for line in lines(out.decode())] == ["rotated"]
        assert len(list(sunk.iterdir())) == 1
        again = cli("rotate", "--due", "-o", "jsonl", check=True)
        assert [line["result"] for line in lines(again.stdout)] == ["rotated"] * 2


class TestBadInput:
    @pytest.mark.parametrize("grace", ["30days", "-1", "", "0d", "1.5h", "soon"])
    def test_a_bad_grace_period_is_refused_before_anything(
        self, cli: Cli, sunk: Path, grace: str
    ) -> None:
        """A grace period that cannot be read never kills an old key: exit 2, nothing written."""
        key_id = make(cli)
        make_due(cli)
        for command in (["rotate", key_id], ["rotate", "--due"]):
            result = cli(*command, "--grace", grace, "-o", "json")
            assert (result.exit_code, result.stdout) == (2, "")
        assert {len(states) for states in cli.secrets().values()} == {1}
        assert list(sunk.iterdir()) == []

    def test_an_unknown_sink_is_refused(self, cli: Cli, sunk: Path) -> None:
        """A sink that the configuration does not name is an error before anything is written."""
        key_id = make(cli)
        result = cli("rotate", key_id, "--deliver", "nowhere", "-o", "json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert len(cli.secrets()[key_id]) == 1
        assert list(sunk.iterdir()) == []

    @pytest.mark.parametrize("state", ["blocked", "expired", "deleted"])
    def test_a_key_out_of_use_is_not_rotated(self, cli: Cli, sunk: Path, state: str) -> None:
        """Rotation refuses what is blocked, expired or deleted: never a revival."""
        key_id = make(cli, "--duration", "1h")
        if state == "expired":
            cli.execute("UPDATE keys SET expires = '2021-01-01 00:00:00.000000'")
        else:
            cli({"blocked": "block", "deleted": "delete"}[state], key_id, check=True)

        result = cli("rotate", key_id, "-o", "json")

        assert (result.exit_code, result.stdout, result.error["code"]) == (4, "", "policy_denied")
        assert [item["rule"] for item in result.error["violations"]] == ["key.rotatable"]
        assert len(cli.secrets()[key_id]) == 1
        assert list(sunk.iterdir()) == []

    def test_of_a_blocked_key_says_what_helps(self, cli: Cli) -> None:
        """Without the name of the rule, which nobody can step over."""
        key_id = make(cli)
        cli("block", key_id, check=True)

        result = cli("rotate", key_id, "--grace", "none")

        assert (result.exit_code, result.stderr.splitlines()) == (
            4,
            [
                "error: the key is blocked, and a rotation revives nothing",
                (
                    f"hint: keyctl delete {key_id} && keyctl generate …, or keyctl unblock {key_id}"
                    f" and then keyctl rotate {key_id} --grace none"
                ),
            ],
        )
