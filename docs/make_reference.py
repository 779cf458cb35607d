"""Make what the manual says of the program from the program: docs/reference.md, man pages, and the trees of architecture.md.

python docs/make_reference.py
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import typer

from keyctl.cli.app import COMMANDS, Commands
from keyctl.cli.examples import EXAMPLES

ROOT: Final = Path(__file__).resolve().parent.parent
STATUSES: Final = {
    0: "done, or nothing to do",
    1: "internal error: a bug",
    2: "usage: an unknown option, a malformed value or request",
    3: "not found",
    4: "denied by policy, role or hook",
    5: "conflict: an alias, key, request id or file is already there",
    6: "the database is unreachable or lost, or its schema is not this version's",
    7: "the database or the key is busy: try again later",
    8: "the delivery failed or is unknown; there is no new active secret",
    9: "a batch in which some items failed; the payload says which",
    10: "what was asked about is so: a key that is not valid, something due, a plan with changes",
    11: "integrity: the audit chain, a row or a self-check does not hold",
    130: "interrupted",
}
ENVIRONMENT: Final = {
    "KEYCTL_DATABASE_URL": "the database; without it SQLite in the user's data folder",
    "KEYCTL_DATABASE_URL_FILE": "a file that holds the database's URL",
    "KEYCTL_CONFIG": "the configuration file",
    "KEYCTL_API_KEY": "act as the owner of this key; unset is the local operator",
    "KEYCTL_OUTPUT": "the output where --output is not given",
    "NO_COLOR": "no colour on terminals",
}
# Folders of each tree, and what they are for.
ROOMS: Final = {
    "keyctl": {
        "cli": "one module a command group: parse, one call, show",
        "config": "the configuration file and what it may say",
        "db": "the only place with SQL",
        "db/queries": "one module a family of tables; each query is named after its question",
        "db/tables": "columns and constraints, one module a family of tables",
        "errors": "every refusal: its code and its exit status",
        "fleetfile": "fleet files as texts and values",
        "gateway": "the public library: verify, reserve and record inside a gateway",
        "gateway/litellm": "the adapter for LiteLLM's proxy",
        "hooks": "where events go",
        "litellm": "LiteLLM's rows and what becomes of them",
        "policy": "rules as pure functions from facts to violations",
        "services": "what the program does; a public method is one transaction",
        "services/authorize": "the one path by which everything is judged",
        "services/delivery": "stage, deliver, confirm: what all runs with a sink share",
        "services/events": "send what is in the outbox",
        "services/fleet": "plan, apply and export",
        "services/import_litellm": "take over LiteLLM's keys",
        "services/issue": "make keys",
        "services/keys": "find, read, change and end keys",
        "services/rotate": "give keys new secrets",
        "sinks": "where key strings go",
    },
    "tests": {
        "cli": "commands, as people and scripts type them",
        "config": "the configuration file",
        "db": "migrations, URLs, what databases do",
        "fleetfile": "fleet files",
        "gateway": "the library for gateways",
        "hooks": "where events go",
        "litellm": "LiteLLM's rows",
        "policy": "every rule at its bound and one step past it",
        "services": "what the services promise",
        "sinks": "files and secret managers",
        "soak": "kills, races, large tables, the wheel and the real proxy; `.ci/run` runs them",
    },
}


def pages() -> dict[Path, str]:
    """Return every made file's text by its path."""
    reference, architecture = ROOT / "docs" / "reference.md", ROOT / "docs" / "architecture.md"
    made = {
        reference: _between(
            _between(reference.read_text("utf-8"), "commands", commands_as_markdown()),
            "list",
            _fenced(commands_as_list()),
        ),
        architecture: _between(
            _between(architecture.read_text("utf-8"), "keyctl", _fenced(tree("keyctl"))),
            "tests",
            _fenced(tree("tests")),
        ),
    }
    return {**made, **man_pages()}


def whole() -> Iterator[tuple[str, Any, typer.Context]]:
    """Yield every command with its whole name and a context for its help."""
    for name, command in Commands().items():
        yield from _below(name, command)


def _below(name: str, command: Any) -> Iterator[tuple[str, Any, typer.Context]]:
    children: Mapping[str, Any] | None = getattr(command, "commands", None)
    if children is None:
        yield name, command, typer.Context(command, info_name=f"keyctl {name}")
        return
    for child in children:
        yield from _below(f"{name} {child}", children[child])


def _usage(name: str, command: Any, context: typer.Context) -> str:
    return " ".join(["keyctl", name, *command.collect_usage_pieces(context)])


def _records(command: Any, context: typer.Context) -> list[tuple[str, str]]:
    """Return each argument's and option's names and help; --help goes without saying."""
    records = (item.get_help_record(context) for item in command.get_params(context))
    return [(names, text) for names, text in filter(None, records) if "--help" not in names]


def commands_as_list() -> str:
    """Return a line for every command: how its help begins."""
    return "\n".join(
        f"keyctl {name:<24} {(command.help or '').splitlines()[0]}" for name, command, _ in whole()
    )


def commands_as_markdown() -> str:
    """Return every command with its usage, help and options."""
    lines = []
    for name, command, context in whole():
        lines += [f"### keyctl {name}", "", f"`{_usage(name, command, context)}`", ""]
        lines += [" ".join(part.split()) + "\n" for part in (command.help or "").split("\n\n")]
        lines += ["| option | |", "| --- | --- |"]
        lines += [
            f"| `{_cell(names)}` | {_cell(text)} |" for names, text in _records(command, context)
        ]
        lines.append("")
    return "\n".join(lines).rstrip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def man_pages() -> dict[Path, str]:
    """Return llm-keyctl.1 and a page for each command or group, by path."""
    groups: dict[str, list[tuple[str, Any, typer.Context]]] = {}
    for name, command, context in whole():
        groups.setdefault(name.split()[0], []).append((name, command, context))
    made = {
        ROOT / "docs" / "man" / f"llm-keyctl-{group}.1": _man_page(group, commands)
        for group, commands in groups.items()
    }
    return {ROOT / "docs" / "man" / "llm-keyctl.1": _first_man_page(), **made}


def _first_man_page() -> str:
    lines = [
        *_heading("llm-keyctl", "issue, limit, rotate and revoke the API keys of an LLM gateway"),
        *(".SH SYNOPSIS", ".B llm-keyctl", ".I COMMAND", "[\\fIOPTIONS\\fR]"),
        *(".SH DESCRIPTION", "keyctl is the same command; Linux's keyutils may own that name."),
        "Each command has a page of its own, such as",
        ".BR llm-keyctl-generate (1).",
        ".SH COMMANDS",
    ]
    lines += _definitions((name, line) for name, (_, line) in COMMANDS.items())
    lines += _exit_statuses()
    lines += [".SH ENVIRONMENT", *_definitions(ENVIRONMENT.items())]
    return "\n".join(lines) + "\n"


def _man_page(group: str, commands: list[tuple[str, Any, typer.Context]]) -> str:
    lines = _heading(f"llm-keyctl-{group}", COMMANDS[group][1].rstrip("."))
    for name, command, context in commands:
        lines += [f'.SH "{_roff(name.upper())}"', ".nf"]
        lines += [f".B llm\\-{_roff(_usage(name, command, context))}", ".fi"]
        for part in (command.help or "").split("\n\n"):
            lines += [".PP", _roff(" ".join(part.split()))]
        lines += _definitions(_records(command, context))
    examples = [line for name, _, _ in commands for line in EXAMPLES.get(name, ())]
    if examples:
        lines += [".SH EXAMPLES", ".nf", *map(_roff, examples), ".fi"]
    lines += _exit_statuses()
    return "\n".join([*lines, ".SH SEE ALSO", ".BR llm-keyctl (1)"]) + "\n"


def _exit_statuses() -> list[str]:
    return [".SH EXIT STATUS", *_definitions((str(n), text) for n, text in STATUSES.items())]


def _heading(name: str, line: str) -> list[str]:
    title = f'.TH "{_roff(name.upper())}" 1 "" "llm\\-keyctl" "User Commands"'
    return [title, ".SH NAME", f"{_roff(name)} \\- {_roff(line)}"]


def _definitions(pairs: Any) -> list[str]:
    return [
        line
        for term, text in pairs
        for line in (".TP", f".B {_roff(term)}", _roff(" ".join(text.split())))
    ]


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def tree(top: str) -> str:
    """Return the folders and modules below *top*, each with what it says of itself."""
    lines = [f"{top}/"]
    base = ROOT / top
    for folder in (base, *sorted(path for path in base.rglob("*") if path.is_dir())):
        modules = sorted(folder.glob("*.py"))
        if not modules or "_alembic" in folder.parts:
            continue
        depth = len(folder.relative_to(base).parts)
        name = folder.relative_to(base).as_posix()
        if depth:
            lines.append(
                f"{'    ' * depth}{folder.name + '/':<26} {ROOMS[top].get(name, '')}".rstrip()
            )
        lines += [
            f"{'    ' * (depth + 1)}{path.name:<26} {said(path)}".rstrip()
            for path in modules
            if path.name != "__init__.py"
        ]
    return "\n".join(lines)


def said(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.:;]) ", first)[0].rstrip(".:;")


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```"


def _between(page: str, name: str, text: str) -> str:
    """Return *page* with *text* between its markers of this name."""
    begin, end = f"<!-- made {name}:begin -->\n", f"\n<!-- made {name}:end -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"no markers for {name}")
    return before + begin + text + end + after


def main() -> None:
    """Write every made file."""
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    for path in set((ROOT / "docs" / "man").glob("*.1")) - set(man_pages()):
        path.unlink()
    sys.stdout.write(f"{len(pages())} files\n")


if __name__ == "__main__":
    main()
