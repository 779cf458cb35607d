"""Every command where nobody reads its output, and where the terminal, the locale and the colours are odd."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from command_tree import filled_in, places_of, steps
from harness import Cli
from inside import Inside

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)

SURROUNDINGS = {
    "dumb": {"TERM": "dumb", "COLUMNS": "20", "LC_ALL": "C", "FORCE_COLOR": "1"},
    "plain": {"NO_COLOR": "1", "COLUMNS": "20", "LC_ALL": "POSIX", "LANG": ""},
    "github": {"GITHUB_ACTIONS": "true", "FORCE_COLOR": "3", "COLUMNS": "0"},
}
# Commands that change nothing, and say it all to whoever reads.
READING = {
    *("list", "info", "status", "version", "metrics", "schema", "db status", "db check"),
    *("team info", "user info", "org info", "team list", "user list", "org list"),
    *("budget info", "budget list", "audit list", "audit export", "audit head", "audit verify"),
    "events list",
}


@contextmanager
def unread() -> Iterator[None]:
    """Let nobody read stdout: whoever did has gone, as `head` does."""
    kept = os.dup(1)
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.close(writer)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def life(inside: Inside, cli: Cli, **extra: str) -> Iterator[tuple[str, int, str]]:
    """Run every command that there is; yield it, its exit status and what it said on stderr."""
    places = places_of(cli)
    for _, arguments, _, _ in steps():
        given = filled_in(arguments, {"event": "evt_none", **places})
        result = inside(*given, environment=extra)
        yield " ".join(given), result.exit_code, result.stderr


def sound(inside: Inside) -> bool:
    """Tell whether no secret is in between, and what is stored is what the chain says."""
    left = inside("db", "check", "-o", "json", check=True).json["left"]
    states = {
        secret["state"]
        for key in inside("list", "-o", "json", check=True).json["keys"]
        for secret in inside("info", key["key_id"], "-o", "json", check=True).json["secrets"]
    }
    chain = inside("audit", "verify", "--state").exit_code
    return left == [] and "staged" not in states and chain == 0


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_every_command_in_odd_surroundings(inside: Inside, cli: Cli, surroundings: str) -> None:
    """No command ends as a bug, whatever the terminal, the locale and the colours are said to be."""
    ended = list(life(inside, cli, **SURROUNDINGS[surroundings]))

    assert [item for item in ended if item[1] == 1 or "Traceback" in item[2]] == []
    assert sound(inside)


def test_every_command_that_nobody_reads(inside: Inside, cli: Cli) -> None:
    """Reading commands end in silence; others say so, and leave no key that is active and lost."""
    with unread():
        ended = list(life(inside, cli))

    assert [item for item in ended if item[1] == 1 or "Traceback" in item[2]] == []
    made = [item[1] for item in ended if item[0].startswith("generate") and "--dry" not in item[0]]
    assert made == [0, 8, 8, 9]  # the first goes to a file, the last is a list
    spoke = [
        item
        for item in ended
        if any(item[0] == words or item[0].startswith(f"{words} ") for words in READING)
        and (item[1], item[2]) != (0, "")
    ]
    assert spoke == []
    assert sound(inside)


def test_every_command_quietly(inside: Inside, cli: Cli) -> None:
    """With --quiet what went well is not heard of, and nothing ends as a bug."""
    places = places_of(cli)
    heard = []
    for words, arguments, _, status in steps():
        given = filled_in(arguments, {"event": "evt_none", **places})
        result = inside(*given, "-q")
        if result.exit_code == 1 or "Traceback" in result.stderr:
            heard.append((given, result))
        elif (
            result.exit_code == 0 == status
            and words not in READING
            and "warning" not in result.stderr
        ):
            said = result.stdout if words not in ("generate", "rotate", "export") else ""
            if (said, result.stderr) != ("", ""):
                heard.append((given, result))

    assert heard == []
