"""Screens as files: every list and page as it looks at 80, 120 and 200 columns, coloured and not.

`KEYCTL_WRITE_SCREENS=1 pytest tests/cli/test_screens.py` writes them anew.  Look at what changed.
"""

import os
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from clock import Clock
from harness import Cli
from inside import Inside
from terminal import on_terminal

from keyctl.db import database
from keyctl.services import identity

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

SCREENS = Path(__file__).parent / "screens"
COMMANDS = {
    "list": ("list",),
    "list-wide": ("list", "-o", "wide"),
    "team-list": ("team", "list"),
    "user-list": ("user", "list"),
    "org-list": ("org", "list"),
    "audit-list": ("audit", "list", "--limit", "8"),
    "events-list": ("events", "list"),
    "db-check": ("db", "check"),
    "info": ("info", "checkout"),
    "team-info": ("team", "info", "web"),
    "user-info": ("user", "info", "alice@example.com"),
    "status": ("status",),
}
LOOKS: dict[str, tuple[int | None, dict[str, str]]] = {
    "80": (80, {}),
    "120": (120, {}),
    "200": (200, {}),
    "80-no-colour": (80, {"NO_COLOR": "1"}),
    "80-ascii": (80, {"LC_ALL": "C", "NO_COLOR": "1"}),
    "pipe": (None, {}),
}
# What a fleet is, and what becomes of it: a key made, one changed, one ended, one renamed.
FLEET = """\
organizations: {globex: {max_budget: 1000}}
users: {bob@example.com: {user_role: internal_user}}
teams:
  shop:
    organization_id: globex
    models: ["gpt-4*", "claude-*"]
    members: {bob@example.com: {role: admin}}
    policy: {upperbound_key_generate_params: {max_budget: 25}}
keys:
  till: {team_id: shop, max_budget: 20, models: [gpt-4o], duration: 30d, deliver: files}
  stock: {team_id: shop, user_id: bob@example.com, deliver: files}
  gone: {team_id: shop, deliver: files}
  old-name: {team_id: shop, tags: [night], deliver: files}
"""
CHANGES = (
    ("max_budget: 20, models: [gpt-4o]", "max_budget: 22, models: [gpt-4o, gpt-4o-mini]"),
    ("  gone: {team_id: shop, deliver: files}\n", ""),
    ("  old-name: {", "  new-name: {was: old-name, "),
    (
        "deliver: files}\n  stock",
        "deliver: files}\n  worker-{n}: {count: 2, team_id: shop, deliver: files}\n  stock",
    ),
    ("user_role: internal_user", "user_role: internal_user, max_budget: 50"),
)
# What differs from run to run, and what stands for it: as wide, so that columns stay where they are.
VARYING = (
    (re.compile(r"key_[0-9A-Za-z]{20}"), "key_" + "K" * 20),
    (re.compile(r"\bsk-[0-9A-Za-z]{12}"), "sk-" + "S" * 12),
    (re.compile(r"\b[0-9a-f]{64}\b"), "h" * 64),
    (re.compile(r"\b[0-9a-f]{12}(?=…|\.\.\.|~)"), "h" * 12),
    (re.compile(r"sqlite:\S+"), "sqlite:///keyctl.db"),
    (re.compile(r"(schema:? )1_\d+"), r"\g<1>1_0000"),
)


@pytest.fixture(name="settled_clock", autouse=True)
def _settled_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's clock for the whole program, and one name for whoever acts."""
    monkeypatch.setattr(database, "utcnow", clock)
    monkeypatch.setattr(identity, "local_actor", lambda: "local:me@here")


@pytest.fixture(name="world")
def _world(inside: Inside, clock: Clock) -> Inside:
    """An organization with a team, people and keys in several states, made a minute after each other."""
    for command in (
        ("org", "create", "acme", "--max-budget", "1000"),
        ("team", "create", "web", "--org", "acme", "--max-budget", "100", "--model", "gpt-4*"),
        ("user", "create", "alice@example.com"),
        ("team", "add-member", "web", "alice@example.com", "--role", "admin"),
        (
            *("generate", "--alias", "checkout", "--team", "web", "--user", "alice@example.com"),
            *("--max-budget", "20", "--duration", "30d", "--tag", "shop", "--model", "gpt-4o"),
        ),
        ("generate", "--alias", "nightly-report-of-all-regions", "--max-budget", "5"),
        ("generate", "--alias", "old"),
        ("spend", "checkout", "--add", "17.25"),
        ("spend", "nightly-report-of-all-regions", "--add", "5"),
        ("block", "old"),
        ("update", "checkout", "--max-budget", "50", "--add-model", "gpt-4o-mini"),
    ):
        inside(*command, check=True)
        clock.advance(timedelta(minutes=1))
    return inside


def settled(text: str, secrets: Sequence[str]) -> str:
    """Return *text* with what differs from run to run replaced."""
    for secret_id in secrets:
        text = text.replace(secret_id, "S" * 12)
    for pattern, stand_in in VARYING:
        text = pattern.sub(stand_in, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def compare(name: str, shown: str, secrets: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with a screen; write it instead where that is asked for."""
    path = SCREENS / f"{name}.txt"
    found = settled(shown.replace("\x1b", "\\e"), secrets) + "\n"
    if os.environ.get("KEYCTL_WRITE_SCREENS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found)
    elif found != path.read_text():
        yield f"{name}:\n{found}"


def test_every_list_and_page_looks_as_its_file_says(world: Inside) -> None:
    """All of them in each look, in one run."""
    keys = world("list", "-o", "json", check=True).json["keys"]
    secrets = [key["key_name"].removeprefix("sk-").removesuffix("…") for key in keys]
    wrong = [
        problem
        for look, (width, extra) in LOOKS.items()
        for name, command in COMMANDS.items()
        for problem in compare(
            f"{name}.{look}",
            world(*command, terminal=width, environment=extra, check=True).stdout,
            secrets,
        )
    ]

    assert wrong == []


def test_a_diff_looks_as_its_file_says(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that is new, one that is changed, and one that a rule is against, in each look; then what was done."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sunk").mkdir(mode=0o700)
    config, fleet = tmp_path / "keyctl.toml", tmp_path / "fleet.yaml"
    sink = f'[sinks.files]\ntype = "file"\npath = "{tmp_path}/sunk/{{key_id}}"\n'
    config.write_text(f"bcrypt_cost = 4\n{sink}")
    config.chmod(0o600)
    inside.environment["KEYCTL_CONFIG"] = str(config)
    changed = FLEET
    for old, new in CHANGES:
        assert old in changed
        changed = changed.replace(old, new)
    denied = changed.replace("max_budget: 22", "max_budget: 30")
    wrong: list[str] = []

    def look_at(name: str, *command: str, status: int) -> None:
        for look, (width, extra) in LOOKS.items():
            shown = inside(*command, "fleet.yaml", terminal=width, environment=extra)
            assert shown.exit_code == status, shown
            wrong.extend(compare(f"{name}.{look}", shown.stdout, []))

    inside("db", "upgrade", check=True)
    fleet.write_text(FLEET)
    look_at("plan-new", "plan", status=10)
    inside("apply", "fleet.yaml", check=True)
    fleet.write_text(changed)
    look_at("plan-changed", "plan", "--prune", status=10)
    fleet.write_text(denied)
    look_at("plan-denied", "plan", status=4)
    fleet.write_text(changed)
    done = inside("apply", "fleet.yaml", "--prune", "--yes", terminal=80, check=True)
    wrong.extend(compare("apply.80", done.stderr + done.stdout, []))
    look_at("plan-nothing", "plan", status=0)

    assert wrong == []


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_a_real_terminal_shows_the_same(
    world: Inside, cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """What this process shows is what a terminal gets from a process of its own."""
    monkeypatch.undo()

    shown = on_terminal(cli, "team", "info", "web", columns=columns)

    assert shown == world("team", "info", "web", terminal=columns, check=True).stdout
