"""What a command must not import, because start-up is paid for at every call."""

import subprocess
import sys

import pytest
from harness import Cli

from keyctl.cli.app import COMMANDS, Commands

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

    def test_the_help_of_a_command_needs_no_database(self, bare_cli: Cli) -> None:
        """What a command's options are is known without SQLAlchemy, Alembic, Rich and bcrypt."""
        for name in COMMANDS:
            assert imported(bare_cli, [name, "--help"], *DATABASE) == []

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_generate_and_verify_need_no_orm(self, cli: Cli) -> None:
        """Off a terminal generate and verify import neither ORM nor Alembic nor Rich, and no vendor's client."""
        key = cli.key()
        assert imported(cli, ["generate"], *UNUSED) == []
        assert imported(cli, ["verify", "-"], *UNUSED, stdin=key) == []


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
