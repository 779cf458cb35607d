"""No wrong word is read as success: every option and argument of every command, walked by program."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_tree import commands
from harness import Cli
from inside import Inside

# What a command is given besides, so that only the word under test is wrong.
BESIDE = {
    "info": "one",
    "update": "one --rpm-limit 3",
    "block": "--yes",
    "unblock": "--yes",
    "delete": "--yes",
    "revoke": "one",
    "rotate": "one",
    "spend": "--add 1",
    "budget create": "new",
    "budget update": "small --rpm-limit 3",
    "budget reset": "--due",
    "team create": "new",
    "team update": "web --rpm-limit 3",
    "team delete": "web --yes",
    "team add-member": "web ann",
    "team update-member": "web ann --rpm-limit 3",
    "team remove-member": "web ann",
    "user create": "new",
    "user update": "ann --rpm-limit 3",
    "user delete": "ann --yes",
    "org create": "new",
    "org update": "acme --rpm-limit 3",
    "org delete": "acme --yes",
    "org add-member": "acme ann",
    "org remove-member": "acme ann",
    "plan": "fleet.yaml",
    "apply": "fleet.yaml",
    "import litellm": "--source-file dump.json",
    "audit verify": "--expect-head " + "0" * 64,
    "events discard": "--reason x",
}
# Where the word under test needs other company than its command's usual one.
INSTEAD = {
    ("update", "--state"): "--rpm-limit 3 --yes",
    ("update", "--set-user"): "--user ann --yes",
    ("update", "--with-alias"): "--rpm-limit 3 --yes",
    ("update", "--with-tag"): "--rpm-limit 3 --yes",
    ("update", "--with-model"): "--rpm-limit 3 --yes",
    ("update", "--expect-count"): "--rpm-limit 3 --team web --yes",
    ("update", "--override"): "one --rpm-limit 3 --reason x",
    ("update", "--administers"): "one",
    ("rotate", "--team"): "--yes",
    ("rotate", "--user"): "--yes",
    ("rotate", "--org"): "--yes",
    ("rotate", "--state"): "--yes",
    ("rotate", "--deadline"): "--due",
    ("rotate", "--max"): "--due",
    ("rotate", "--out-format"): "one --out-file x",
    ("generate", "--override"): "--reason x",
    ("generate", "--rotation-interval"): "--auto-rotate",
    ("generate", "--count"): "--alias x-{n}",
    ("spend", "--add"): "one",
    **{(f"{noun} create", "--from"): "" for noun in ("team", "user", "org")},
    ("apply", "--plan"): "",
    ("import litellm", "--drop"): "--source-file dump.json --reason x",
    ("import litellm", "--override"): "--source-file dump.json --reason x",
    ("import litellm", "--source-file"): "",
    ("import litellm", "--source-url"): "",
    ("audit verify", "--expect-head"): "--at-seq 1",
}
# A word that is wrong for each option, the exit statuses that say so, and what the hint has.
MONEY = ("much", 2, "such as 50")
COUNT = ("several", 2, "--help")
LENGTH = ("5x", 2, "such as 30d")
NO_FILE = ("nowhere/file", 2, "check")
OPTIONS: dict[str, tuple[str, int, str]] = {
    "--team": ("wbe", 3, "did you mean web?"),
    "--user": ("anne", 3, "did you mean ann?"),
    "--set-user": ("anne", 3, "did you mean ann?"),
    "--with-alias": ("oen", 3, "did you mean one?"),
    "--with-tag": ("shpo", 3, "did you mean shop?"),
    "--with-model": ("gpt-4", 3, "did you mean gpt-4o?"),
    "--org": ("acm", 3, "did you mean acme?"),
    "--key": ("oen", 3, "did you mean one?"),
    "--issued-by": ("anne", 3, "did you mean ann?"),
    "--budget-id": ("smal", 3, "did you mean small?"),
    "--deliver": ("fil", 2, "did you mean file?"),
    "--hook": ("sime", 3, "did you mean siem?"),
    "--actor": ("nobody", 3, "local:USER@HOST"),
    "--object": ("nothing", 3, "keyctl audit list"),
    "--action": ("key_generate", 2, "did you mean key_generated"),
    "--state": ("blockd", 2, "did you mean blocked?"),
    "--role": ("admn", 2, "did you mean"),
    "--keys": ("blok", 2, "did you mean block?"),
    "--key-type": ("llm_apis", 2, "did you mean llm_api?"),
    "--rpm-limit-type": ("guaranted", 2, "did you mean guaranteed_throughput?"),
    "--tpm-limit-type": ("guaranted", 2, "did you mean guaranteed_throughput?"),
    "--out-format": ("jsn", 2, "did you mean json?"),
    "--output": ("jsn", 2, "did you mean json"),
    "--columns": ("crated_at", 2, "columns are"),
    "--sort": ("-crated_at", 2, "columns are"),
    "--clear": ("rpm_limt", 2, "did you mean rpm_limit"),
    "--override": ("team.modles", 2, "did you mean team.models"),
    "--only": ("team/wbe", 2, "did you mean team/web?"),
    "--fleet": ("shpo", 3, "did you mean shop?"),
    "--drop": ("key.agent_idd", 2, "did you mean key.agent_id"),
    "--remove-model": ("gpt-5", 3, "did you mean gpt-4o?"),
    "--remove-tag": ("shpo", 3, "did you mean shop?"),
    "--administers": ("nosecret", 3, "keyctl info"),
    "--allowed-route": ("llm_api_rotes", 2, "keyctl schema"),
    "--env-var": ("no name", 2, "OPENAI_API_KEY"),
    "--expires": ("soon", 2, "2026-12-01"),
    "--expires-before": ("soon", 2, "2026-12-01"),
    "--created-after": ("soon", 2, "2026-12-01"),
    "--unused-for": ("5x", 2, "7d"),
    "--since": ("soon", 2, "2026-12-01"),
    "--until": ("soon", 2, "2026-12-01"),
    "--duration": ("5x", 2, "keyctl schema"),
    "--budget-duration": ("dayly", 2, "keyctl schema"),
    "--rotation-interval": ("5x", 2, "keyctl schema"),
    "--grace": ("5x", 2, "one of s m h d w mo, such as 30d"),
    "--deadline": LENGTH,
    "--older-than": LENGTH,
    "--add": MONEY,
    "--max-budget": MONEY,
    "--soft-budget": MONEY,
    "--spend": MONEY,
    **dict.fromkeys(
        (
            *("--rpm-limit", "--tpm-limit", "--tpd-limit", "--max-parallel-requests"),
            *("--count", "--max", "--limit", "--expect-count", "--at-seq"),
        ),
        COUNT,
    ),
    **dict.fromkeys(
        ("--metadata", "--permission", "--model-rpm-limit", "--model-tpm-limit"),
        ("nopair", 2, "such as"),
    ),
    **dict.fromkeys(("--request", "--key-file", "--from", "--caller-key-file", "--plan"), NO_FILE),
    "--policy": ("nowhere/file", 2, ""),
    "--source-file": NO_FILE,
    "--config": ("nowhere/file", 2, "--config"),
    "--database-url": ("nonsense", 2, "sqlite:////"),
    "--source-url": ("nonsense", 2, "sqlite:////"),
    "--target-url": ("nonsense", 2, "sqlite:////"),
    "--expect-head": ("abc", 2, "keyctl audit head"),
    "--email": ("nobody", 2, "keyctl schema user"),
}
# What may be any text, and why.
FREE = {
    "--name": "what people call it",
    "--alias": "a new name; as a filter it is in CLOSER",
    "--reason": "text for the audit trail",
    "--changed-by": "a person outside keyctl",
    "--request-id": "the script's own",
    "--search": "any part of anything: nothing found is an answer",
    "--tag": "a new one; as a filter it is in CLOSER",
    "--model": "models are the gateway's; as a filter it is in CLOSER",
    "--models": "models are the gateway's",
    "--add-model": "models are the gateway's",
    "--add-tag": "a new one",
    "--guardrail": "guardrails are the gateway's",
    "--policy-name": "policies are the gateway's",
    "--prompt": "prompts are the gateway's",
    "--allowed-cache-control": "a header's words, which the gateway knows",
    "--enforced-param": "a parameter of requests, which the gateway knows",
    "--after": "a place in an order, also where what stood there is gone",
    "--out-file": "a new file",
    "--out-dir": "a new folder",
}
CLOSER = (
    ("list --alias oen", 3, "did you mean one?"),
    ("list --tag shpo", 3, "did you mean shop?"),
    ("list --model gpt-4", 3, "did you mean gpt-4o?"),
    ("block --alias oen --yes", 3, "did you mean one?"),
    ("delete --tag shpo --yes", 3, "did you mean shop?"),
    ("rotate --model gpt-4 --yes", 3, "did you mean gpt-4o?"),
    ("list --after nowhere", 2, "`next`"),
    ("audit list --after nowhere", 2, "`next`"),
    ("events list --after nowhere", 2, "`next`"),
    ("db check --after nowhere", 2, "`next`"),
    ("remind --after nowhere", 2, "`next`"),
    ("remind --after 1 --sort event", 2, "--all"),
    ("db check --repair --after 1 --sort command", 2, "--all"),
    ("audit list --diff --columns seq", 2, "-o json"),
    ("update-member web anne", 2, "keyctl --help"),
    ("team update web --policy nowhere/file", 2, "check the path"),
    ("team add-member web anne", 3, "did you mean ann?"),
    ("team update-member web anne --rpm-limit 3", 3, "did you mean ann?"),
    ("team remove-member web anne", 3, "did you mean ann?"),
    ("org remove-member acme anne", 3, "did you mean ann?"),
    ("revoke one nosecret", 3, "keyctl info"),
    ("help team creat", 2, "did you mean create?"),
    ("plan fleet.yaml --only team/web --only team/wbe", 2, "did you mean team/web?"),
)
# The first argument of each command that takes one.
ARGUMENTS: dict[str, tuple[str, int, str]] = {
    **dict.fromkeys(
        ("info", "update", "block", "unblock", "delete", "revoke", "rotate", "spend"),
        ("oen", 3, "did you mean one?"),
    ),
    **dict.fromkeys(
        (
            *("team info", "team update", "team delete", "team add-member"),
            *("team update-member", "team remove-member"),
        ),
        ("wbe", 3, "did you mean web?"),
    ),
    **dict.fromkeys(("user info", "user update", "user delete"), ("anne", 3, "did you mean ann?")),
    **dict.fromkeys(
        ("org info", "org update", "org delete", "org add-member", "org remove-member"),
        ("acm", 3, "did you mean acme?"),
    ),
    **dict.fromkeys(
        ("budget info", "budget update", "budget delete"), ("smal", 3, "did you mean small?")
    ),
    "list": ("web", 2, "keyctl list --team web"),
    "verify": ("one", 2, "keyctl verify -"),
    "schema": ("update-reqest", 2, "did you mean update-request"),
    "help": ("genrate", 2, "did you mean generate"),
    "events retry": ("evt_x", 3, "keyctl events list"),
    "events discard": ("evt_x", 3, "keyctl events list"),
    "plan": NO_FILE,
    "apply": NO_FILE,
    "db backup": ("nowhere/file", 6, "check"),
}
# Declared once for all commands: tried with one.
SHARED = {"--output", "--database-url", "--config", "--caller-key-file"}
NEW = {"team create", "user create", "org create", "budget create"}


@pytest.fixture(name="world")
def _world(inside: Inside, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """One of everything, under short names."""
    cli.configure(
        f'bcrypt_cost = 4\n[sinks.file]\ntype = "file"\npath = "{cli.home}/key-{{alias}}"\n'
        '[hooks.siem]\ntype = "command"\nargv = ["true"]\nevents = ["user_updated"]\n'
    )
    monkeypatch.chdir(cli.home)
    Path("fleet.yaml").write_text("version: 1\nteams: {web: {adopt: true}}\n")
    Path("shop.yaml").write_text("version: 1\nfleet: shop\nusers: {bob: {}}\n")
    Path("dump.json").write_text(json.dumps({"keys": []}))
    for line in (
        "org create acme",
        "team create web --org acme",
        "user create ann",
        "team add-member web ann",
        "org add-member acme ann",
        "budget create small --max-budget 5",
        "generate --alias one --team web --user ann --model gpt-4o --tag shop",
        "apply shop.yaml",
    ):
        inside(*line.split(), check=True)
    return inside


def wrong_words() -> Iterator[tuple[list[str], int, str]]:
    """Yield each command line with one wrong word in it, the exit status, and what the hint says."""
    for words, command in commands():
        for item in command.params:
            if getattr(item, "is_flag", False) or item.opts[0] in FREE:
                continue
            if item.opts[0] in SHARED and words != "list":
                continue
            if item.param_type_name == "option":
                wrong, status, hint = OPTIONS[item.opts[0]]
                beside = INSTEAD.get((words, item.opts[0]), BESIDE.get(words, ""))
                yield [*words.split(), *shlex.split(beside), item.opts[0], wrong], status, hint
        if words in ARGUMENTS:
            wrong, status, hint = ARGUMENTS[words]
            rest = shlex.split(BESIDE.get(words, ""))
            if rest and not rest[0].startswith("-"):
                del rest[0]
            yield [*words.split(), wrong, *rest], status, hint
    for line, status, hint in CLOSER:
        yield line.split(), status, hint


def test_every_option_and_argument_is_spoken_for() -> None:
    """Each is tried below with a wrong word, or takes any text for a reason."""
    options = {
        item.opts[0]
        for _, command in commands()
        for item in command.params
        if item.param_type_name == "option" and not getattr(item, "is_flag", False)
    }
    takers = {
        words
        for words, command in commands()
        if any(item.param_type_name == "argument" for item in command.params)
    }

    assert options == {*OPTIONS, *FREE}
    assert takers == {*ARGUMENTS, *NEW}


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_no_wrong_word_is_read_as_success(world: Inside) -> None:
    """Exit 2 or 3, nothing on stdout, what is meant or accepted in the hint, and nothing changed."""
    before = world("audit", "head", check=True).stdout
    wrong: list[tuple[Any, ...]] = []
    for arguments, status, hint in wrong_words():
        result = world(*arguments)
        if (result.exit_code, result.stdout) != (status, "") or hint not in result.stderr:
            wrong.append((arguments, status, hint, result))

    assert wrong == []
    assert world("audit", "head", check=True).stdout == before
