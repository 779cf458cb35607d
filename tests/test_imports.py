"""What a command must not import, because start-up is paid for at every call."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Cli

from keyctl.cli.app import COMMANDS, Commands
from keyctl.db import queries

PROGRAM = """
import atexit, sys
names = {names!r}.split()
sys.argv[1:] = {arguments!r}
from keyctl.entry import main
atexit.register(lambda: print("imported:", *[n for n in names if n in sys.modules], file=sys.stderr))
main()
"""


def imported(cli: Cli, arguments: list[str], *names: str, stdin: str = "") -> list[str]:
    """Return which of the modules *names* a command line imports, off a terminal."""
    source = PROGRAM.format(names=" ".join(names), arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", source],
        input=stdin,
        env=cli.environment,
        cwd=cli.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr.splitlines()[-1].removeprefix("imported:").split()


HEAVY = ("sqlalchemy", "alembic", "rich", "pydantic", "bcrypt", "psycopg")
UNUSED = (
    "sqlalchemy.orm",
    "sqlalchemy.dialects.postgresql",
    "alembic",
    "rich",
    "smtplib",
    "boto3",
    "hvac",
    "kubernetes",
    "keyctl.sinks.aws",
    "keyctl.sinks.kubernetes",
    "keyctl.sinks.vault",
    "keyctl.db.queries.listing",
)
DATABASE = ("sqlalchemy", "alembic", "rich", "bcrypt", "psycopg")  # pydantic comes with any command


class TestWhatIsNotImported:
    def test_version_needs_no_typer(self, bare_cli: Cli) -> None:
        """The version is told before Typer is imported."""
        assert imported(bare_cli, ["--version"], "typer", *HEAVY) == []

    def test_help_needs_no_database(self, bare_cli: Cli) -> None:
        """Help is told without SQLAlchemy, Alembic, Rich, pydantic or any command's module."""
        own = [f"keyctl.cli.{module}" for module, _ in COMMANDS.values()]
        assert imported(bare_cli, ["--help"], *HEAVY, *own) == []

    def test_a_completion_builds_what_begins_so(self, bare_cli: Cli) -> None:
        """Of 30 commands one is built for `gen`."""
        asked = {"_KEYCTL_COMPLETE": "complete_bash", "COMP_WORDS": "keyctl gen", "COMP_CWORD": "1"}
        bare_cli.environment |= asked
        others = ("keyctl.cli.fleets", "keyctl.cli.database", "keyctl.cli.directory")

        assert imported(bare_cli, [], *others, *DATABASE) == []

    def test_the_help_of_a_command_needs_no_database(self, bare_cli: Cli) -> None:
        """What a command's options are is known without SQLAlchemy, Alembic, Rich and bcrypt."""
        for name in COMMANDS:
            assert imported(bare_cli, [name, "--help"], *DATABASE) == []

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_generate_and_verify_need_no_orm(self, cli: Cli) -> None:
        """Off a terminal generate and verify import neither ORM nor Alembic nor Rich, no vendor's client and no sink of one."""
        key = cli.key()
        assert imported(cli, ["generate"], *UNUSED) == []
        assert imported(cli, ["verify", "-"], *UNUSED, stdin=key) == []

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_list_needs_no_rules(self, cli: Cli) -> None:
        """The local operator may see every key: what judges and records others is not imported."""
        cli.key()
        rules = ("keyctl.policy.engine", "keyctl.policy.ceiling", "keyctl.services.denials")
        assert imported(cli, ["list"], *rules, "keyctl.services.verify") == []

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_reading_needs_no_models_without_a_configuration(self, cli: Cli) -> None:
        """Without a file there is nothing to validate, and Typer's adapters are not built for text."""
        key = cli.key()
        del cli.environment["KEYCTL_CONFIG"]
        models = ("pydantic.main", "keyctl.fields", "keyctl.requests", "keyctl.config.document")
        assert imported(cli, ["list"], *models) == []
        assert imported(cli, ["verify", "-"], *models, stdin=key) == []


class TestQueries:
    def test_each_question_has_one_module(self) -> None:
        """What the type checker reads of `keyctl.db.queries` is what is imported when it is asked for."""
        source = Path(queries.__file__).read_text()
        (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
        imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
        told = {
            alias.name: f"{node.module}".rpartition(".")[2]
            for node in imports
            for alias in node.names
        }
        assert told == queries._HOMES
        assert all(callable(getattr(queries, name)) for name in told)

    def test_what_does_not_exist_is_an_error(self) -> None:
        """A wrong name is told as Python tells it."""
        with pytest.raises(
            AttributeError, match=r"^module 'keyctl.db.queries' has no attribute 'find_kye'$"
        ):
            queries.find_kye  # noqa: B018


def test_the_gateway_s_library_needs_no_command_line() -> None:
    """A gateway pays for neither Typer nor Alembic nor the ORM."""
    unused = ("typer", "rich", "alembic", "sqlalchemy.orm")
    source = f"import sys, keyctl.gateway; print(*[n for n in {unused} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_tells_what_each_says_of_itself(name: str) -> None:
    """The line in keyctl's help is how the command's own help begins."""
    own = (Commands()[name].help or "").split("\n\n")[0].replace("\n", " ")
    _, line = COMMANDS[name]
    assert own.startswith(line.removesuffix("."))
