"""Every command there is, walked by program, so that none can be forgotten."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command_tree import commands, filled_in, places_of, steps
from harness import Cli
from inside import Inside

from keyctl import schemas
from keyctl.cli.published import OF_COMMAND

on_sqlite = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

# What asks for stdin is tried in tests/test_schemas.py.
ELSEWHERE = {"verify"}


def check(document: Any, schema: str) -> None:
    """Hold *document* against the schema of this name."""
    jsonschema.validate(
        document, schemas.SCHEMAS[schema](), format_checker=jsonschema.FormatChecker()
    )


@pytest.fixture(name="places")
def _places(cli: Cli) -> dict[str, str]:
    """Files that the life reads and writes, a sink, and a hook that never works."""
    return places_of(cli)


def test_every_command_says_what_shape_its_json_has() -> None:
    """None without a schema, no schema that is not published, and the life below has each of them."""
    named = {words for words, _ in commands()} - {"help"}
    lived = {(words, schema) for words, _, schema, _ in steps()}

    assert set(OF_COMMAND) == named
    assert {name for names in OF_COMMAND.values() for name in names} <= set(schemas.SCHEMAS)
    assert lived == {
        (words, name)
        for words, names in OF_COMMAND.items()
        for name in names
        if words not in ELSEWHERE
    }


@on_sqlite
def test_every_answer_is_one_document_in_its_shape(inside: Inside, places: dict[str, str]) -> None:
    """A whole life: stdout is one JSON document, whatever the command, and keeps to its schema."""
    for words, arguments, schema, status in steps():
        given = filled_in(arguments, places)
        result = inside(*given, "-o", "json")
        assert result.exit_code == status, (given, result)
        document = json.loads(result.stdout)
        check(document, schema)
        if words == "events list":
            places["event"] = document["events"][0]["event_id"]


def outputs_of(command: Any) -> list[str]:
    """Return the forms of output that the help of a command names."""
    option = next(item for item in command.params if "--output" in item.opts)
    return str(option.help).partition(" ")[0].split("|")


@on_sqlite
def test_every_command_refuses_the_outputs_that_it_has_not(inside: Inside) -> None:
    """Exit 2, nothing on stdout, and a hint with all that it has; the database is not asked."""
    every = {words: command for words, command in commands() if words != "help"}
    wrong = []
    for words, command in every.items():
        needed = [
            text
            for item in command.params
            if item.required
            for text in ((item.opts[0], "x") if item.param_type_name == "option" else ("x",))
        ]
        has = outputs_of(command)
        for output in {"github", "nonsense"}.difference(has):
            result = inside(*words.split(), *needed, "-o", output)
            if (result.exit_code, result.stdout) != (2, "") or ", ".join(has) not in result.stderr:
                wrong.append((words, output, result))

    assert wrong == []


@on_sqlite
@pytest.mark.parametrize(
    ("command", "service", "said"),
    [
        (("audit", "verify"), "keyctl.services.audit.AuditService.verify", "run it again"),
        (
            ("db", "copy", "--target-url", "sqlite:///{copy}"),
            "keyctl.services.move.MoveService.copy",
            "goes on from there",
        ),
        (
            ("import", "litellm", "--source-file", "{dump}"),
            "keyctl.services.import_litellm.service.ImportService.run",
            "what is imported stays",
        ),
        (
            ("block", "one", "two", "--yes"),
            "keyctl.services.keys.end.EndingService.block",
            "run it again to block the rest",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_ctrl_c_says_how_far_it_came(
    inside: Inside,
    places: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    service: str,
    said: str,
) -> None:
    """Exit 130, with how many of how many are done and what to type for the rest."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    dump = {"keys": [{"token": digit * 64} for digit in "ab"]}
    Path(places["dump"]).write_text(json.dumps(dump))
    for alias in ("one", "two"):
        inside("generate", "--alias", alias, check=True)
    monkeypatch.setattr(service, interrupted)

    result = inside(*filled_in(command, places))

    assert (result.exit_code, result.stdout) == (130, "")
    assert re.fullmatch(rf"interrupted: [a-z ]+: 0 of \d+ done; .*{said}.*\n", result.stderr)
