"""What outside scripts are written against: commands, JSON keys and exit codes that only grow."""

import csv
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import Cli
from inside import Inside

pytestmark = pytest.mark.in_process

KEYCTL = Path(sys.executable).with_name("keyctl")

RESPONSE = {
    "key", "key_alias", "key_name", "token_id", "token", "expires", "user_id", "team_id", "models",
    "max_budget", "soft_budget", "budget_reset_at", "auto_rotate", "rotation_interval",
    "key_rotation_at", "key_id",
}  # fmt: skip
VERDICT = {
    "valid", "reason", "key_id", "key_alias", "team_id", "user_id", "secret_id", "secret_state",
    "expires",
}  # fmt: skip
EVENT = {
    "seq", "at", "actor", "changed_by", "action", "object_type", "object_id", "before", "after",
    "reason",
}  # fmt: skip


@pytest.fixture(name="world")
def _world(cli: Cli, inside: Inside) -> Cli:
    """An organization, a team in it, two users, and a key of the team with every owner."""
    for command in (
        "org create acme --name Acme --model gpt-4o --max-budget 1000 --tpm-limit 100000 --rpm-limit 1000",
        "team create web --name Web --org acme --model gpt-4o --max-budget 100 --rpm-limit 500",
        "user create ada@example.com --email ada@example.com --role internal_user --max-budget 50",
        "user create tina --role internal_user",
        "org add-member acme ada@example.com --role internal_user",
        "org add-member acme tina --role org_admin",
        "team add-member web ada@example.com --role user",
        "team add-member web tina --role admin",
    ):
        inside(*command.split(), check=True)
    return cli


class TestGenerate:
    def test_a_pipe_gets_the_bare_key(self, world: Cli) -> None:
        """`KEY=$(keyctl generate --team web)` works: one line on stdout, 65 characters."""
        done = world("generate", "--team", "web", "--alias", "ci", check=True)

        assert done.stdout.count("\n") == 1
        assert len(done.stdout.strip()) == 65

    def test_json_has_litellm_s_names(self, world: Cli) -> None:
        """The answer has LiteLLM's names, and the ones that LiteLLM drops."""
        answer = world("generate", "--team", "web", "-o", "json", check=True).json

        assert answer.keys() >= RESPONSE
        assert answer["token_id"] == answer["token"] == answer["key_id"]

    @pytest.mark.parametrize(
        "body",
        [
            {"models": ["gpt-4o"], "aliases": {}, "duration": "20m", "metadata": {"app": "x"}},
            {"key_alias": "my-app-key", "max_budget": 100.0, "budget_duration": "30d"},
        ],
    )
    def test_a_request_body_is_litellm_s(self, cli: Cli, body: dict[str, Any]) -> None:
        """`--request -` takes LiteLLM's JSON body unchanged."""
        done = cli("generate", "--request", "-", "-o", "json", input=json.dumps(body))

        assert done.exit_code == 0, done
        assert done.json["models"] == body.get("models", [])

    def test_a_count_is_one_document(self, world: Cli) -> None:
        """`--count -o json` is one document with what was made and what was not."""
        done = world(
            "generate",
            "--team",
            "web",
            "--count",
            "3",
            "--alias",
            "ci-{n}",
            "-o",
            "json",
            check=True,
        )

        assert done.json.keys() >= {"keys", "failed"}
        assert [key["key_alias"] for key in done.json["keys"]] == ["ci-1", "ci-2", "ci-3"]
        assert done.json["failed"] == []

    def test_rows_come_from_a_file(self, world: Cli) -> None:
        """`--from FILE.csv --out-dir DIR` makes a key a row, each in a file of mode 0600 named by its alias."""
        (world.home / "people.csv").write_text(
            "key_alias,team_id,max_budget\nann,web,5\nbob,web,6\n", "utf-8"
        )

        done = world(
            "generate", "--from", "people.csv", "--out-dir", "keys", "-o", "json", check=True
        )

        folder = world.home / "keys"
        assert [key["key_alias"] for key in done.json["keys"]] == ["ann", "bob"]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {
            "ann": 0o600,
            "bob": 0o600,
        }
        assert world.verdict((folder / "ann").read_text("utf-8").strip())["valid"]

    def test_a_folder_for_keys_that_are_not_made_is_not_left(self, world: Cli) -> None:
        """A list or a fleet that is denied leaves no empty folder; what was there before stays."""
        (world.home / "bad.csv").write_text(
            "key_alias,team_id,max_budget\nann,nowhere,5\n", "utf-8"
        )
        (world.home / "there").mkdir(mode=0o700)

        for folder in ("new/deep", "there"):
            denied = world("generate", "--from", "bad.csv", "--out-dir", folder)
            assert denied.exit_code != 0
        (world.home / "fleet.yaml").write_text(
            "version: 1\nkeys:\n  nightly: {team_id: nowhere}\n", "utf-8"
        )
        assert world("apply", "fleet.yaml", "--yes", "--out-dir", "new/deep").exit_code != 0

        assert (world.home / "new").exists() is False
        assert (world.home / "there").is_dir()

    def test_from_standard_input(self, world: Cli) -> None:
        """`--from -` reads JSON lines from stdin."""
        rows = '{"key_alias": "one", "team_id": "web"}\n{"key_alias": "two", "team_id": "web"}\n'

        done = world("generate", "--from", "-", "-o", "json", input=rows)

        assert done.exit_code == 0, done
        assert [key["key_alias"] for key in done.json["keys"]] == ["one", "two"]

    @pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "PYTHONPATH", "BASH_ENV", "IFS"])
    def test_an_env_var_that_changes_programs_is_refused(self, cli: Cli, name: str) -> None:
        """`--env-var` takes no name that changes how programs run."""
        done = cli("generate", "-o", "env", "--env-var", name)

        assert (done.exit_code, done.stdout) == (2, "")


class TestKeys:
    def test_verify(self, world: Cli) -> None:
        """A valid key is exit 0, any other exit 10; the fields are always the same."""
        key = world.key("--team", "web", "--alias", "ci")
        good = world("verify", "-", "-o", "json", input=key)
        bad = world("verify", "-", "-o", "json", input="sk-no-such-key-anywhere")

        assert (good.exit_code, good.json["valid"], good.json["reason"]) == (0, True, None)
        assert (bad.exit_code, bad.json["valid"], bad.json["reason"]) == (10, False, "unknown")
        assert good.json.keys() >= VERDICT

    def test_list_and_info(self, world: Cli) -> None:
        """A list has keys and the next cursor; a key has its state and its secrets."""
        world.key("--team", "web", "--alias", "ci")

        listed = world("list", "--team", "web", "-o", "json", check=True).json
        info = world("info", "ci", "-o", "json", check=True).json

        assert listed.keys() >= {"keys", "next"}
        assert (listed["next"], [key["key_alias"] for key in listed["keys"]]) == (None, ["ci"])
        assert info["state"] == "active"
        assert "last_used_at" in info
        assert info["secrets"][0].keys() >= {
            "id",
            "state",
            "created_at",
            "not_after",
            "administers",
        }
        assert (
            info["secrets"][0]["administers"] is True or info["secrets"][0]["administers"] is False
        )

    def test_a_beginning_of_an_id_stands_for_it(self, world: Cli) -> None:
        """Eight characters or more of an id are enough where a KEY is read, and not with --yes."""
        world.key("--team", "web", "--alias", "ci")
        key_id = world("info", "ci", "-o", "json", check=True).json["key_id"]

        assert world("info", key_id[:12], "-o", "json", check=True).json["key_id"] == key_id
        assert world("delete", key_id[:12], "--yes").exit_code != 0

    def test_rotate(self, world: Cli) -> None:
        """The answer names the old secret and its end."""
        world.key("--team", "web", "--alias", "ci")

        done = world(
            "rotate", "ci", "--grace", "24h", "--out-file", "ci.key", "-o", "json", check=True
        )

        assert done.json.keys() >= {
            "key_id", "secret_id", "old_secret", "rotation_count", "key_rotation_at",
        }  # fmt: skip
        assert "key" not in done.json
        assert done.json["old_secret"].keys() >= {"id", "not_after"}

    @pytest.mark.parametrize("verb", ["block", "unblock", "delete", "revoke"])
    def test_changes_answer_alike(self, world: Cli, verb: str) -> None:
        """block, unblock, delete and revoke: one line for each KEY."""
        world.key("--team", "web", "--alias", "ci")
        if verb == "unblock":
            world("block", "ci", check=True)
        if verb == "revoke":
            world("rotate", "ci", "--grace", "1h", "--out-file", "ci.key", check=True)

        yes = ["--yes"] if verb == "delete" else []
        done = world(verb, "ci", *yes, "-o", "json", check=True)

        assert done.json["results"][0].keys() >= {"given", "key_id", "result", "reason"}

    def test_a_dry_run(self, world: Cli) -> None:
        """It says whether it is allowed, what speaks against it, and what would be written."""
        allowed = world("generate", "--team", "web", "--dry-run", "-o", "json")
        denied = world("generate", "--team", "web", "--model", "o1", "--dry-run", "-o", "json")

        assert (allowed.exit_code, allowed.json["allowed"]) == (0, True)
        assert (denied.exit_code, denied.json["allowed"]) == (4, False)
        assert allowed.json.keys() >= {"allowed", "violations", "record"}
        assert denied.json["violations"][0].keys() >= {"rule", "field", "message", "bound", "value"}

    def test_an_error_is_one_object(self, cli: Cli) -> None:
        """With -o json the error is one object on stderr, and stdout stays empty."""
        done = cli("info", "nothing", "-o", "json")

        assert (done.exit_code, done.stdout) == (3, "")
        assert done.error.keys() >= {"code", "exit_code", "message", "hint", "violations"}

    def test_update_takes_a_merge_patch(self, world: Cli) -> None:
        """`update KEY --request -` changes what is named."""
        world.key("--team", "web", "--alias", "ci", "--max-budget", "50")

        world("update", "ci", "--request", "-", input='{"max_budget": 20}', check=True)

        assert world("info", "ci", "-o", "json", check=True).json["max_budget"] == 20

    def test_several_keys_and_filters(self, world: Cli) -> None:
        """`update` and `rotate` take several keys, and a team."""
        for alias in ("one", "two"):
            world.key("--team", "web", "--alias", alias)

        world("update", "one", "two", "--max-budget", "7", "--yes", check=True)
        both = world("list", "--team", "web", "-o", "json", check=True).json["keys"]
        world("update", "--team", "web", "--max-budget", "6", "--yes", check=True)
        after = world("list", "--team", "web", "-o", "json", check=True).json["keys"]

        assert {key["max_budget"] for key in both} == {7}
        assert {key["max_budget"] for key in after} == {6}

    def test_rotate_due_prints_a_line_a_key(self, world: Cli) -> None:
        """`rotate --due -o jsonl`: nothing due is exit 0 and nothing on stdout."""
        done = world("rotate", "--due", "-o", "jsonl")

        assert (done.exit_code, done.stdout) == (0, "")


class TestDirectory:
    def test_update_member(self, world: Cli) -> None:
        """A member has a budget and rates of their own in the team."""
        done = world(
            "team", "update-member", "web", "ada@example.com", "--max-budget", "5",
            "--budget-duration", "1d", "--rpm-limit", "10", "--tpm-limit", "1000", "--role", "user",
        )  # fmt: skip

        assert done.exit_code == 0, done

    def test_who_leaves_with_keys_is_asked_about_them(self, world: Cli) -> None:
        """`remove-member` is exit 5 naming the live keys, until --keys says what becomes of them."""
        world.key("--team", "web", "--user", "ada@example.com", "--alias", "adas")

        refused = world("team", "remove-member", "web", "ada@example.com")
        done = world("team", "remove-member", "web", "ada@example.com", "--keys", "block")

        assert refused.exit_code == 5
        assert "adas" in refused.stderr
        assert done.exit_code == 0, done
        assert world("info", "adas", "-o", "json", check=True).json["state"] == "blocked"

    @pytest.mark.parametrize("noun", ["team", "user", "org", "budget"])
    def test_what_does_not_exist_is_no_empty_answer(self, world: Cli, noun: str) -> None:
        """A name that nothing has is exit 3."""
        assert world(noun, "info", "nobody").exit_code == 3

    def test_filters_name_what_exists(self, world: Cli) -> None:
        """A filter that names nothing that exists is an error, never an empty list."""
        assert world("list", "--team", "nowhere").exit_code == 3
        assert world("list", "--user", "nobody").exit_code == 3
        assert world("delete", "--user", "nobody", "--yes").exit_code == 3
        assert world("list", "--state", "nonsense").exit_code == 2

    def test_budget_tiers(self, world: Cli) -> None:
        """`budget create | list | info | update | delete`, and a key that names one."""
        world(
            "budget", "create", "small", "--max-budget", "5", "--budget-duration", "1d", check=True
        )
        key = world("generate", "--request", "-", "-o", "json", input='{"budget_id": "small"}')

        assert key.exit_code == 0, key
        assert world("budget", "info", "small", "-o", "json").exit_code == 0
        assert world("budget", "update", "small", "--max-budget", "6").exit_code == 0
        assert world("budget", "list", "-o", "json").exit_code == 0
        assert world("budget", "delete", "small").exit_code == 5  # a key names it


class TestAudit:
    def test_list_head_verify_export(self, world: Cli) -> None:
        """Events have fixed names; money in them is a number; the state is what the chain says."""
        world.key("--team", "web", "--alias", "ci", "--max-budget", "50")
        events = world("audit", "list", "--action", "key_generated", "-o", "json", check=True).json
        head = world("audit", "head", "-o", "json", check=True).json

        assert events.keys() >= {"events", "next"}
        assert events["events"][0].keys() >= EVENT
        assert head.keys() >= {"seq", "head"}
        assert world("audit", "verify").exit_code == 0
        assert world("audit", "verify", "--state").exit_code == 0
        assert len(world("audit", "export", check=True).stdout.splitlines()) == head["seq"]
        staged = world("audit", "list", "--action", "key_staged", "-o", "json", check=True).json
        assert staged["events"][0]["after"]["max_budget"] == 50

    def test_state_finds_what_was_written_past_keyctl(self, world: Cli) -> None:
        """A role that was changed by SQL is exit 11, and named."""
        world.execute("UPDATE users SET role = 'proxy_admin' WHERE id = 'tina'")

        done = world("audit", "verify", "--state")

        assert done.exit_code == 11
        assert "tina" in done.stdout + done.stderr
        assert "role" in done.stdout + done.stderr


class TestSchemas:
    def test_fields(self, cli: Cli) -> None:
        """Every limit names who enforces it, and its order."""
        rows = cli("schema", "fields", "-o", "json", check=True).json

        assert rows
        for row in rows:
            assert row.keys() >= {"field", "of", "enforced_by", "order", "note"}
            assert row["enforced_by"] in ("verifier", "proxy", "keyctl", "nobody")
            assert row["order"] in ("cap", "subset", "keep", "admin", "inert")
            assert isinstance(row["of"], list)

    @pytest.mark.parametrize("name", ["rules", "authority", "fleet", "generate-request"])
    def test_names(self, cli: Cli, name: str) -> None:
        """`keyctl schema NAME` prints what is asked for."""
        assert cli("schema", name).exit_code == 0


class TestFleets:
    def test_plan_apply_export(self, world: Cli) -> None:
        """plan is 10 when something is to do; after apply it is 0; export is what apply would take."""
        (world.home / "fleet.yaml").write_text(
            "version: 1\nteams:\n  data: {models: [gpt-4o], max_budget: 10}\n"
            "keys:\n  nightly: {team_id: data, max_budget: 2}\n",
            "utf-8",
        )

        before = world("plan", "fleet.yaml", "-o", "json")
        done = world("apply", "fleet.yaml", "--yes", "--out-dir", "keys")
        after = world("plan", "fleet.yaml", "-o", "json")

        assert (before.exit_code, done.exit_code, after.exit_code) == (10, 0, 0), (
            before,
            done,
            after,
        )
        assert before.json.keys() >= {"changes", "summary", "head"}
        assert before.json["changes"][0].keys() >= {
            "action", "object_type", "object_id", "fields", "violations",
        }  # fmt: skip
        assert before.json["summary"].keys() >= {
            "create", "update", "delete", "adopt", "unchanged",
        }  # fmt: skip
        assert before.json["head"].keys() >= {"seq", "head"}
        exported = world("export", check=True).stdout
        assert world("plan", "-", input=exported).exit_code == 0

    def test_a_folder_without_fleet_files(self, cli: Cli) -> None:
        """It is no empty fleet: exit 2."""
        (cli.home / "empty").mkdir()

        assert cli("plan", "empty").exit_code == 2


class TestOperations:
    def test_metrics(self, world: Cli) -> None:
        """OpenMetrics text; every name begins with keyctl_."""
        world.key("--team", "web", "--alias", "ci")

        done = world("metrics", check=True)

        names = {
            line.split("{")[0].split(" ")[0] for line in done.stdout.splitlines() if line[0] != "#"
        }
        assert all(name.startswith("keyctl_") for name in names)
        assert names >= {"keyctl_keys", "keyctl_audit_head_seq", "keyctl_check_findings"}
        assert done.stdout.endswith("# EOF\n")

    def test_backup(self, world: Cli, kind: str) -> None:
        """A whole copy of SQLite, never over a file; PostgreSQL has pg_dump."""
        world.key("--team", "web", "--alias", "ci")

        done = world("db", "backup", "copy.db")
        again = world("db", "backup", "copy.db")

        if kind == "sqlite":
            assert (done.exit_code, again.exit_code) == (0, 5)
        else:
            assert done.exit_code == 2
            assert "pg_dump" in done.stderr

    def test_copy(self, world: Cli, tmp_path: Path) -> None:
        """`db copy` fills an empty database; key strings and the chain stay valid."""
        key = world.key("--team", "web", "--alias", "ci")
        target = f"sqlite:///{tmp_path}/copied.db"

        done = world("db", "copy", environment={"KEYCTL_TARGET_URL": target})
        verified = world("verify", "-", input=key, environment={"KEYCTL_DATABASE_URL": target})

        assert done.exit_code == 0, done
        assert verified.exit_code == 0, verified

    @pytest.mark.parametrize(
        "command",
        ["remind --dry-run", "status", "status -o json", "help", "help generate", "version",
         "db check -o json", "db status -o json", "events list -o json", "config show -o json"],
    )  # fmt: skip
    def test_is_there(self, world: Cli, command: str) -> None:
        """Each of these is a command, and says nothing bad of a healthy database."""
        done = world(*command.split())

        assert done.exit_code == 0, done

    def test_moments_have_one_grammar(self, world: Cli) -> None:
        """A duration, a date, a word and an instant, in every option that takes a moment."""
        for moment in ("7d", "2026-12-01", "yesterday", "today", "2026-12-01T00:00:00Z"):
            assert world("audit", "list", "--since", moment).exit_code == 0, moment
        assert world("list", "--expires-before", "2099-01-01").exit_code == 0

    def test_a_reader_that_closes_early_is_no_error(self, world: Cli) -> None:
        """`audit export | head -1` is silent, and exit 0."""
        for number in range(3):
            world.key("--team", "web", "--alias", f"k{number}")

        done = subprocess.run(
            ["bash", "-c", f"{KEYCTL} audit export | true; exit ${{PIPESTATUS[0]}}"],
            env={**os.environ, **world.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert (done.returncode, done.stderr) == (0, "")

    def test_csv_is_inert(self, world: Cli) -> None:
        """A spreadsheet takes no cell for a formula."""
        world("generate", "--team", "web", "--alias", "=1+1", check=True)

        rows = list(csv.DictReader(io.StringIO(world("list", "-o", "csv", check=True).stdout)))

        assert rows[0]["key_alias"] != "=1+1"


class TestCallers:
    def test_an_empty_caller_is_refused(self, cli: Cli) -> None:
        """A missing CI secret is no admin."""
        assert cli("list", environment={"KEYCTL_API_KEY": ""}).exit_code == 2

    def test_a_key_made_for_another_administers_nothing(self, world: Cli) -> None:
        """What a team admin makes for a member authenticates at a gateway, and is no caller."""
        tina = world.key("--user", "tina", "--team", "web", "--alias", "tinas")
        acting = {"KEYCTL_API_KEY": tina}

        promoted = world("user", "create", "q", "--role", "proxy_admin", environment=acting)
        for_ada = world(
            "generate", "--team", "web", "--user", "ada@example.com", environment=acting
        )

        assert promoted.exit_code == 4
        assert for_ada.exit_code == 4  # create_member_keys is off

    def test_a_ceiling(self, world: Cli) -> None:
        """A non-admin's new key has no more than the caller's own."""
        tina = world.key(
            "--user", "tina", "--team", "web", "--max-budget", "5", "--budget-duration", "30d",
            "--duration", "1h",
        )  # fmt: skip
        acting = {"KEYCTL_API_KEY": tina}

        faster = world(
            "generate", "--team", "web", "--max-budget", "5", "--budget-duration", "1s",
            environment=acting,
        )  # fmt: skip
        longer = world("generate", "--team", "web", "--duration", "2d", environment=acting)

        assert (faster.exit_code, longer.exit_code) == (4, 4)
