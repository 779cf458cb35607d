"""The manual tells the truth: its commands work, its outputs are real, its tables are the code's."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest
from forkserver import forkserver
from harness import Cli
from manual import MANUAL, PAGES, ROOT, fenced, marked
from sqlalchemy import text

from keyctl import schemas
from keyctl.cli.app import Commands
from keyctl.cli.examples import EXAMPLES
from keyctl.config import file
from keyctl.config.document import Configuration
from keyctl.db.database import Database
from keyctl.errors import ExitCode
from keyctl.policy.documents import Policy

BIN = Path(sys.executable).parent
# Pages that are no part of the manual and have links, too.
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
EXAMPLE_URL = "postgresql://keyctl@db.example.com/keyctl"

# What differs from run to run, each with what stands for it.
CHANGING = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"key_[0-9A-Za-z]{20}", "KEY_ID"),
    (r"evt_[0-9A-Za-z]{22}", "EVENT_ID"),
    (r"sk-[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", "KEY"),
    (r"sk-[0-9A-Za-z]{12}…", "sk-ID…"),
    (r"(secret_id: )\S+", r"\1ID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC)", "TIME"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"local:\S+@\S+", "ACTOR"),
    (r" {2,}", "  "),
    (r"(?m) +$", ""),
    (r"(?m)^\d+(?=  TIME| HASH)", "SEQ"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language and its lines."""

    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the manual, the status it should end with and the output it should print."""

    text: str
    status: int
    output: str | None


def blocks(page: str) -> Iterator[Block]:
    """Yield a page's fenced blocks in order, without the two that install."""
    told = re.sub(r"(?s)<!-- (install|test):begin -->.*?<!-- \1:end -->", "", page)
    for found in re.finditer(r"(?ms)^```(\w+)\n(.*?)^```$", told):
        yield Block(found[1], tuple(found[2].splitlines()))


def commands(page: str) -> Iterator[Command]:
    """Yield what a reader would type: a whole ``sh`` block, or each ``$`` line of a ``console`` block.

    What a page takes for granted stands in a comment on top of it, ``<!-- setup … -->``.
    """
    if setup := re.search(r"(?s)<!-- setup\n(.*?)-->", page):
        yield Command(_script(setup[1]), 0, None)
    for block in blocks(page):
        if block.language == "sh":
            yield Command(_script("\n".join(block.lines)), 0, None)
        elif block.language == "console":
            yield from typed(block.lines)


def _script(text: str) -> str:
    return f"bash -euo pipefail <<'SCRIPT'\n{text}\nSCRIPT"


def typed(lines: tuple[str, ...]) -> Iterator[Command]:
    """Yield the commands of a ``console`` block with what the page shows below each."""
    starts = [index for index, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        own = [lines[start].removeprefix("$ ")]
        rest = list(lines[start + 1 : end])
        while rest and rest[0].startswith("> "):
            own.append(rest.pop(0).removeprefix("> "))
        first, _, note = own[0].partition("   # exit ")
        yield Command("\n".join([first, *own[1:]]), int(note or 0), "\n".join(rest))


def steady(output: str, home: Path) -> str:
    """Return *output* with what changes from run to run replaced."""
    output = output.replace(str(home), "/home/you")
    for pattern, stand_in in CHANGING:
        output = re.sub(pattern, stand_in, output)
    return output.strip()


def shape(expected: str) -> str:
    """Return the pattern of an expected output: ``…`` stands for anything, on its own for any lines."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n"
        for line in expected.splitlines()
    ]
    return "".join(lines)


def without_blocks(page: str) -> str:
    """Return a page without its fenced blocks, where a bracket is no link and a hash no heading."""
    return re.sub(r"(?ms)^```.*?^```$", "", page)


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"(?m)^#+ (.*)$", without_blocks(path.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def rows(table: str) -> list[list[str]]:
    """Return the cells of a Markdown table, without its heading."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


def rules_as_markdown() -> str:
    """Return the table of rules as the manual has to show it."""
    lines = ["| rule | binds | overridable | demands |", "| --- | --- | --- | --- |"]
    for rule in schemas.rule_table():
        overridable = "yes" if rule["overridable"] else "no"
        lines.append(f"| `{rule['rule']}` | {rule['binds']} | {overridable} | {rule['demands']} |")
    return "\n".join(lines)


def commands_of(
    commands: Mapping[str, Any], path: tuple[str, ...] = ("keyctl",)
) -> Iterator[tuple[str, Any]]:
    """Yield every command below with its whole name."""
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command.commands, (*path, name))
        else:
            yield " ".join((*path, name)), command


ALL_COMMANDS = dict(commands_of(Commands()))


RUN_PAGES = [name for name, page in PAGES.items() if any(commands(page))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", RUN_PAGES)
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_every_command_of_a_page_works(name: str, database_url: str, tmp_path: Path) -> None:
    """Typed in order on a fresh machine, each ends with its status and prints what is shown."""
    home, out, programs = tmp_path / "you", tmp_path / "out", tmp_path / "bin"
    for folder in (home, out, programs):
        folder.mkdir()
    channel = forkserver().program(programs / "keyctl")
    empty(database_url)
    told = list(commands(PAGES[name]))
    script = "set -o pipefail\n" + "".join(
        f'{{\n{command.text}\n}} >"{out}/{number}" 2>&1\necho $? >"{out}/{number}.status"\n'
        for number, command in enumerate(told)
    )

    subprocess.run(
        ["bash"],
        input=script.replace(EXAMPLE_URL, database_url),
        text=True,
        env={
            "HOME": str(home),
            "PATH": f"{programs}:{BIN}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
        },
        pass_fds=[channel],
        cwd=home,
        check=True,
        timeout=280,
    )

    wrong = []
    for number, command in enumerate(told):
        status = int((out / f"{number}.status").read_text("utf-8"))
        output = steady((out / str(number)).read_text("utf-8"), home)
        expected = None if command.output is None else steady(command.output, home)
        fits = expected is None or re.fullmatch(shape(expected), output + "\n" * bool(output))
        if status != command.status or not fits:
            wrong.append(f"$ {command.text}\n{output}\n-> {status}; the page says:\n{expected}")
    assert not wrong, "\n\n".join(wrong)


def empty(database_url: str) -> None:
    """Leave nothing in a PostgreSQL database, as in one that was just created."""
    database = Database(database_url)
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.engine.dispose()


def test_the_picture_is_what_a_terminal_shows(bare_cli: Cli) -> None:
    """The panel on top of the README is the real one, 80 columns wide."""
    first, *picture = fenced("panel").splitlines()
    bare_cli("team", "create", "web", "--max-budget", "100", check=True)

    typing = pexpect.spawn(
        "/bin/sh",
        ["-c", first.removeprefix("$ ")],
        env={**bare_cli.environment, "PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "xterm"},
        cwd=str(bare_cli.home),
        dimensions=(40, 80),
        encoding="utf-8",
        timeout=60,
    )
    typing.expect(pexpect.EOF)
    typing.close()

    shown = (typing.before or "").replace("\r\n", "\n")
    assert typing.exitstatus == 0
    assert steady(shown, bare_cli.home) == steady("\n".join(picture), bare_cli.home)


def test_the_configuration_example_is_complete_and_loads(tmp_path: Path) -> None:
    """It names every setting there is, and keyctl reads it without complaint."""
    path = tmp_path / "config.toml"
    path.write_text(fenced("config"))
    path.chmod(0o600)

    loaded = file.load(path)

    assert set(tomllib.loads(fenced("config"))) == set(Configuration.model_fields)
    assert loaded.sinks


def test_the_gateway_example_serves_a_key_and_charges_it(cli: Cli) -> None:
    """As it stands in the manual, for a key that is valid and for one that is not."""
    source = fenced("gateway").replace(
        "postgresql://gateway@db.example.com/keyctl", str(cli.database_url)
    )
    good: dict[str, Any] = {"presented": cli.key("--alias", "ci")}
    bad: dict[str, Any] = {"presented": "sk-no-such-key-anywhere"}

    for names in (good, bad):
        exec(source, names)  # noqa: S102  # it is what the reader runs

    assert (good["status"], bad["status"]) == (200, 401)
    assert cli("info", "ci", "-o", "json", check=True).json["spend"] == 0.0042


def test_every_link_leads_somewhere() -> None:
    """A link inside the project names a file that is there, and a heading that it has."""
    texts = {name: (ROOT / name).read_text("utf-8") for name in (*PAGES, *BESIDE)}
    dead = []
    for name, page in texts.items():
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", without_blocks(page)):
            path, _, anchor = link.partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            if not target.exists() or (anchor and anchor not in anchors(target)):
                dead.append(f"{name}: {link}")

    assert dead == []


def test_nobody_is_told_to_install_a_package_that_is_somebody_else_s() -> None:
    """The keyctl on PyPI is another program: pip is told of the clone, or of llm-keyctl."""
    asked = re.findall(r"pip install (?:--?[a-z-]+ )*(\S+)", MANUAL)

    assert asked
    assert [name for name in asked if not name.strip("`'").startswith((".", "llm-keyctl"))] == []


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed")
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_the_sealed_key_can_be_opened_by_its_reader_only(cli: Cli) -> None:
    """What the age example leaves in a CI job is ciphertext, and what it seals is the key."""
    identity = subprocess.run(
        ["age-keygen"], capture_output=True, text=True, check=True, timeout=10
    )
    recipient = re.search(r"age1[0-9a-z]+", identity.stdout + identity.stderr)
    assert recipient is not None
    cli.configure("bcrypt_cost = 4\n" + re.sub(r"age1[0-9a-z]{20,}", recipient[0], fenced("age")))
    (cli.home / "identity").write_text(identity.stdout)

    for command in (["generate", "--alias", "ci", "--deliver", "sealed"], ["rotate", "ci"]):
        done = cli(*command, "-o", "json", check=True)
        sealed = (cli.home / "sealed-ci.age").read_text()
        opened = subprocess.run(
            ["age", "--decrypt", "--identity", "identity", "sealed-ci.age"],
            cwd=cli.home,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        assert sealed.startswith("-----BEGIN AGE ENCRYPTED FILE-----")
        assert cli.verdict(opened.stdout.strip())["secret_state"] == "active"
        assert opened.stdout.strip() not in done.stdout + done.stderr + sealed


def test_the_rules_are_the_code_s() -> None:
    """The manual's table is `keyctl schema rules`; if it is not, paste what is printed below."""
    assert marked("rules").strip() == rules_as_markdown(), rules_as_markdown()


def test_the_exit_codes_are_the_code_s() -> None:
    """Every exit code is explained under its number and its name, and there are no others."""
    told = [(int(number), name) for number, name, _ in rows(marked("exits"))]

    assert told == [(int(code), code.name.lower().replace("_", " ")) for code in ExitCode]


def test_the_policy_fields_are_the_code_s() -> None:
    """Every field of a policy document is explained."""
    section = PAGES["docs/policies.md"]

    missing = [name for name in Policy.model_fields if f"| `{name}` |" not in section]

    assert missing == []


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_has_help_and_is_in_the_reference(name: str) -> None:
    """Nobody has to guess what a command does or that it exists."""
    command = ALL_COMMANDS[name]
    undocumented = [
        option.name
        for option in command.params
        if not getattr(option, "help", None) and not getattr(option, "hidden", False)
    ]

    assert command.help
    assert undocumented == []
    assert re.search(rf"(?m)^{re.escape(name)}\b", PAGES["docs/reference.md"])


def test_every_man_page_has_examples_and_exit_statuses() -> None:
    """Each example of the help, as it is typed; `help` itself has none."""
    for name, lines in EXAMPLES.items():
        page = (ROOT / "docs" / "man" / f"llm-keyctl-{name.split()[0]}.1").read_text("utf-8")
        assert ".SH EXAMPLES\n" in page
        assert ".SH EXIT STATUS\n" in page
        plain = page.replace("\\-", "-").replace("\\e", "\\")
        for line in lines:
            assert line in plain


def test_no_command_is_promised_that_does_not_exist() -> None:
    """Every `keyctl …` at the start of a line of code names a command."""
    lines = [line for page in PAGES.values() for block in blocks(page) for line in block.lines]
    named = {
        found[1]
        for line in lines
        if (found := re.match(r"(?:\$ )?(?:.*\$\()?(keyctl(?: [a-z][a-z-]*){1,2})\b", line))
    }

    assert {
        name for name in named if not {name, name.rpartition(" ")[0]} & set(ALL_COMMANDS)
    } == set()


@pytest.mark.parametrize("name", ["install", "test"])
def test_the_two_commands_are_one_line_each(name: str) -> None:
    """Each makes an environment of its own and installs this clone into it; .ci/run runs the second."""
    line = fenced(name)

    assert "\n" not in line
    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_ci_runs_the_readme_s_own_command() -> None:
    """The command for running the quick tests stands in the README only."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")

    assert "$(readme test)" in script
    assert fenced("test") not in script
