"""Declare the commands of keyctl audit."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from keyctl.cli.command import command
from keyctl.cli.listing import Page, show_list
from keyctl.cli.progress import progress
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout, csv_text
from keyctl.errors import UsageError

if TYPE_CHECKING:
    from keyctl.db.queries.audit import Head
    from keyctl.services.audit import EventFilter

EVENTS: Final = Layout(
    "events",
    (
        Column("seq", "#", "id", rank=0),
        Column("at", "when", "instant", rank=2),
        Column("actor", "who", rank=4),
        Column("changed_by", "for", rank=7),
        Column("action", rank=1),
        Column("object_type", "kind", rank=6),
        Column("object_id", "object", "id", rank=3),
        Column("reason", rank=5),
    ),
)
COLUMNS: Final = tuple(column.name for column in EVENTS.columns)
Key = Annotated[str | None, typer.Option("--key", help="Only events of this key.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Only what this actor did.")]
Action = Annotated[
    str | None, typer.Option("--action", help="Only this: key_generated, key_*, denied, …")
]
Since = Annotated[str | None, typer.Option("--since", help="From this instant on.")]
Until = Annotated[str | None, typer.Option("--until", help="Before this instant.")]


def add_to(app: typer.Typer) -> None:
    """Declare the group and its commands."""
    group = typer.Typer(
        help="The audit trail: who changed what.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.add_typer(group, name="audit")

    @command(group, "list", layout=EVENTS)
    def list_(
        session: Session,
        page: Page,
        key: Key = None,
        actor: Actor = None,
        action: Action = None,
        since: Since = None,
        until: Until = None,
    ) -> None:
        """List events, the newest first."""
        from keyctl.services.audit import AuditService

        wanted, service = _filter(key, actor, action, since, until), AuditService(session.workspace)
        show_list(
            session,
            EVENTS,
            page,
            lambda after, limit: service.page(wanted, after=_cursor(after), limit=limit),
        )

    @command(group, "export", outputs=("auto", "jsonl", "csv"), reads=True)
    def export(
        session: Session,
        key: Key = None,
        actor: Actor = None,
        action: Action = None,
        since: Since = None,
        until: Until = None,
    ) -> None:
        """Print every event with its hashes, the oldest first."""
        from keyctl.services.audit import AuditService

        session.console.require_stdout()
        events = AuditService(session.workspace).export(_filter(key, actor, action, since, until))
        if session.output == "csv":
            session.console.write(csv_text(COLUMNS, [], heading=True))
            for event in events:
                session.console.write(csv_text(COLUMNS, [event], heading=False))
        else:
            session.console.lines(events)

    @command(group, "verify", reads=True)
    def verify(
        session: Session,
        expect_head: Annotated[
            str | None, typer.Option("--expect-head", help="A hash that was kept elsewhere.")
        ] = None,
        at_seq: Annotated[
            int | None, typer.Option("--at-seq", min=1, help="The event that it is the hash of.")
        ] = None,
    ) -> None:
        """Walk the whole chain; exit 11 if it does not hold.

        The first event that does not fit is named.
        """
        from keyctl.services.audit import AuditService

        expected = _expected(expect_head, at_seq)
        service = AuditService(session.workspace)
        with progress("verifying", service.count()) as advance:
            head = service.verify(expected=expected, step=advance)
        if session.wants_json:
            session.console.json({"valid": True, "seq": head.seq, "head": head.hash})
        else:
            session.console.write(f"{head.seq} events, unbroken: {head.hash}\n")

    @command(group, "head", reads=True)
    def head(session: Session) -> None:
        """Print the sequence number and hash of the last event."""
        from keyctl.services.audit import AuditService

        found = AuditService(session.workspace).head()
        if session.wants_json:
            session.console.json(found)
        else:
            session.console.write(f"{found['seq']} {found['head']}\n")


def _cursor(after: str | int | None) -> int | None:
    """Return the number of the event to go on behind.

    Raises:
        UsageError: It is none.
    """
    if after is None or isinstance(after, int):
        return after
    # Nineteen digits and more do not fit into the column.
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise UsageError(
            "--after takes the number of an event", hint="take it from `next`, or the column seq"
        )
    return int(after)


def _filter(
    key: str | None, actor: str | None, action: str | None, since: str | None, until: str | None
) -> "EventFilter":
    from keyctl import actions
    from keyctl.requests import parse_instant
    from keyctl.services.audit import EventFilter

    names = None if action is None else actions.matching(action)
    if names is not None and not names:
        raise UsageError(f"there is no action {action!r}", hint="keyctl schema event lists them")
    try:
        first = None if since is None else parse_instant(since)
        last = None if until is None else parse_instant(until)
    except ValueError as error:
        raise UsageError(
            f"--since or --until: {error}", hint="such as 2030-01-31T12:00:00Z"
        ) from None
    return EventFilter(key=key, actor=actor, actions=names, since=first, until=last)


def _expected(hash_: str | None, seq: int | None) -> "Head | None":
    from keyctl.db.queries.audit import Head

    if (hash_ is None) != (seq is None):
        raise UsageError(
            "--expect-head and --at-seq go together", hint="keyctl audit head prints both"
        )
    if hash_ is None or seq is None:
        return None
    if len(hash_) != 64 or set(hash_) - set("0123456789abcdef"):
        raise UsageError("--expect-head takes 64 hex digits", hint="as keyctl audit head printed")
    return Head(seq, hash_)
