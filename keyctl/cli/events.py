"""Declare the commands of keyctl events."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl.cli import screen
from keyctl.cli.choices import require_reason
from keyctl.cli.command import command, declare_group
from keyctl.cli.listing import Page, show_list
from keyctl.cli.session import Session
from keyctl.cli.signals import stoppable
from keyctl.cli.tables import Column, Layout
from keyctl.errors import BatchError, ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyctl.services.events.sender import Sent

_EVENT: Final = (
    Column("event_id", "id", "id", rank=0),
    Column("hook", rank=2),
    Column("event", rank=1),
    Column("seq", "#", "number", rank=6),
    Column("attempts", "tries", "number", rank=5),
)
_NEXT, _ERROR = (
    Column("next_at", "next try", "instant", rank=4),
    Column("last_error", "why", rank=3),
)
_ARRIVED: Final = Column("delivered_at", "arrived", "instant", rank=3)
OPEN: Final = Layout("events", (*_EVENT, _NEXT, _ERROR), (_ARRIVED,))
DELIVERED: Final = Layout("events", (*_EVENT, _ARRIVED), (_NEXT, _ERROR))
OUTPUTS: Final = ("auto", "json", "jsonl", "table")


def add_to(app: typer.Typer) -> None:
    """Declare the group and its commands."""
    group = declare_group(app, "events", "The outbox: events on their way to hooks.")

    @command(group, "deliver", outputs=OUTPUTS)
    def deliver(
        session: Session,
        most: Annotated[
            int | None, typer.Option("--max", min=1, help="So many at the most.")
        ] = None,
        deadline: Annotated[
            str | None, typer.Option("--deadline", help="Begin no delivery after this long: 5m.")
        ] = None,
    ) -> None:
        """Send what is due (for cron).

        Nothing to do is exit 0, and any number of hosts may run it.
        """
        from keyctl import durations
        from keyctl.services.events.sender import DeliverOrder
        from keyctl.services.events.service import EventService

        seconds = None
        if deadline is not None:
            seconds = durations.parse_duration(deadline).longest().total_seconds()
        service = EventService(session.workspace)
        with stoppable() as stopped:
            order = DeliverOrder(most=most, seconds=seconds, stopped=stopped)
            failed = _show(session, service.deliver(order))
        for hook, count in service.stranded().items():
            session.console.note(
                f"{screen.count(count, 'event')} for {hook}, which is not configured here"
            )
        _judge(failed)
        if stopped():
            session.console.fault("interrupted: run it again to send the rest")
            raise typer.Exit(ExitCode.INTERRUPTED)

    @command(group, "list", layout=OPEN)
    def list_(
        session: Session,
        page: Page,
        failed: Annotated[
            bool, typer.Option("--failed", help="Only what was tried in vain.")
        ] = False,
        delivered: Annotated[
            bool, typer.Option("--delivered", help="What has arrived in the last 30 days.")
        ] = False,
        hook: Annotated[str | None, typer.Option("--hook", help="Only this hook's.")] = None,
    ) -> None:
        """List what has not arrived yet, the oldest first."""
        from keyctl.services.events.service import EventService

        if failed and delivered:
            raise UsageError("give either --failed or --delivered", hint="leave one out")
        service = EventService(session.workspace)
        show_list(
            session,
            DELIVERED if delivered else OPEN,
            page,
            lambda after, limit: service.page(
                standing="delivered" if delivered else "failed" if failed else "open",
                hook=hook,
                after=after,
                limit=limit,
            ),
        )

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

        require_reason(reason)
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
            f"{screen.count(failed, 'event')} {screen.were(failed)} not delivered",
            hint="they are tried again; keyctl events list --failed shows them",
        )
