"""Declare the commands of keyctl events."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl.cli.command import command
from keyctl.cli.session import Session
from keyctl.cli.signals import stoppable
from keyctl.cli.tables import show_table
from keyctl.errors import BatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyctl.services.events.sender import Sent

COLUMNS: Final = ("event_id", "hook", "event", "seq", "attempts", "next_at", "last_error")
DELIVERED: Final = ("event_id", "hook", "event", "seq", "attempts", "delivered_at")
OUTPUTS: Final = ("auto", "json", "jsonl", "table")


def add_to(app: typer.Typer) -> None:
    """Declare the group and its commands."""
    group = typer.Typer(
        help="The outbox: events on their way to hooks.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.add_typer(group, name="events")

    @command(group, "deliver", outputs=OUTPUTS)
    def deliver(
        session: Session,
        most: Annotated[
            int | None, typer.Option("--max", min=1, help="So many at the most.")
        ] = None,
        deadline: Annotated[
            str | None, typer.Option("--deadline", help="Begin none after this: 5m.")
        ] = None,
    ) -> None:
        """Send what is due (for cron).

        Nothing to do is exit 0, and any number of hosts may run it.
        """
        from keyctl import durations
        from keyctl.services.events.sender import DeliverOrder
        from keyctl.services.events.service import EventService

        seconds = None if deadline is None else float(durations.parse_duration(deadline).seconds)
        service = EventService(session.workspace)
        with stoppable() as stopped:
            order = DeliverOrder(most=most, seconds=seconds, stopped=stopped)
            failed = _show(session, service.deliver(order))
        for hook, count in service.stranded().items():
            session.console.note(f"{count} events wait for {hook}, which is not configured here")
        _judge(failed)
        if stopped():
            raise typer.Exit(130)

    @command(group, "list", outputs=OUTPUTS)
    def list_(
        session: Session,
        failed: Annotated[
            bool, typer.Option("--failed", help="Only what was tried in vain.")
        ] = False,
        delivered: Annotated[
            bool, typer.Option("--delivered", help="What has arrived in the last 30 days.")
        ] = False,
        hook: Annotated[str | None, typer.Option("--hook", help="Only this hook's.")] = None,
        limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")] = 100,
        after: Annotated[
            str | None, typer.Option("--after", help="Go on behind this cursor (`next`).")
        ] = None,
    ) -> None:
        """List what has not arrived yet, the oldest first."""
        from keyctl.services.events.service import EventService

        if failed and delivered:
            raise UsageError("give either --failed or --delivered", hint="leave one out")
        page, following = EventService(session.workspace).page(
            standing="delivered" if delivered else "failed" if failed else "open",
            hook=hook,
            after=after,
            limit=limit,
        )
        if session.wants_json:
            session.console.json({"events": page, "next": following})
        elif session.output == "jsonl":
            session.console.lines(page)
        else:
            show_table(session.console, DELIVERED if delivered else COLUMNS, page)
        if following is not None and not session.wants_json:
            session.console.note(f"more: --after {following}")

    @command(group, "retry", outputs=OUTPUTS)
    def retry(
        session: Session,
        events: Annotated[
            list[str] | None, typer.Argument(metavar="EVENT_ID…", help="As events list shows.")
        ] = None,
        everything: Annotated[bool, typer.Option("--all", help="All that failed.")] = False,
    ) -> None:
        """Send failed events again, now."""
        from keyctl.services.events.service import EventService

        if bool(events) == everything:
            raise UsageError("name events, or give --all", hint="keyctl events list --failed")
        told = list(EventService(session.workspace).retry(events or None))
        if not told:
            session.console.note("nothing to send: it has arrived, or another run is sending it")
        _judge(_show(session, told))

    @command(group, "discard")
    def discard(
        session: Session,
        event: Annotated[str, typer.Argument(metavar="EVENT_ID", help="As events list shows.")],
        reason: Annotated[str, typer.Option("--reason", help="Why, for the audit trail.")],
    ) -> None:
        """Give up an event that will never arrive, on record."""
        from keyctl.services.events.service import EventService

        view = EventService(session.workspace).discard(event, reason=reason)
        if session.wants_json:
            session.console.json(view)
        else:
            hooks = ", ".join(view["discarded"]) or "nothing"
            session.console.write(f"{event}: discarded for {hooks}\n")


def _show(session: Session, sent: "Iterable[Sent]") -> int:
    """Show what became of each event; return how many failed."""
    collected: list[dict[str, Any]] = []
    failed = 0
    for item in sent:
        failed += item.result == "failed"
        view = asdict(item)
        if session.output == "jsonl":
            session.console.lines([view])
        elif session.wants_json:
            collected.append(view)
        else:
            why = "" if item.reason is None else f": {item.reason}"
            session.console.write(f"{item.event_id} {item.event} {item.hook} {item.result}{why}\n")
    if session.wants_json:
        session.console.json({"results": collected})
    return failed


def _judge(failed: int) -> None:
    if failed:
        raise BatchError(
            f"{failed} events were not delivered",
            hint="they are tried again; keyctl events list --failed shows them",
        )
