"""Declare the commands of keyctl db that copy the whole database, or let it grow no further."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from keyctl.cli.command import command
from keyctl.cli.listing import show_view
from keyctl.cli.many import ask, can_ask
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.errors import UsageError

if TYPE_CHECKING:
    from keyctl.db.database import Database

_TWO_ALIVE: Final = (
    "Everything is in the new database already. If both are used, both rotate the same keys."
    " Open this one again?"
)


def add_copies(group: typer.Typer) -> None:
    """Declare backup, copy and prune."""

    @command(group, "prune")
    def prune(
        session: Session,
        older_than: Annotated[
            str | None, typer.Option("--older-than", help="Ended longer ago: 365d.")
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show how much it would be; write nothing.")
        ] = False,
    ) -> None:
        """Remove old ended secrets, details of deleted keys and delivered events; the audit trail stays whole."""
        from keyctl.services.prune import PruneService

        service = PruneService(session.workspace)
        show_view(session, service.prunable(older_than) if dry_run else service.prune(older_than))

    @command(group, "backup")
    def backup(
        session: Session,
        file: Annotated[str, typer.Argument(metavar="FILE", help="Where the copy is to be.")],
    ) -> None:
        """Copy the SQLite database into one file while others write, and check the copy.

        To restore it, stop all writers, remove the database's -wal and -shm files, and put the copy in its place.
        """
        from keyctl.services.backup import BackupService

        show_view(session, BackupService(session.workspace).backup(Path(file)))

    @command(group, "copy")
    def copy(
        session: Session,
        target_url: Annotated[
            str | None,
            typer.Option("--target-url", help="The empty database to fill (KEYCTL_TARGET_URL)."),
        ] = None,
        abort: Annotated[
            bool, typer.Option("--abort", help="Open this database to writers again.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="With --abort: do not ask.")] = False,
    ) -> None:
        """Move everything into another database; this one is closed to writers first."""
        from keyctl.cli.given import naming
        from keyctl.db.database import Database
        from keyctl.services.move import MoveService

        session.tells_move = False  # what this command says of itself is more
        service, given = MoveService(session.workspace), session.target_url(target_url)
        if abort:
            if not yes and service.is_complete() and can_ask():
                ask(session, _TWO_ALIVE)
            show_view(session, service.abort())
            return
        if given is None:
            raise UsageError(
                "db copy needs a target", hint="set KEYCTL_TARGET_URL, or give --target-url"
            )
        with naming(given.name):
            target = Database(given.text, variable=given.name)
        try:
            again = "run the same command again: it goes on from there; --abort gives it up"
            console, steps = session.console, service.steps()
            with counted(console, "copying rows", steps, go_on=again) as step:
                report = service.copy(target, step=lambda _what, rows: step(rows))
        finally:
            target.engine.dispose()
        if session.wants_json:
            session.console.json(report)
        else:
            copied, rows = report.pop("copied"), sum(report["rows"].values())
            show_view(session, {**report, "rows": rows})
            if not copied:
                session.console.note("it was moved before; nothing was copied now")
            session.console.note(
                f"now name the new database: {_naming(target, target_url)}, or database_url_file in the"
                " configuration; the old one is closed to writers"
            )


def _naming(target: "Database", option: str | None) -> str:
    """Return the line of a shell that makes the new database the one that is used."""
    file = os.environ.get("KEYCTL_TARGET_URL_FILE")
    if file and not option and not os.environ.get("KEYCTL_TARGET_URL"):
        return f"export KEYCTL_DATABASE_URL_FILE={shlex.quote(os.path.abspath(file))}"
    line = f"export KEYCTL_DATABASE_URL={shlex.quote(target.shown)}"
    has_more = target.address.url.password or target.address.url.query
    return f"{line} with the URL's password and parameters" if has_more else line
