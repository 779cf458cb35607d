"""Every list alike: what a screen has room for, whole lines in a pipe, forms for programs."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from inside import Inside
from sqlalchemy import Engine, event
from terminal import uncoloured

from keyctl.services import identity

pytestmark = [pytest.mark.in_process, pytest.mark.parametrize("kind", ["sqlite"], indirect=True)]

LISTS = {
    "keys": ("list",),
    "teams": ("team", "list"),
    "users": ("user", "list"),
    "orgs": ("org", "list"),
    "events": ("audit", "list"),
    "left": ("db", "check"),
    "rules": ("schema", "rules"),
}


@pytest.fixture(name="filled")
def _filled(inside: Inside) -> Inside:
    """A team, a user, an organization and three keys."""
    inside("org", "create", "acme", "--name", "Acme", check=True)
    inside("team", "create", "web", "--org", "acme", "--max-budget", "100", check=True)
    inside("user", "create", "alice@example.com", check=True)
    inside("team", "add-member", "web", "alice@example.com", check=True)
    for alias, most in (("checkout", "20"), ("a-long-name-of-a-service-in-the-basement", "5")):
        owner = ("--team", "web", "--user", "alice@example.com")
        inside(
            *("generate", "--alias", alias, "--max-budget", most, "--duration", "30d"),
            *owner,
            check=True,
        )
    inside("generate", "--alias", "plain", check=True)
    inside("block", "plain", check=True)
    return inside


class TestOnATerminal:
    @pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
    def test_an_id_is_never_cut(self, filled: Inside, width: int) -> None:
        """Columns leave before an id loses a character, and no line is longer than the screen."""
        ids = [key["key_id"] for key in filled("list", "-o", "json").json["keys"]]

        lines = uncoloured(filled("list", terminal=width).stdout).splitlines()

        assert [line.split()[0] for line in lines[1:]] == ids
        assert max(map(len, lines)) <= width

    def test_what_80_columns_hold(self, filled: Inside) -> None:
        """Id, alias, state, what is spent and when it ends fit on the usual screen."""
        lines = uncoloured(filled("list", terminal=80).stdout).splitlines()

        assert lines[0].split() == ["key", "alias", "state", "ends"]
        assert "in 30 days" in lines[2]

    def test_what_has_no_room_is_named(self, filled: Inside) -> None:
        """On stderr, in a line; only columns in which there is something."""
        narrow, broad, piped = (filled("list", terminal=width) for width in (80, 200, None))
        chosen = filled("list", "--columns", "key_id,user_id,key_alias", terminal=40)

        assert narrow.stderr == "hidden: team, user, spent, made; -o wide shows all\n"
        assert (broad.stderr, piped.stderr, chosen.stderr) == ("", "", "")

    def test_80_columns_of_the_audit_trail_say_what_was_done_to_which(
        self, filled: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What changed stays longer than who did it, which is the same in most rows."""
        monkeypatch.setattr(identity, "local_actor", lambda: "local:somebody@a-host-of-the-team")
        filled("update", "plain", "--max-budget", "7", check=True)
        key_id = filled("info", "plain", "-o", "json").json["key_id"]

        shown = filled("audit", "list", "--limit", "1", terminal=80)

        lines = uncoloured(shown.stdout).splitlines()
        assert lines[0].split() == ["#", "when", "who", "action", "object", "changes"]
        assert lines[1].endswith(f"  local:somebo…  key_updated  {key_id}  max_budget none…")
        assert shown.stderr.splitlines()[0] == "hidden: kind; -o wide shows all"
        filled("team", "add-member", "web", "alice@example.com", "--role", "admin", check=True)
        longer = uncoloured(filled("audit", "list", "--limit", "2", terminal=80).stdout)
        assert longer.splitlines()[0].split() == ["#", "when", "action", "object", "changes"]

    def test_a_step_that_is_folded_in_leaves_room_for_another_row(self, filled: Inside) -> None:
        """Three rows are asked for and three shown, though each key was staged before it was made."""
        lines = uncoloured(
            filled("audit", "list", "--limit", "3", terminal=120).stdout
        ).splitlines()

        actions = [re.findall("key_(?:staged|generated|blocked)", line)[0] for line in lines[1:]]
        assert actions == ["key_blocked", "key_generated", "key_generated"]

    def test_folded_steps_cost_no_question_each(self, filled: Inside, tmp_path: Path) -> None:
        """Sixty keys of one batch were staged together; a page of them is asked for in a few statements."""
        keys = str(tmp_path / "keys")
        filled("generate", "--count", "60", "--out-file", keys, "-q", check=True)
        asked = []

        def note(*facts: Any) -> None:
            if "audit_events" in facts[2]:
                asked.append(facts[2])

        event.listen(Engine, "before_cursor_execute", note)
        try:
            first = filled("audit", "list", "--limit", "60", terminal=120, check=True).stdout
        finally:
            event.remove(Engine, "before_cursor_execute", note)

        assert first.count("key_generated") == 60
        assert "key_staged" not in first
        assert len(asked) <= 4

    def test_a_state_is_a_colour_and_a_word(self, filled: Inside) -> None:
        """Who sees no colours reads the word."""
        shown = filled("list", terminal=120).stdout

        assert "\x1b[31mblocked\x1b[0m" in shown
        assert "\x1b[32mactive\x1b[0m" in shown

    def test_a_budget_is_a_bar_and_two_numbers(self, filled: Inside) -> None:
        """What is used of what is allowed, in dollars."""
        filled("spend", "checkout", "--add", "17.25", check=True)

        assert "██████░░ $17.25 of $20" in filled("list", terminal=120).stdout

    def test_wide_shows_every_column(self, filled: Inside) -> None:
        """`-o wide` leaves nothing out, however narrow the screen."""
        heading = uncoloured(filled("list", "-o", "wide", terminal=80).stdout).splitlines()[0]

        assert heading.split()[:3] == ["key", "alias", "state"]
        assert heading.endswith("made by")

    @pytest.mark.parametrize("extra", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_no_colour_where_none_is_wanted(self, filled: Inside, extra: dict[str, str]) -> None:
        """NO_COLOR and a dumb terminal get no escape sequence."""
        assert "\x1b" not in filled("list", terminal=80, environment=extra).stdout

    def test_an_ascii_locale_gets_ascii(self, filled: Inside) -> None:
        """Bars and marks are drawn with what the locale has."""
        shown = filled("list", terminal=90, environment={"LC_ALL": "C", "LANG": "C"}).stdout

        assert shown.isascii()
        assert "a-long-name-of-a-service" in shown

    def test_an_empty_list_says_so(self, inside: Inside) -> None:
        """On stderr, so that stdout carries only the rows; a terminal gets no heading of nothing."""
        shown = inside("team", "list", terminal=80)
        left = inside("db", "check", terminal=80)
        piped = inside("team", "list")

        assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "", "no teams\n")
        assert left.stdout.startswith("schema: ")
        assert (left.stdout.count("\n"), left.stderr) == (1, "nothing left behind by a crash\n")
        assert piped.stdout.startswith("team_id")

    def test_rules_are_whole_at_80_columns(self, inside: Inside) -> None:
        """What a rule demands goes on in the next line; one rule alone is told whole."""
        lines = inside("schema", "rules", terminal=80, environment={"NO_COLOR": "1"}).stdout
        one = inside("schema", "rules", "team.owner_member", terminal=80)
        as_json = inside("schema", "rules", "team.owner_member", "-o", "json").json["rules"]
        wrong = inside("schema", "rules", "team.owner_membr")

        assert "…" not in lines
        assert max(map(len, lines.splitlines())) <= 80
        assert f"demands: {as_json[0]['demands']}\n" in one.stdout
        assert (wrong.exit_code, "did you mean team.owner_member" in wrong.stderr) == (2, True)
        assert inside("schema", "fields", "rpm_limit").exit_code == 2


class TestInAPipe:
    @pytest.mark.parametrize("command", LISTS.values(), ids=LISTS)
    def test_lines_are_whole_aligned_and_uncoloured(
        self, filled: Inside, command: tuple[str, ...]
    ) -> None:
        """Nothing is cut, and the columns' names stand over the values."""
        shown = filled(*command, environment={"COLUMNS": "20"}).stdout

        assert "\x1b" not in shown
        assert "…" not in shown

    def test_dates_are_whole_and_names_are_names_of_fields(self, filled: Inside) -> None:
        """A script finds the fields under their names, and instants to the second."""
        heading, first, *_ = filled("list", "--team", "web").stdout.splitlines()

        assert heading.split() == (
            [
                "key_id",
                "key_alias",
                "state",
                "team_id",
                "user_id",
                "max_budget",
                "spend",
                "expires",
                "created_at",
            ]
        )
        assert "a-long-name-of-a-service-in-the-basement" in first
        assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first)

    def test_colour_can_be_forced(self, filled: Inside) -> None:
        """FORCE_COLOR colours a pipe, as CI logs want it, and changes no word."""
        plain = filled("list").stdout
        forced = filled("list", environment={"FORCE_COLOR": "1"}).stdout

        assert "\x1b[31mblocked" in forced
        assert uncoloured(forced) == plain

    def test_no_colour_is_stronger_than_forced_colour(self, filled: Inside) -> None:
        """Both set: plain, as Python's own messages."""
        extra = {"FORCE_COLOR": "1", "NO_COLOR": "1"}

        assert "\x1b" not in filled("list", environment=extra).stdout


class TestForms:
    @pytest.mark.parametrize(("plural", "command"), LISTS.items(), ids=LISTS)
    def test_every_list_has_every_form(
        self, filled: Inside, plural: str, command: tuple[str, ...]
    ) -> None:
        """One document, one row a line, a sheet with a heading: with the same rows."""
        document = filled(*command, "-o", "json", check=True).json
        lines = filled(*command, "-o", "jsonl", check=True).stdout.splitlines()
        sheet = filled(*command, "-o", "csv", check=True).stdout

        assert [json.loads(line) for line in lines] == document[plural]
        assert len(list(csv.DictReader(io.StringIO(sheet)))) == len(document[plural])

    def test_columns_are_chosen_by_name(self, filled: Inside) -> None:
        """In any order, by the field's name or by what stands over it on a screen."""
        shown = filled("list", "--columns", "alias,max_budget", "-o", "csv", check=True).stdout

        assert shown.splitlines()[0] == "key_alias,max_budget"

    def test_an_unknown_column_is_no_empty_column(self, filled: Inside) -> None:
        """Exit 2 with the nearest name."""
        result = filled("list", "--columns", "key_id,max_buget", "-o", "json")

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.error["hint"].startswith("did you mean max_budget")

    def test_sorted_by_a_column(self, filled: Inside) -> None:
        """`--sort` reads the whole list and shows the first; `-` turns it round."""
        rising = filled("list", "--sort", "key_alias", "-o", "json", check=True).json["keys"]
        falling = filled("list", "--sort", "-alias", "--limit", "1", "-o", "json", check=True).json

        aliases = ["a-long-name-of-a-service-in-the-basement", "checkout", "plain"]
        assert [key["key_alias"] for key in rising] == aliases
        assert [key["key_alias"] for key in falling["keys"]] == ["plain"]

    def test_a_cursor_has_no_other_order(self, filled: Inside) -> None:
        """--sort and --after together are exit 2."""
        result = filled("team", "list", "--sort", "spend", "--after", "a")

        assert result.exit_code == 2
