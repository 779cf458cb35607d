"""Declare the root command, and turn every error into its exit status, here and nowhere else."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from keyctl import __version__, keystring
from keyctl.cli.console import Console, ReaderGone
from keyctl.cli.meant import KeyGroup, plainly
from keyctl.errors import ExitCode, KeyctlError, SecretInArgumentError, UsageError

# Which module of this package declares a command, and its line in the help.  Building all of them
# to run or list one would cost every start more than Typer itself does.
COMMANDS: Final = {
    "status": (
        "status",
        "Show in one screen what exists, what is due, what ends soon and what failed.",
    ),
    "generate": ("generate", "Create a key and deliver its secret once."),
    "verify": ("keys", "Check a presented key: whose, and is it valid?"),
    "list": ("keys", "List keys, the newest first."),
    "info": ("keys", "Show what a key may do, and its secrets."),
    "update": ("update", "Change limits and settings; what is not named stays."),
    "block": ("changes", "Suspend keys; unblock lets them in again."),
    "unblock": ("changes", "Let blocked keys in again."),
    "delete": ("changes", "Delete keys for good; their records are archived."),
    "revoke": ("changes", "End the old secrets of a key now; its active secret goes on."),
    "rotate": ("rotate", "Give a key a new secret; the old one lives on for a grace period."),
    "spend": ("changes", "Correct what a key, a team, a user or an organization has spent."),
    "budget": ("budgets", "Budget tiers, and budget periods."),
    "team": ("directory", "Teams: who shares models, budgets and a policy."),
    "user": ("directory", "Users: who owns keys, and with which role."),
    "org": ("directory", "Organizations: what teams belong to."),
    "plan": (
        "plan",
        "Show what apply would change; exit 10 if anything, 4 if a rule is against it.",
    ),
    "apply": (
        "apply",
        "Make the database match files: owners and changes at once, then new keys in batches.",
    ),
    "export": ("export", "Write what is stored as a fleet file: what apply would take."),
    "import": ("importing", "Take over another gateway's keys."),
    "audit": ("audit", "The audit trail: who changed what."),
    "events": ("events", "The outbox: events on their way to hooks."),
    "metrics": ("watching", "Print numbers for a monitoring system, as OpenMetrics text."),
    "remind": ("watching", "Tell hooks what ends, is late or is spent, each once."),
    "db": ("database", "The database: its schema, and what crashes left."),
    "config": ("config", "The configuration."),
    "schema": ("schema", "Print the JSON Schema of a request, an answer or the policy."),
    "help": ("status", "Show the help of a command, as its --help does."),
    "version": ("status", "Show the version of the program, and the schema it works with."),
}


@cache
def _built(name: str) -> Any:
    """Import the module of a command and build it."""
    module, _ = COMMANDS[name]
    part = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    import_module(f"keyctl.cli.{module}").add_to(part)
    return typer.main.get_group(part).commands[name]


class Commands(Mapping[str, Any]):
    """The commands by name, each built when it is first asked for."""

    def __getitem__(self, name: str) -> Any:
        return _built(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Root(KeyGroup):
    """The root group.  Everything that fails below it is reported here, in the asked-for form."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Commands()  # type: ignore[assignment]  # nobody adds to them

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names without building the commands, as Typer does: a completion asks for names."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table of commands without building them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Say where examples are, and how the shell completes."""
        formatter.write_paragraph()
        formatter.write_text(
            "keyctl help COMMAND shows examples, groups of options and exit codes;"
            " keyctl --install-completion makes the shell complete commands, values and names."
        )

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; exits with its status, or returns it outside standalone mode."""
        arguments = list(sys.argv[1:] if args is None else args)
        closed = extra.pop("closed", frozenset())
        console = Console.of(arguments, os.environ, closed=closed)
        try:
            refuse_secrets(arguments)
            refuse_bytes(arguments)
            status = super().main(
                args=arguments,
                prog_name="keyctl",
                complete_var=complete_var,
                standalone_mode=False,
                obj=console,
                **extra,
            )
        except KeyctlError as error:
            status = console.fail(error)
        except ReaderGone:
            status = ExitCode.OK
        except typer.TyperException as error:
            status = _report(console, error, arguments)
        except typer.Abort:
            status = ExitCode.INTERRUPTED
        status = int(status or 0)
        if standalone_mode:
            sys.exit(status)
        return status


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Refuse arguments that other users can see in the process list and that hold a secret.

    Raises:
        SecretInArgumentError: One does.  It is not repeated.
    """
    for argument in arguments:
        if keystring.looks_secret(argument):
            raise SecretInArgumentError(
                "an argument looks like a key string, and arguments are visible to others",
                hint="give the key's id, its alias or sk-<id>, or give - and the key string on stdin",
            )


def refuse_bytes(arguments: Sequence[str]) -> None:
    """Refuse arguments that are no text: no database could hold them or be asked for them.

    Raises:
        UsageError: One is not.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(
                "an argument holds bytes that are not text",
                hint="give it in the encoding of the locale, best UTF-8",
            ) from None


def _report(console: Console, error: typer.TyperException, arguments: Sequence[str]) -> int:
    """Report what Typer found wrong; a group without a command is asking for its help, as it is."""
    said = keystring.redact(error.format_message())
    context = getattr(error, "ctx", None)
    if context is not None and not console.speaks_json and said == context.get_help():
        console.note(said)
        return int(UsageError.exit_code)
    return console.fail(UsageError(plainly(error, arguments, said), hint=_help_hint(error)))


def _help_hint(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"try: {context.command_path if context else 'keyctl'} --help"


app = typer.Typer(
    name="keyctl",
    cls=Root,
    help="Issue, limit, rotate and revoke the API keys of an LLM gateway, offline.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # As wide as the terminal, up to what an eye follows.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"keyctl {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Show the version of keyctl."
        ),
    ] = False,
) -> None:
    """Issue, limit, rotate and revoke the API keys of an LLM gateway, offline."""


def run(arguments: Sequence[str], *, closed: frozenset[int]) -> int:
    """Run a command line and return its exit status; *closed* tells which of stdin, stdout and stderr were."""
    command = typer.main.get_command(app)
    return int(command.main(args=arguments, standalone_mode=False, closed=closed))
