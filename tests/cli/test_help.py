"""What the help says, what the shell completes, and what is silent with --quiet."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from command_tree import commands
from harness import KEYCTL, Cli
from inside import Inside

import keyctl
from keyctl.cli.examples import EXAMPLES
from keyctl.cli.fields import KEY_TYPES, LIMIT_TYPES, USER_ROLES
from keyctl.cli.helping import Described

pytestmark = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


TAKEN: Final[dict[Any, tuple[str, ...]]] = {
    "--key-type": KEY_TYPES,
    "--rpm-limit-type": LIMIT_TYPES,
    "--tpm-limit-type": LIMIT_TYPES,
    "--role": USER_ROLES,
    ("team add-member", "--role"): ("admin", "user"),
    ("team update-member", "--role"): ("admin", "user"),
    ("org add-member", "--role"): ("org_admin", "internal_user"),
}


class TestHelp:
    def test_every_command_has_an_example(self, kind: str) -> None:
        """Also in the help of the newest one; `help` is its own."""
        assert {words for words, _ in commands()} - {"help"} == set(EXAMPLES)

    def test_every_example_is_understood(self, kind: str) -> None:
        """Its options exist and take such values: the parser says so."""
        known = dict(commands())
        for words, lines in EXAMPLES.items():
            for line in lines:
                assert f"keyctl {words}" in line
                tail = line.partition(f"keyctl {words}")[2].split(" <")[0].split(" >")[0]
                arguments = shlex.split(tail.removesuffix(")"))
                context = known[words].make_context(words, arguments, obj=None)
                assert context.params is not None

    def test_options_stand_in_groups(self, inside: Inside) -> None:
        """Whose, limits, life, delivery, safety, shown, caller: in this order."""
        shown = inside("generate", "--help", environment={"COLUMNS": "100"}).stdout

        headings = [line for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
        assert headings == [
            "Whose it is:",
            "Many at once:",
            "Limits:",
            "How long it lives:",
            "Where the key goes:",
            "Other fields:",
            "Safety:",
            "How it is shown:",
            "Who acts, and on what:",
            "Options:",
            "Examples:",
            "Shape of -o json:",
            "Environment:",
            "Exit codes:",
            "Manual:",
        ]

    def test_every_page_that_the_help_names_is_there(self, inside: Inside) -> None:
        """By its whole path, so that it can be opened from any folder."""
        shown = inside("generate", "--help").stdout.partition("Manual:\n")[2]
        pages = re.findall(r"(/\S+\.md): ", shown)

        assert [Path(page).name for page in pages] == ["tasks.md", "reference.md"]
        assert all(Path(page).is_file() for page in pages)

    def test_no_text_of_the_program_names_a_page_beside_the_current_folder(self, kind: str) -> None:
        """Whoever installed a wheel has no folder docs/ there."""
        sources = Path(keyctl.__file__).parent.rglob("*.py")

        assert [path for path in sources if "docs/" in path.read_text("utf-8")] == []

    def test_what_an_option_takes_has_a_name_and_never_a_type_of_python(self, kind: str) -> None:
        """TEXT, NUMBER, KEY, WHEN: in every command's usage, arguments and options."""
        for words, command in commands():
            context = typer.Context(command, info_name=words)
            names = [
                record[0]
                for item in command.get_params(context)
                if (record := item.get_help_record(context)) is not None
            ]
            shown = " ".join([*command.collect_usage_pieces(context), *names])
            assert not re.search(r"<|list\[|range|\[\[|\{|None", shown), (words, shown)

    def test_the_bounds_of_a_number_are_words(self, inside: Inside) -> None:
        """Not `1<=x<=100000`."""
        assert "[1 to 100000]" in " ".join(inside("generate", "--help").stdout.split())
        assert "[1 or more]" in " ".join(inside("rotate", "--help").stdout.split())

    @pytest.mark.parametrize(
        ("words", "flag"),
        [
            ("generate", "--key-type"),
            ("update", "--rpm-limit-type"),
            ("generate", "--tpm-limit-type"),
            ("user create", "--role"),
            ("team add-member", "--role"),
            ("team update-member", "--role"),
            ("org add-member", "--role"),
        ],
    )
    def test_each_word_that_an_option_takes_has_its_meaning(
        self, kind: str, words: str, flag: str
    ) -> None:
        """Not a bare list of words."""
        option = next(item for item in dict(commands())[words].params if flag in item.opts)
        said = dict(part.split(": ", 1) for part in option.help.split("; "))

        assert set(said) == set(TAKEN[words, flag] if words.endswith("member") else TAKEN[flag])

    @pytest.mark.parametrize(
        ("words", "usage"),
        [
            ("info", "keyctl info [OPTIONS] KEY"),
            ("verify", "keyctl verify [OPTIONS] [-]"),
            ("revoke", "keyctl revoke [OPTIONS] KEY [SECRET_ID…]"),
            ("update", "keyctl update [OPTIONS] [KEY…]"),
            ("help", "keyctl help [OPTIONS] [COMMAND…]"),
            ("list", "keyctl list [OPTIONS]"),
        ],
    )
    def test_the_usage_has_brackets_around_what_may_be_left_out(
        self, inside: Inside, words: str, usage: str
    ) -> None:
        """And none around the rest."""
        assert inside(words, "--help").stdout.splitlines()[0] == f"Usage: {usage}"

    def test_every_command_s_help_is_of_this_kind(self, kind: str) -> None:
        """Nobody declares one past the others."""
        assert {type(command) for words, command in commands() if words != "help"} == {Described}


class TestCompletion:
    @pytest.mark.parametrize(
        ("line", "found"),
        [
            ("keyctl sta", ["status"]),
            ("keyctl list --state bl", ["blocked"]),
            ("keyctl list -o js", ["json", "jsonl"]),
            ("keyctl schema rul", ["rules", "rules-response"]),
            ("keyctl user create bob --role org", ["org_admin"]),
            ("keyctl list --team w", ["web"]),
            ("keyctl team info w", ["web"]),
            ("keyctl team add-member web al", ["alice@example.com"]),
            ("keyctl info ch", ["checkout"]),
            ("keyctl info nothing", []),
        ],
    )
    def test_words_and_names(self, inside: Inside, line: str, found: list[str]) -> None:
        """Closed sets, and what is in the database."""
        inside("team", "create", "web", check=True)
        inside("user", "create", "alice@example.com", check=True)
        inside("generate", "--alias", "checkout", check=True)

        assert completed(inside, line) == found

    def test_is_silent_where_the_database_is_away(self, inside: Inside) -> None:
        """Neither an error nor a long wait."""
        away = {"KEYCTL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}

        assert completed(inside, "keyctl list --team w", away) == []


def completed(inside: Inside, line: str, extra: dict[str, str] | None = None) -> list[str]:
    """Return what bash would offer at the end of *line*."""
    asked = {
        "_KEYCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    shown = inside(environment={**asked, **(extra or {})})
    assert shown.stderr == ""
    return shown.stdout.split()


class TestQuiet:
    def test_cron_hears_nothing_of_what_went_well(self, cli: Cli) -> None:
        """Neither stdout nor stderr, so that nobody gets a mail."""
        cli("generate", "--alias", "a", check=True)
        silent = ("", "")

        for command in (
            ("rotate", "--due", "-q"),
            ("budget", "reset", "--due", "-q"),
            ("events", "deliver", "-q"),
            ("block", "a", "--quiet"),
        ):
            done = cli(*command, check=True)
            assert (done.stdout, done.stderr) == silent

    def test_the_key_is_still_delivered(self, inside: Inside) -> None:
        """What was asked for is no talk."""
        made = inside("generate", "-q", check=True)

        assert made.stdout.startswith("sk-")
        assert made.stderr == ""

    def test_failures_speak(self, inside: Inside) -> None:
        """An error is an error."""
        assert inside("info", "nobody", "-q").stderr.startswith("error: ")


class TestEarlyEnds:
    def test_a_reader_that_has_seen_enough_ends_a_list_silently(self, cli: Cli) -> None:
        """`| head -1` is exit 0, and nothing is on stderr."""
        cli("generate", "--count", "300", "--alias", "key-of-some-length-{n}", check=True)

        for command in ("list --all -o jsonl", "audit list --all -o json", "audit export"):
            done = subprocess.run(
                [
                    "bash",
                    "-c",
                    f"{KEYCTL[0]} -m keyctl {command} | head -1; echo ${{PIPESTATUS[0]}}",
                ],
                env=cli.environment,
                cwd=cli.home,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert (done.stdout.splitlines()[-1], done.stderr) == ("0", "")
