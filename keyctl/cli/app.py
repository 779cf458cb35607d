"""The root command, and the one place where an error becomes an exit status."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from keyctl import __version__, keystring
from keyctl.cli import (
    audit,
    changes,
    config,
    database,
    directory,
    generate,
    keys,
    rotate,
    schema,
)
from keyctl.cli.console import Console
from keyctl.errors import ExitCode, KeyctlError, SecretInArgumentError, UsageError


class Root(TyperGroup):
    """The root group.  Everything that fails below it is reported here, in the asked-for form."""

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
        except typer.TyperException as error:
            usage = UsageError(keystring.redact(error.format_message()), hint=_help_hint(error))
            status = console.fail(usage)
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
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"keyctl {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Issue, limit, rotate and revoke the API keys of an LLM gateway, offline."""


for _module in (generate, keys, changes, rotate, directory, audit, database, config, schema):
    _module.add_to(app)


def run(arguments: Sequence[str], *, closed: frozenset[int]) -> int:
    """Run a command line and return its exit status; *closed* tells which of stdin, stdout and stderr were."""
    command = typer.main.get_command(app)
    return int(command.main(args=arguments, standalone_mode=False, closed=closed))
