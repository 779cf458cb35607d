"""keyctl audit."""

from typing import Annotated, Final

import typer

from keyctl.cli.command import command
from keyctl.cli.session import Session
from keyctl.cli.tables import show_table
from keyctl.errors import UsageError

COLUMNS: Final = (
    "seq",
    "at",
    "actor",
    "changed_by",
    "action",
    "object_type",
    "object_id",
    "reason",
)


def add_to(app: typer.Typer) -> None:
    """Declare the group and its commands."""
    group = typer.Typer(
        help="The audit trail: who changed what.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.add_typer(group, name="audit")

    @command(group, "list", outputs=("auto", "json", "jsonl", "table"))
    def list_(
        session: Session,
        key: Annotated[str | None, typer.Option("--key", help="Only events of this key.")] = None,
        actor: Annotated[
            str | None, typer.Option("--actor", help="Only what this actor did.")
        ] = None,
        action: Annotated[
            str | None, typer.Option("--action", help="Only this: key_generated, …")
        ] = None,
        since: Annotated[str | None, typer.Option("--since", help="From this instant on.")] = None,
        until: Annotated[str | None, typer.Option("--until", help="Before this instant.")] = None,
        limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")] = 100,
        after: Annotated[
            int | None, typer.Option("--after", help="Go on behind this event.")
        ] = None,
    ) -> None:
        """List events, the newest first."""
        from keyctl.requests import parse_instant
        from keyctl.services.audit import AuditService

        try:
            first = None if since is None else parse_instant(since)
            last = None if until is None else parse_instant(until)
        except ValueError as error:
            raise UsageError(
                f"--since or --until: {error}", hint="such as 2030-01-31T12:00:00Z"
            ) from None
        events, following = AuditService(session.workspace).page(
            key=key, actor=actor, action=action, since=first, until=last, after=after, limit=limit
        )
        if session.wants_json:
            session.console.json({"events": events, "next": following})
        elif session.output == "jsonl":
            session.console.lines(events)
        else:
            show_table(session.console, COLUMNS, events)
        if following is not None and not session.wants_json:
            session.console.note(f"more: --after {following}")

    @command(group, "head")
    def head(session: Session) -> None:
        """Print the sequence number and hash of the last event."""
        from keyctl.services.audit import AuditService

        found = AuditService(session.workspace).head()
        if session.wants_json:
            session.console.json(found)
        else:
            session.console.write(f"{found['seq']} {found['head']}\n")
