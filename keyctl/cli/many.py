"""Do one thing to many keys: choose them, ask first, show how far it is, and what became of each."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import typer

from keyctl.cli import screen
from keyctl.cli.console import one_line
from keyctl.cli.keys import named
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.errors import BatchError, ExitCode, KeyctlError, UsageError

if TYPE_CHECKING:
    from keyctl.db.queries import KeyFilter
    from keyctl.services.keys.end import Ended

NAMED: Final = 10


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
    what = f"{verb} {screen.count(len(given), 'key')}"
    if not can_ask():
        if len(given) == 1 and not filtered:
            return
        raise UsageError(
            f"{what}: not without --yes", hint="look with --dry-run first, then give --yes"
        )
    if len(given) == 1 and not (filtered or asks_for_one):
        return
    from keyctl.services.keys.read import KeyService

    names = KeyService(session.workspace).names(given[:NAMED])
    ask(session, f"{verb} {some(names, len(given))}?")


def some(names: Sequence[str], number: int) -> str:
    """Return how many keys they are, with the *names* of the first ten."""
    more = f" and {number - NAMED} more" if number > NAMED else ""
    return f"{screen.count(number, 'key')} ({one_line(', '.join(names[:NAMED]))}{more})"


def can_ask() -> bool:
    """Tell whether a person is there who reads a question and can answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(session: Session, question: str) -> None:
    """Ask whether to do it, and leave with exit 130 where it is not wanted."""
    if not typer.confirm(question, err=True):
        session.console.note("nothing was changed")
        raise typer.Exit(ExitCode.INTERRUPTED)


def each(
    session: Session,
    verb: str,
    given: Sequence[str],
    act: "Callable[[Callable[[int], None]], list[Ended]]",
) -> "list[Ended]":
    """Do it to all keys, with a bar on stderr that *act* is told to move; Ctrl-C says how far it came."""
    again = f"run it again to {verb} the rest"
    with counted(session.console, verb, len(given), go_on=again) as step:
        return act(step)


def chosen(
    session: Session,
    keys: Sequence[str] | None,
    wanted: "KeyFilter | None",
    expected: int | None,
    *,
    yes: bool,
) -> list[str]:
    """Return the keys named one by one, or all that match the filter.

    Raises:
        UsageError: Neither or both were given, it is another number than *expected*, or a key is
            named by the beginning of its id and nobody is asked.
        NotFoundError: The filter names what does not exist.
    """
    from keyctl.services.keys.filters import checked
    from keyctl.services.keys.read import KeyService

    if bool(keys) == (wanted is not None):
        raise UsageError("give either keys or a filter", hint="such as --team web")
    if wanted is not None:
        wanted = checked(session.workspace, wanted)
        found = [view["key_id"] for view in KeyService(session.workspace).every(wanted)]
    else:
        given = keys or ()
        if given.count("-") > 1:
            raise UsageError("- can be given once: stdin holds one key", hint="use ids")
        found = [_whole(named(key), yes=yes) for key in given]
    if expected is not None and len(found) != expected:
        raise UsageError(
            f"--expect-count {expected}, but it is {screen.count(len(found), 'key')}; nothing was changed",
            hint="look with --dry-run",
        )
    return found


def _whole(given: str, *, yes: bool) -> str:
    """Refuse the beginning of an id where nobody is asked: another key may fit it tomorrow."""
    from keyctl.services.keys.find import LENGTH_OF_ID

    if yes and given.startswith("key_") and len(given) < LENGTH_OF_ID:
        raise UsageError(
            f"with --yes a key is named by its whole id, and {given!r} is none",
            hint="keyctl info shows the id",
        )
    return given


def report(session: Session, ended: "Sequence[Ended]") -> None:
    """Show what became of each key; one that fails alone is the command's own failure."""
    failed = [item for item in ended if item.error is not None]
    if len(ended) == 1 and failed and failed[0].error is not None:
        raise failed[0].error
    results = [
        {
            "given": public(item.given),
            "key_id": item.key_id,
            "result": item.result,
            "reason": None if item.error is None else item.error.code,
        }
        for item in ended
    ]
    anchor = next((item.audit for item in reversed(ended) if item.audit), None)
    if session.wants_json:
        session.console.json({"results": results, "audit": anchor})
    else:
        for line in results:
            why = f" ({line['reason']})" if line["reason"] else ""
            text = f"{line['key_id'] or line['given']}: {line['result']}{why}"
            session.console.outcome(text, failed=line["result"] == "failed")
    if failed:
        raise BatchError(
            f"{len(failed)} of {len(ended)} keys failed", hint="the results say which and why"
        )


def warn_of_issued(session: Session, key_ids: Sequence[str]) -> None:
    """Say which keys that were ended, or lost a secret, made others which still work.

    A thief of a key string that administers may have made keys with it before it ended.  What cannot
    be read is a warning: the keys are ended, whatever comes of this.
    """
    from keyctl.services.keys.read import KeyService

    try:
        found = KeyService(session.workspace).working_issued(key_ids) if key_ids else {}
    except KeyctlError as error:
        session.console.warn(
            "it is not known whether keys that were made with it still work:"
            f" {error.message}; keyctl list --issued-by {key_ids[0]}"
        )
        return
    for key_id, number in list(found.items())[:NAMED]:
        this = "this key" if len(key_ids) == 1 else key_id
        verbs = (
            "was made with {} and still works"
            if number == 1
            else "were made with {} and still work"
        )
        session.console.warn(
            f"{screen.count(number, 'key')} {verbs.format(this)}: keyctl list --issued-by {key_id}"
        )
    if len(found) > NAMED:
        session.console.warn(f"{len(found) - NAMED} more of these keys made others that still work")


def public(given: str) -> str:
    """Return what was given for a key, as it may be shown."""
    # A key string that came by stdin is not printed again.
    from keyctl import keystring

    return "-" if keystring.looks_secret(given) else given
