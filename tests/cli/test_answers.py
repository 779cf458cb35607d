"""`-o json` is one document and `-o jsonl` one row a line, in the shapes that keyctl publishes."""

import json
from typing import Any

import jsonschema
import pytest
from inside import Inside

from keyctl import schemas

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


def check(document: Any, schema: str) -> None:
    """Hold *document* against the schema of this name."""
    jsonschema.validate(
        document, schemas.SCHEMAS[schema](), format_checker=jsonschema.FormatChecker()
    )


def test_answers_are_in_their_shapes(inside: Inside) -> None:
    """Lists, many keys, results, events, errors: each printed by the command itself."""
    inside("team", "create", "web", "--max-budget", "100", check=True)
    many = inside(*("generate", "--count", "2", "--alias", "ci-{n}", "--team", "web", "-o", "json"))
    again = inside(*("generate", "--count", "3", "--alias", "ci-{n}", "-o", "json"))
    blocked = inside("block", "ci-1", "-o", "json", check=True)
    some = inside("delete", "ci-1", "nobody", "--yes", "-o", "json")
    listed = inside("list", "-o", "json", check=True)
    events = inside("audit", "list", "-o", "json", check=True)
    error = inside("info", "nobody", "-o", "json")

    assert (again.exit_code, some.exit_code, error.exit_code) == (9, 9, 3)
    check(many.json, "many-response")
    check(again.json, "many-response")
    check(blocked.json, "results-response")
    check(some.json, "results-response")
    check(listed.json, "list-response")
    check(events.json, "audit-list-response")
    for result in (again, some, error):
        check(json.loads(result.stderr), "error-response")


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("team", "list"),
        ("user", "list"),
        ("org", "list"),
        ("budget", "list"),
        ("audit", "list"),
        ("events", "list"),
        ("db", "check"),
        ("schema", "rules"),
        ("schema", "fields"),
    ],
    ids=" ".join,
)
def test_a_line_is_a_row_of_the_document(inside: Inside, command: tuple[str, ...]) -> None:
    """For every list: `-o jsonl` has the rows of `-o json`, one on each line."""
    inside("team", "create", "web", "--max-budget", "100", check=True)
    inside("generate", "--team", "web", "--alias", "a", check=True)

    document = inside(*command, "-o", "json", check=True).json
    lines = inside(*command, "-o", "jsonl", check=True).stdout.splitlines()

    rows = (
        document
        if isinstance(document, list)
        else next(value for value in document.values() if isinstance(value, list))
    )
    assert [json.loads(line) for line in lines] == rows
