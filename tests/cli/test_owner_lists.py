"""`create --from` as people type it: CSV of every make, JSON lines, stdin, and what is wrong with a list."""

import json

import pytest
from harness import Cli
from inside import Inside
from terminal import on_terminal, uncoloured

from keyctl.cli import lists

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


def test_a_list_of_people_makes_users_and_keys(inside: Inside, cli: Cli) -> None:
    """One list for both: what is of keys only is left out of the users, with a word."""
    people = cli.home / "people.csv"
    people.write_bytes(
        b"\xef\xbb\xbfuser_id,key_alias,max_budget\r\nada,ada,20\r\n\r\neve,eve,30\r\n"
    )

    keys = inside("generate", "--from", str(people), "-o", "json")
    users = inside("user", "create", "--from", str(people), "-o", "json")
    again = inside("generate", "--from", str(people), "-o", "json")

    assert (keys.exit_code, keys.stdout) == (3, "")
    refused = json.loads(keys.stderr)["error"]
    assert [item["message"] for item in refused["violations"]] == [
        f"{people}:2: there is no user 'ada'",
        f"{people}:4: there is no user 'eve'",
    ]
    assert "keyctl user create --from FILE" in refused["hint"]
    made = [(user["user_id"], user["max_budget"]) for user in users.json["users"]]
    assert (users.exit_code, made, users.json["failed"]) == (0, [("ada", 20), ("eve", 30)], [])
    assert users.stderr == "warning: left out, as they say something of keys only: key_alias\n"
    assert [key["user_id"] for key in again.json["keys"]] == ["ada", "eve"]


def test_json_lines_come_by_stdin_and_the_rest_is_done(inside: Inside, cli: Cli) -> None:
    """A line for each, on stdout or stderr; options say what rows leave out; exit 9 where one is refused."""
    inside("user", "create", "ada", check=True)
    rows = '{"user_id": "ada"}\n{"user_id": "eve", "models": ["gpt-4o"]}\n'

    result = cli("user", "create", "--from", "-", "--max-budget", "5", input=rows)

    assert (result.exit_code, result.stdout) == (9, "eve: created\n")
    assert result.stderr.splitlines() == [
        "refused: -:1: ada: user 'ada' exists already",
        "1 user made, 1 not",
        "error: 1 of 2 users was not made",
        "hint: the lines say why",
    ]
    view = inside("user", "info", "eve", "-o", "json").json
    assert (view["models"], view["max_budget"]) == (["gpt-4o"], 5)


def test_dry_runs_write_nothing(inside: Inside, cli: Cli) -> None:
    """What could be made and what could not, of a list and of one; exit 4 where one could not."""
    teams = cli.home / "teams.csv"
    teams.write_text("team_id,members\nweb,ghost\nops,\n")
    inside("team", "create", "old", check=True)
    before = inside("audit", "head", check=True).stdout

    listed = inside("team", "create", "--from", str(teams), "--dry-run")
    one = inside("team", "create", "new", "--dry-run")
    taken = inside("team", "create", "old", "--dry-run", "-o", "json")

    assert listed.exit_code == 4
    assert listed.stdout.splitlines() == [
        f"{teams}:2: could not create team web",
        "  there is no user 'ghost'",
        f"{teams}:3: would create team ops",
    ]
    assert (one.exit_code, one.stdout) == (0, "new: would create team new\n")
    assert (taken.exit_code, taken.json["allowed"]) == (4, False)
    assert inside("audit", "head", check=True).stdout == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user_id;email\nada;a@b.c\n", "separated by ;? save it with commas"),
        ("user_id\temail\nada\ta@b.c\n", "separated by tabs? save it with commas"),
        ('user_id\n"a\nb"\n', "people.csv:3: user_id: must be"),
        ("user_id,metadata\na,{b}\n", "people.csv:2: metadata: it is not JSON"),
        ("user_id,max_budget,blocked\na,much,x\nb,5,maybe\nc\n", "(and 3 more)"),
        ("user_id,max_budgt\na,1\nb,2\n", "1 column is unknown: max_budgt\n"),
        ("user_id\na\na\n", "people.csv:3: 'a' is named 2 times"),
        ("email\na@b.c\n", "user_id: is missing"),
        ("user_id\n", "holds no rows"),
        ("user_id,user_id\na,b\n", "each column has a name of its own"),
    ],
)
def test_what_is_wrong_with_a_list(inside: Inside, cli: Cli, text: str, said: str) -> None:
    """Exit 2, every fault with its line, and nothing made."""
    people = cli.home / "people.csv"
    people.write_text(text)

    result = inside("user", "create", "--from", str(people))

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert inside("user", "list", "-o", "json", check=True).json["users"] == []


def test_an_id_or_a_list(inside: Inside) -> None:
    """Not both, and one of them; the hint says which to leave out."""
    both = inside("org", "create", "acme", "--from", "orgs.csv")
    neither = inside("org", "create")

    assert (both.exit_code, neither.exit_code) == (2, 2)
    assert "leave out acme" in both.stderr
    assert "--from FILE" in neither.stderr


def test_a_list_is_whole_or_refused(
    inside: Inside, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that is too large is not cut, although it could be at the end of a row."""
    users = cli.home / "users.csv"
    users.write_text("user_id\nada\neve\n")
    monkeypatch.setattr(lists, "_LARGEST", len("user_id\nada\n"))

    result = inside("user", "create", "--from", str(users))

    assert result.exit_code == 2
    assert f"{users} is larger than" in result.stderr
    assert inside("user", "list", "-o", "json").json["users"] == []


def test_a_line_ends_where_json_lines_say(inside: Inside, cli: Cli) -> None:
    """Other ends of lines may stand within a string."""
    teams = cli.home / "teams.jsonl"
    teams.write_text(
        '{"team_id": "web", "metadata": {"note": "A\u2028B"}}\r\n{"team_id": "ops"}\n',
        encoding="utf-8",
    )

    made = inside("team", "create", "--from", str(teams), "-o", "json", check=True).json

    assert [(team["team_id"], team["metadata"]) for team in made["teams"]] == [
        ("web", {"note": "A\u2028B"}),
        ("ops", {}),
    ]


def test_a_terminal_gets_a_line_for_each(cli: Cli) -> None:
    """No bar is in the way of what is told of each row."""
    users = cli.home / "users.csv"
    users.write_text("user_id\nada\neve\n")

    shown = uncoloured(on_terminal(cli, "user", "create", "--from", str(users), columns=100))

    assert shown.splitlines() == ["ada: created", "eve: created", "2 users made, 0 not"]


class TestColumns:
    def test_that_are_unknown_are_told_once_each(self, inside: Inside, cli: Cli) -> None:
        """Not once a row: with what is like them, and the columns that there are."""
        people = cli.home / "people.csv"
        people.write_text("name,email,wobble\n" + "Ann,ann@example.com,1\n" * 50)

        result = inside("generate", "--from", str(people))

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.splitlines() == [
            f"error: {people}: 3 columns are unknown: name, email, wobble",
            f"  request.unknown_field: name: {people}: is not a known field; did you mean key_alias?",
            f"  request.unknown_field: email: {people}: is not a known field; did you mean user_id?",
            f"  request.unknown_field: wobble: {people}: is not a known field",
            (
                "hint: the columns are key_alias, user_id, team_id, max_budget, models, duration, …, as"
                " keyctl schema generate-request has them, and deliver and service_account"
            ),
        ]

    def test_of_which_every_row_breaks_a_rule_five_rows_are_shown(
        self, inside: Inside, cli: Cli
    ) -> None:
        """The rest is a number; as JSON each row is told."""
        people = cli.home / "people.csv"
        rows = "".join(f"k{number},-5,nobody\n" for number in range(50))
        people.write_text("key_alias,max_budget,user_id\n" + rows.replace("-5", "5"))
        missing = inside("generate", "--from", str(people))
        people.write_text("key_alias,duration\n" + rows.replace("-5,nobody", "soon"))
        wrong = inside("generate", "--from", str(people))
        answer = inside("generate", "--from", str(people), "-o", "json")

        for result, rule in ((missing, "list.missing"), (wrong, "request.value")):
            lines = [line for line in result.stderr.splitlines() if line.startswith("  ")]
            assert (len(lines), lines[-1]) == (6, f"  {rule}: … and 45 more rows")
        assert len(answer.error["violations"]) == 50

    def test_may_be_named_by_the_options(self, inside: Inside, cli: Cli) -> None:
        """alias, user, team, model: one list makes the users and their keys."""
        inside("team", "create", "web", check=True)
        people = cli.home / "people.csv"
        people.write_text("User,alias,team,model,max-budget\nann,a,web,gpt-4o,5\n")
        inside("user", "create", "--from", str(people), check=True)
        inside("team", "add-member", "web", "ann", check=True)

        made = inside("generate", "--from", str(people), "-o", "json", check=True).json["keys"]

        names = ("key_alias", "user_id", "team_id", "models", "max_budget")
        assert [made[0][name] for name in names] == ["a", "ann", "web", ["gpt-4o"], 5]
        people.write_text("alias,key_alias\na,b\n")
        assert "a name of its own" in inside("generate", "--from", str(people)).stderr
