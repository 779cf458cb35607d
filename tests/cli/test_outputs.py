"""Each form of output that a command has works in each way to use it, or is refused by name."""

import json
from pathlib import Path

import pytest
from harness import Cli
from inside import Inside

pytestmark = [pytest.mark.in_process, pytest.mark.parametrize("kind", ["sqlite"], indirect=True)]

ALL = frozenset(("auto", "json", "jsonl", "key", "env", "table", "github"))
OF_SEVERAL = frozenset(("auto", "json", "jsonl", "table"))
MANY = frozenset(("auto", "json", "jsonl", "key"))
WAYS = {
    "generate": ALL,
    "generate --out-file {new}": ALL - {"github"},
    "generate --deliver file": ALL - {"github"},
    "generate --dry-run": OF_SEVERAL,
    "generate --count 2 --alias {new}-{{n}}": MANY,
    "generate --count 2 --alias {new}-{{n}} --out-file {new}": MANY,
    "generate --from rows.csv": MANY,
    "generate --from rows.csv --out-dir {new}": MANY,
    "generate --from rows.csv --dry-run": OF_SEVERAL,
    "user create {new}": OF_SEVERAL,
    "user create {new} --dry-run": OF_SEVERAL,
    "user create --from people.csv": OF_SEVERAL,
    "user create --from people.csv --dry-run": OF_SEVERAL,
    "rotate a": ALL,
    "rotate a --out-file {new}": ALL - {"github"},
    "rotate b --dry-run": OF_SEVERAL,
    "rotate a b --deliver file --yes": OF_SEVERAL,
    "rotate --due": OF_SEVERAL,
    "rotate --due --dry-run": OF_SEVERAL,
}


@pytest.fixture(name="world")
def _world(cli: Cli, inside: Inside) -> Inside:
    """Two keys, a sink, a list, and a job of GitHub Actions."""
    cli.configure(
        f'bcrypt_cost = 4\n[sinks.file]\ntype = "file"\npath = "{cli.home}/keys-{{alias}}"\n'
    )
    job = cli.home / "job"
    job.write_text("")
    inside.environment["GITHUB_OUTPUT"] = str(job)
    inside("generate", "--alias", "a", check=True)
    inside("generate", "--alias", "b", "--deliver", "file", check=True)
    return inside


@pytest.mark.parametrize("way", WAYS)
def test_every_form_works_or_is_refused_by_name(
    world: Inside, cli: Cli, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """JSON is a document, JSON lines are one each; what is refused changes nothing and names the others."""
    monkeypatch.chdir(cli.home)
    for output in sorted(ALL):
        rows = f"key_alias\nx-{output}\ny-{output}\n"
        Path("rows.csv").write_text(rows)
        Path("people.csv").write_text(f"user_id\nx-{output}\ny-{output}\n")
        arguments = way.format(new=f"new-{output}")
        if "--deliver file" in arguments and arguments.startswith("generate"):
            arguments += f" --alias {output}"
        before = world("audit", "head", check=True).stdout

        result = world(*arguments.split(), "-o", output)

        if output not in WAYS[way]:
            assert (result.exit_code, result.stdout) == (2, ""), (output, result)
            assert world("audit", "head", check=True).stdout == before
            assert "hint: " in result.stderr
            continue
        assert result.exit_code == 0, (output, result)
        if output == "json":
            assert isinstance(result.json, dict)
        elif output == "jsonl":
            assert all(isinstance(json.loads(line), dict) for line in result.stdout.splitlines())
            assert bool(result.stdout) is ("--due" not in way)


def test_what_a_variable_prefers_gives_way(world: Inside) -> None:
    """KEYCTL_OUTPUT is a wish for commands that can; an option is an order."""
    result = world("rotate", "--due", environment={"KEYCTL_OUTPUT": "github"})

    assert (result.exit_code, result.stdout) == (0, "")


def test_keys_in_one_file_are_answered_without_their_strings(world: Inside, cli: Cli) -> None:
    """The file has the key strings, stdout the answers and what was refused."""
    path = cli.home / "keys"

    result = world(
        *("generate", "--count", "3", "--alias", "a{n}", "-o", "json"), "--out-file", str(path)
    )
    again = world(
        *("generate", "--count", "4", "--alias", "a{n}", "-o", "jsonl"),
        "--out-file",
        str(path),
        "--force",
    )

    assert [key["key_alias"] for key in result.json["keys"]] == ["a1", "a2", "a3"]
    rows = [json.loads(line) for line in again.stdout.splitlines()]
    assert [(row["key_alias"], "error" in row) for row in rows] == [
        ("a1", True),
        ("a2", True),
        ("a3", True),
        ("a4", False),
    ]
    assert again.exit_code == 9
    assert not any("key" in row for row in (*result.json["keys"], *rows))
    assert cli.verdict(path.read_text())["key_alias"] == "a4"
