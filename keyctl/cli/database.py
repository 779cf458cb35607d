"""Declare the commands of keyctl db."""

from typing import Annotated, Any, Final

import typer

from keyctl.cli.command import command, declare_group
from keyctl.cli.database_copies import add_copies
from keyctl.cli.listing import Page, check_whole, show_list, show_view, whole
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout, show_table

_LEFT: Final = (
    Column("key_id", "key", "id", rank=0),
    Column("key_alias", "alias", rank=3),
    Column("problem", rank=1),
    Column("until", kind="instant", rank=4),
)
_NOTHING: Final = "nothing left behind by a crash"
_COMMAND, _RESULT = Column("command", kind="id", rank=2), Column("result", rank=2)
LEFT: Final = Layout("left", (*_LEFT, _COMMAND), nothing=_NOTHING)
REPAIRED: Final = Layout("left", (*_LEFT, _RESULT), (_COMMAND,), nothing=_NOTHING)


def add_to(app: typer.Typer) -> None:
    """Declare the group and its commands."""
    group = declare_group(app, "db", "The database: its schema, and what crashes left.")
    add_copies(group)

    @command(group, "upgrade")
    def upgrade(session: Session) -> None:
        """Bring the schema to this version, wholly or not at all."""
        from keyctl.services.callers import require_admin

        if session.acts_by_key:
            require_admin(
                session.workspace, "upgrade the database", "database_upgrade_denied", "database"
            )
        from keyctl.services.repair import rights_lost

        before, after = session.database.upgrade()
        view: dict[str, Any] = {
            "database": session.database.shown,
            "before": before,
            "after": after,
            **rights_lost(session.database),
        }
        if session.wants_json:
            session.console.json(view)
            return
        lost = view.pop("administers_lost")
        show_view(session, view)
        _show_lost(session, lost)

    @command(group, "status", reads=True)
    def status(session: Session) -> None:
        """Show the schema's version, and this program's."""
        from keyctl.db.schema import HEAD, move_of

        revision = session.database.revision()
        state = "missing" if revision is None else "current" if revision == HEAD else "older"
        if (move := move_of(revision)) is not None:
            state = move.stage
        elif revision is not None and revision > HEAD:
            state = "newer"
        show_view(
            session,
            {
                "database": session.database.shown,
                "revision": revision,
                "wanted": HEAD,
                "state": state,
            },
        )

    @command(group, "check", layout=LEFT, limit=10_000)
    def check(
        session: Session,
        page: Page,
        repair: Annotated[
            bool, typer.Option("--repair", help="Archive and rotate what can be cleared.")
        ] = False,
    ) -> None:
        """List what a crash left behind, and with --repair clear it."""
        from keyctl.services.repair import CheckService

        layout = REPAIRED if repair else LEFT
        check_whole(layout, page)
        service = CheckService(session.workspace)
        report = service.repair() if repair else service.check()
        if session.output in ("auto", "table", "wide"):
            session.console.write(f"schema: {report['revision']}\n")
        left = report.pop("left")
        show_list(session, layout, page, whole(left), **report)
        if session.output in ("auto", "table", "wide"):
            _show_lost(session, report["administers_lost"])
            if earlier := report.get("earlier_routes"):
                session.console.write("\nThese keys reach files, batches and more, as they did:\n")
                show_table(session.console, ("key_id", "key_alias", "command"), earlier)
            if spoiled := report.get("unreadable"):
                session.console.write("\nThese rows cannot be read:\n")
                show_table(session.console, ("object_type", "object_id", "columns"), spoiled)


def _show_lost(session: Session, lost: list[dict[str, Any]]) -> None:
    """Say which secrets may not be used as a caller any more; nothing where there is none."""
    if lost:
        session.console.write("\nThese secrets are from before it was stored whom they act for.\n")
        session.console.write("They authenticate, but administer nothing until an admin says so:\n")
        show_table(session.console, ("key_id", "key_alias", "secret_id", "command"), lost)
