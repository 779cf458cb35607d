"""list and its filters, page by page and as a table for other programs."""

import csv
import io
import json

import pytest
from harness import Cli
from inside import Inside

pytestmark = pytest.mark.in_process


@pytest.fixture(name="several")
def _several(cli: Cli) -> Cli:
    """Keys in every state and of several owners."""
    cli("team", "create", "web", check=True)
    cli("generate", "--alias", "plain", check=True)
    cli("generate", "--alias", "soon", "--duration", "1d", "--team", "web", check=True)
    cli("generate", "--alias", "later", "--duration", "30d", "--team", "web", check=True)
    cli("generate", "--alias", "stopped", check=True)
    cli("block", "stopped", check=True)
    cli("generate", "--alias", "gone", check=True)
    cli("delete", "gone", check=True)
    cli("generate", "--alias", "over", "--duration", "1h", check=True)
    cli.execute("UPDATE keys SET expires = '2021-01-01 00:00:00' WHERE key_alias = 'over'")
    cli.execute("UPDATE keys SET created_at = '2021-01-01 00:00:00' WHERE key_alias = 'plain'")
    cli(*("generate", "--alias", "due", "--auto-rotate", "--rotation-interval", "30d"), check=True)
    cli.execute("UPDATE keys SET key_rotation_at = '2021-01-01 00:00:00' WHERE auto_rotate")
    cli.killed("delivered", "generate", "--alias", "half")
    return cli


def test_what_each_filter_finds(several: Cli) -> None:
    """States, owners, and what people on duty ask: what expires, is unused, is due, is pending."""
    wanted: dict[tuple[str, ...], set[str]] = {
        (): {"plain", "soon", "later", "stopped", "over", "due", "half"},
        ("--state", "active"): {"plain", "soon", "later", "due"},
        ("--state", "blocked"): {"stopped"},
        ("--state", "expired"): {"over"},
        ("--state", "pending"): {"half"},
        ("--state", "deleted"): {"gone"},
        ("--team", "web"): {"soon", "later"},
        ("--expires-before", "7d"): {"soon", "over"},
        ("--expires-before", "7d", "--state", "active"): {"soon"},
        ("--unused-for", "90d"): {"plain"},
        ("--due",): {"due"},
    }
    found = {
        arguments: {
            key["key_alias"]
            for key in several("list", *arguments, "-o", "json", check=True).json["keys"]
        }
        for arguments in wanted
    }
    assert found == wanted


def test_pages_follow_each_other(cli: Cli) -> None:
    """Each page goes on behind the last, also when keys are made meanwhile; the last has no next."""
    cli("generate", "--count", "7", "--alias", "ci-{n}", check=True)
    seen, after = [], None
    while True:
        page = cli(
            *("list", "--limit", "3", "-o", "json"),
            *(["--after", after] if after else []),
            check=True,
        ).json
        seen.append([key["key_alias"] for key in page["keys"]])
        after = page["next"]
        if after is None:
            break
        cli("generate", check=True)
    assert [len(page) for page in seen] == [3, 3, 1]
    assert {alias for page in seen for alias in page} == {f"ci-{n}" for n in range(1, 8)}


def test_all_of_them_as_lines_and_as_a_sheet(cli: Cli) -> None:
    """jsonl and csv hold every key; csv has a heading and one row each, whatever is in an alias."""
    for alias in ("plain", 'with "quotes", and commas', "=cmd()"):
        cli("generate", "--alias", alias, check=True)
    as_lines = cli("list", "-o", "jsonl", check=True).stdout
    as_sheet = cli("list", "-o", "csv", check=True).stdout

    aliases = [json.loads(line)["key_alias"] for line in as_lines.splitlines()]
    rows = list(csv.DictReader(io.StringIO(as_sheet)))
    assert len(aliases) == 3
    assert [row["key_alias"].removeprefix("'") for row in rows] == aliases


@pytest.mark.parametrize(
    "arguments",
    [
        ("--state", "lost"),
        ("--expires-before", "soon"),
        ("--unused-for", "-1"),
        ("--after", "nonsense"),
        ("--limit", "0"),
    ],
)
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_filter_that_makes_no_sense(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Exit 2 with what is accepted."""
    result = cli("list", *arguments, "-o", "json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.error["hint"]


class TestAllOfThem:
    @pytest.mark.parametrize(
        "how",
        [
            ("-o", "csv"),
            ("-o", "table"),
            ("-o", "csv", "--sort", "-spend"),
            ("-o", "json", "--columns", "key_alias,state,tags,expires"),
            ("-o", "csv", "--columns", "key_id,key_name,models"),
        ],
        ids=" ".join,
    )
    def test_are_what_a_page_of_them_is(self, inside: Inside, how: tuple[str, ...]) -> None:
        """With --all only what is shown is read; what is said of each key is the same."""
        inside("team", "create", "web", check=True)
        for arguments in (
            ("--alias", "=größer", "--max-budget", "0.000000001", "--tag", "a,b", "--tag", "c"),
            ("--alias", "b", "--team", "web", "--model", "gpt-4o", "--duration", "30d"),
            ("--alias", 'quoted "b"', "--blocked", "--rpm-limit", "5"),
            ("--max-budget", "5"),
        ):
            inside("generate", *arguments, check=True)
        inside("spend", "b", "--add", "1.25", check=True)

        assert inside("list", *how, "--all", check=True) == inside("list", *how, check=True)

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_one_that_cannot_be_read_is_named(self, inside: Inside, cli: Cli) -> None:
        """Exit 11 with its id, and the others are served."""
        for alias in ("a", "b"):
            inside("generate", "--alias", alias, check=True)
        cli.execute("UPDATE keys SET expires = 'some day' WHERE key_alias = 'a'")

        result = inside("list", "--all", "-o", "csv", "--columns", "key_alias,expires")

        assert (result.exit_code, result.stdout) == (11, "key_alias,expires\nb,\n")
