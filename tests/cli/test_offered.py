"""Every option that a command offers can be given there: what is always refused is not offered."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from command_tree import commands, places_of
from harness import Cli
from inside import Inside

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

WORLD: Final = """
    org create acme
    user create ann
    user create bob
    team create web --org acme
    team create other
    team add-member web ann
    org add-member acme bob
    budget create small --max-budget 5
    generate --alias one --team web --user ann --deliver file --model gpt-4o
    apply {fleet}
"""
# Options of all commands, of all lists and of all that chooses keys: other tests go through these.
SHARED: Final = """
    --database-url --config --caller-key-file --changed-by --quiet --output --columns --sort --limit --after
    --team --user --org --state --alias --tag --model --search --expires-before --created-after --unused-for
    --over-budget --with-alias --with-tag --with-model
"""
# What is typed behind a command so that it runs; {…} stands for a file or an id.
ARGUMENTS: Final = {
    **dict.fromkeys(("info", "block", "unblock", "delete", "revoke", "rotate"), "one"),
    "update": "one --rpm-limit 3",
    "generate": "--alias new",
    "spend": "one",
    **dict.fromkeys((f"{noun} create" for noun in ("budget", "team", "user", "org")), "new"),
    **dict.fromkeys((f"budget {verb}" for verb in ("info", "update", "delete")), "small"),
    **dict.fromkeys((f"team {verb}" for verb in ("info", "update", "delete")), "other"),
    **dict.fromkeys((f"user {verb}" for verb in ("info", "update", "delete")), "ann"),
    **dict.fromkeys((f"org {verb}" for verb in ("info", "update", "delete")), "acme"),
    **dict.fromkeys((f"team {verb}-member" for verb in ("add", "remove")), "web ann"),
    "team update-member": "web ann --role user",
    **dict.fromkeys((f"org {verb}-member" for verb in ("add", "remove")), "acme bob"),
    "budget reset": "--due",
    "schema": "rules",
    "db backup": "{folder}/backup",
    "db copy": "--target-url sqlite:///{folder}/copy.db",
    "plan": "{fleet}",
    "apply": "{fleet}",
    "import litellm": "--source-file {dump}",
    "audit accept": "--reason reviewed",
    "events retry": "none",
    "events discard": "none --reason gone",
}
# Options that go with or without something else of their command.
LINES: Final = {
    ("generate", "--count"): "--alias new-{{n}} --count 2",
    ("generate", "--from"): "--from {rows}",
    ("generate", "--out-dir"): "--from {rows} --out-dir {folder}/made",
    ("generate", "--override"): "--override team.models --reason why",
    ("update", "--override"): "one --rpm-limit 3 --override team.models --reason why",
    ("update", "--administers"): "one --administers {secret}",
    ("update", "--yes"): "{key} --rpm-limit 3 --yes",
    ("update", "--request"): "one --request {fields}",
    ("update", "--remove-model"): "one --add-model gpt-4o-mini --remove-model gpt-4o",
    ("delete", "--yes"): "{key} --yes",
    ("rotate", "--max"): "--due --max 1",
    ("rotate", "--deadline"): "--due --deadline 1m",
    ("rotate", "--fail-if-due"): "--due --fail-if-due",
    ("rotate", "--due"): "--due",
    ("rotate", "--yes"): "{key} --yes --dry-run",
    ("revoke", "--yes"): "{key} --yes",
    ("budget update", "--request"): "small --request {fields}",
    ("budget create", "--request"): "new --request {fields}",
    ("team create", "--from"): "--from {teams}",
    ("user create", "--from"): "--from {people}",
    ("org create", "--from"): "--from {orgs}",
    ("apply", "--plan"): "--plan {plan}",
    ("apply", "--expect-count"): "{fleet} --prune --expect-count 0",
    ("audit list", "--since"): "--since 2020-01-01",
    ("audit export", "--since"): "--since 2020-01-01",
    ("audit verify", "--expect-head"): "--at-seq 1 --expect-head {head}",
    ("audit verify", "--at-seq"): "--at-seq 1 --expect-head {head}",
    ("events retry", "--all"): "--all",
    ("export", "--fleet"): "--fleet default",
    ("import litellm", "--source-url"): "--source-url sqlite:///{folder}/none.db",
    ("import litellm", "--source-file"): "--source-file {dump}",
    ("import litellm", "--override"): "--source-file {dump} --override team.models --reason why",
    ("import litellm", "--drop"): "--source-file {dump} --drop key.agent_id --reason why",
    ("db copy", "--abort"): "--abort",
    ("db copy", "--target-url"): "--target-url sqlite:///{folder}/copy.db",
}
# These read a key string; tests/cli/test_generate.py gives them one.
ELSEWHERE: Final = {
    (words, flag) for words in ("generate", "rotate") for flag in ("--key-stdin", "--key-file")
}
# What an option is given, by the name of its value in the help.
VALUES: Final = {
    "ACTION": "key_*",
    "ACTOR": "{actor}",
    "COLUMN": "a",
    "DIR": "{folder}/made",
    "DOLLARS": "5",
    "DURATION": "7d",
    "FIELD": "max_budget",
    "FILE": "{policy}",
    "FORM": "json",
    "HOOK": "away",
    "ID": "web",
    "KEY": "one",
    "KEY|USER": "ann",
    "MODEL": "gpt-4o",
    "NAME": "one",
    "NUMBER": "1",
    "RULE": "team.models",
    "ROLE": "user",
    "SINK": "file",
    "TAG": "blue",
    "TEXT": "one",
    "TYPE/ID": "team/spare",
    "URL": "sqlite:///{folder}/other.db",
    "USER": "bob",
    "WHEN": "2040-01-01",
    "block|delete|keep": "keep",
}


def offered() -> list[tuple[str, Any]]:
    """Return every command's options that are its own and set no field."""
    shared = set(SHARED.split())
    return [
        (words, item)
        for words, command in commands()
        for item in command.params
        if item.param_type_name == "option"
        and not shared.intersection(item.opts)
        and not item.name.startswith("field_")
        and (words, item.opts[0]) not in ELSEWHERE
    ]


def line_of(words: str, option: Any) -> str:
    """Return what is typed behind the command so that this option does something."""
    flag = option.opts[0]
    if (words, flag) in LINES:
        return LINES[words, flag]
    value = "" if option.is_flag else VALUES[option.metavar]
    if words == "org add-member" and flag == "--role":
        value = "org_admin"
    return f"{ARGUMENTS.get(words, '')} {flag} {value}"


@pytest.fixture(name="places")
def _places(cli: Cli, inside: Inside, tmp_path: Path) -> dict[str, str]:
    """A small world, and the files and ids that the command lines name."""
    places = places_of(cli)
    for line in WORLD.strip().splitlines():
        inside(*shlex.split(line.format(**places)), check=True)
    key = json.loads(inside("info", "one", "-o", "json").stdout)
    first = json.loads(inside("audit", "export", "-o", "jsonl").stdout.splitlines()[0])
    plan = inside("plan", places["fleet"], "-o", "json").stdout
    files = {"policy": "{}", "fields": '{"rpm_limit": 3}', "plan": plan}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return {
        **places,
        **{name: str(tmp_path / name) for name in (*files, "folder")},
        "key": key["key_id"],
        "secret": key["secrets"][0]["id"],
        "head": first["hash"],
        "actor": first["actor"],
    }


def test_no_option_is_offered_where_it_is_always_refused(
    cli: Cli, inside: Inside, tmp_path: Path, places: dict[str, str]
) -> None:
    """Each has a command line that is not exit 2; that a thing is taken or missing is another matter."""
    database = Path(str(cli.database_url).removeprefix("sqlite:///"))
    kept, folder = tmp_path / "kept", Path(places["folder"])
    inside("db", "backup", str(kept), check=True)
    refused = []

    for words, option in offered():
        for path in (database, Path(f"{database}-wal"), Path(f"{database}-shm")):
            path.unlink(missing_ok=True)
        shutil.copy(kept, database)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        typed = [text.format(**places) for text in shlex.split(line_of(words, option))]
        result = inside(*words.split(), *typed)
        if result.exit_code in (1, 2):
            refused.append((words, *typed, result.stderr))

    assert refused == []


def test_a_secret_that_administers_already_is_told_as_it_is(
    inside: Inside, places: dict[str, str]
) -> None:
    """`update --administers` is no change then, in words and in JSON."""
    told = inside("update", "one", "--administers", places["secret"], check=True)
    answered = inside("update", "one", "--administers", places["secret"], "-o", "json", check=True)

    assert told.stdout == f"{places['key']} (one): updated\n  as it was\n"
    assert json.loads(answered.stdout)["changes"] == {}
