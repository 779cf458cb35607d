"""Do one thing to many keys: ask first, show how far it is, and say where Ctrl-C stopped it."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import typer

from keyctl.cli.console import one_line
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from keyctl.services.keys.end import Ended

_NAMED: Final = 10


def confirm(
    session: Session,
    verb: str,
    given: Sequence[str],
    *,
    yes: bool,
    filtered: bool,
    asks_for_one: bool = False,
) -> None:
    """Ask whether to *verb* these keys, naming the first ten; with *asks_for_one* also about a single one.

    Raises:
        UsageError: They are several, or a filter chose them, and nobody can be asked.
    """
    if yes or not given:
        return
    what = f"{verb} {len(given)} keys" if len(given) != 1 else f"{verb} 1 key"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        if len(given) == 1 and not filtered:
            return
        raise UsageError(f"{what}: not without --yes", hint="look with --dry-run first")
    if len(given) == 1 and not (filtered or asks_for_one):
        return
    from keyctl.services.keys.read import KeyService

    names = KeyService(session.workspace).names(given[:_NAMED])
    more = f" and {len(given) - _NAMED} more" if len(given) > _NAMED else ""
    if not typer.confirm(f"{what} ({one_line(', '.join(names))}{more})?", err=True):
        raise typer.Exit(ExitCode.INTERRUPTED)


def each(
    session: Session, verb: str, given: Sequence[str], act: "Callable[[str], Ended]"
) -> "list[Ended]":
    """Do it to each key, with a bar on stderr; Ctrl-C says how far it came."""
    ended = []
    again = f"run it again to {verb} the rest"
    with counted(session.console, verb, len(given), go_on=again) as step:
        for key in given:
            ended.append(act(key))
            step(1)
    return ended
