"""Twenty processes at once: constraints decide, and nobody sees a busy database."""

from collections import Counter

import pytest
from harness import Cli

from keyctl.db.database import Database
from keyctl.db.queries import audit

RACERS = 20


def assert_unbroken(database_url: str) -> None:
    """Recompute the whole audit chain from its first event."""
    database = Database(database_url)
    with database.read(snapshot=True) as connection:
        numbers = [head.seq for head in audit.check_chain(connection)]
    database.engine.dispose()
    assert numbers == list(range(1, len(numbers) + 1))


def test_one_alias_makes_one_key(cli: Cli, database_url: str) -> None:
    """Of twenty processes with one alias, one makes the key and nineteen are exit 5."""
    results = cli.race([["generate", "--alias", "ci", "-o", "json"]] * RACERS)

    codes = Counter(result.exit_code for result in results)
    assert codes == {0: 1, 5: RACERS - 1}, [result.stderr for result in results]
    assert {result.error["code"] for result in results if result.exit_code} == {"alias_taken"}
    assert len(cli("list", "-o", "json", check=True).json["keys"]) == 1
    assert_unbroken(database_url)


def test_one_request_id_in_a_pipe_prints_one_key(cli: Cli, database_url: str) -> None:
    """Of twenty repetitions of one request, one prints the key; the others are no success."""
    results = cli.race([["generate", "--request-id", "deploy-1"]] * RACERS)

    codes = Counter(result.exit_code for result in results)
    assert codes == {0: 1, 5: RACERS - 1}, [result.stderr for result in results]
    assert len([result.stdout for result in results if result.stdout]) == 1
    assert all(
        "was" in result.stderr or "already" in result.stderr
        for result in results
        if result.exit_code
    )
    assert len(cli("list", "-o", "json", check=True).json["keys"]) == 1
    assert_unbroken(database_url)


def test_one_request_id_as_json_succeeds_everywhere_with_one_key(
    cli: Cli, database_url: str
) -> None:
    """Of twenty repetitions with -o json, all succeed and one of them holds the key string."""
    results = cli.race([["generate", "--request-id", "deploy-1", "-o", "json"]] * RACERS)

    assert [result.exit_code for result in results] == [0] * RACERS, [
        result.stderr for result in results
    ]
    assert len({result.json["key_id"] for result in results}) == 1
    assert Counter("key" in result.json for result in results) == {True: 1, False: RACERS - 1}
    assert_unbroken(database_url)


def test_twenty_aliases_make_twenty_keys(cli: Cli, database_url: str) -> None:
    """Processes that want different things all get them; none finds the database busy."""
    results = cli.race([["generate", "--alias", f"ci-{number}"] for number in range(RACERS)])

    assert [result.exit_code for result in results] == [0] * RACERS, [
        result.stderr for result in results
    ]
    assert len({result.stdout for result in results}) == RACERS
    assert_unbroken(database_url)


def test_a_fresh_database_is_created_once(bare_cli: Cli) -> None:
    """Ten first commands of a fresh machine at once all succeed."""
    results = bare_cli.race([["generate", "--alias", f"ci-{number}"] for number in range(10)])

    assert [result.exit_code for result in results] == [0] * 10, [
        result.stderr for result in results
    ]
    assert len(bare_cli("list", "-o", "json", check=True).json["keys"]) == 10


@pytest.mark.parametrize(
    ("team", "arguments", "sums_to"),
    [
        (
            ["--tpm-limit", "1000"],
            ["--tpm-limit", "100", "--tpm-limit-type", "guaranteed_throughput"],
            ("tpm_limit", 1000),
        ),
        (
            ["--max-budget", "10", "--policy", "policy.json"],
            ["--max-budget", "1"],
            ("max_budget", 10),
        ),
        (["--policy", "most.json"], ["--max-budget", "1"], ("max_budget", 7)),
    ],
    ids=["throughput", "budget", "max_keys"],
)
def test_an_allocation_is_never_overshot(
    cli: Cli, team: list[str], arguments: list[str], sums_to: tuple[str, int]
) -> None:
    """Twenty processes race for what is enough for a few; the live keys never add up to more."""
    (cli.home / "policy.json").write_text('{"budget_allocation": "guaranteed"}')
    (cli.home / "most.json").write_text('{"max_keys": 7}')
    cli("team", "create", "web", *team, check=True)

    results = cli.race([["generate", "--team", "web", *arguments, "-o", "json"]] * RACERS)

    field, total = sums_to
    keys = cli("list", "--team", "web", "-o", "json", check=True).json["keys"]
    made = len(keys)
    assert sum(key[field] for key in keys) == total
    assert Counter(result.exit_code for result in results) == {0: made, 4: RACERS - made}


def test_sixteen_writers_of_all_kinds_leave_one_chain(cli: Cli, database_url: str) -> None:
    """Whatever sixteen processes change at the same time, the chain is unbroken and nothing is missing."""
    for number in range(4):
        cli.key("--alias", f"old-{number}")
    writers = [
        command
        for number in range(4)
        for command in (
            ["generate", "--alias", f"new-{number}"],
            ["rotate", f"old-{number}"],
            ["team", "create", f"team-{number}"],
            ["generate", "--count", "20", "--alias", f"many-{number}-{{n}}", "-o", "jsonl"],
        )
    ]

    results = cli.race(writers)

    assert [result.exit_code for result in results] == [0] * 16, [r.stderr for r in results]
    assert_unbroken(database_url)
    actions = Counter(
        event["action"]
        for event in cli("audit", "list", "--limit", "1000", "-o", "json", check=True).json[
            "events"
        ]
    )
    assert actions == {
        "key_staged": 8 + 80,
        "key_generated": 8 + 80,
        "key_rotation_staged": 4,
        "key_rotated": 4,
        "team_created": 4,
    }
