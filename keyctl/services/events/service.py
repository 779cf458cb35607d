"""Send what is in the outbox, show it, and give up what will never arrive."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection

from keyctl.db import queries
from keyctl.db.queries.outbox import Outgoing, Standing
from keyctl.errors import EventNotFoundError, NotFoundError, UsageError
from keyctl.nearest import meant
from keyctl.services.callers import administering, require_admin, require_overseer
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.run_lock import Run
from keyctl.services.events.destinations import places
from keyctl.services.events.sender import DeliverOrder, Sending, Sent
from keyctl.services.transaction import anchor
from keyctl.services.workspace import Workspace

# Of its own events a command sends so many at the most: they are named in one statement, which has
# room for some ten thousand names, and its time is short anyhow.  Cron sends the rest.
_MOST_OF_OWN: Final = 500
_KEPT: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class EventService:
    """Delivers, lists and retries events."""

    workspace: Workspace

    def deliver(self, order: DeliverOrder) -> Iterator[Sent]:
        """Send what is due, each hook's events in their order, and yield what became of each."""
        require_admin(self.workspace, "deliver events", "event_deliver_denied", "event")
        with run_lock.begun(self.workspace.runs_folder) as run:
            self._tidy(run)
            yield from self._sending(run, order).events()

    def deliver_own(self) -> list[Sent]:
        """Send what this process put into the outbox, to each hook within its time-out."""
        own = self.workspace.outgoing[:_MOST_OF_OWN]
        if not own:
            return []
        self.workspace.outgoing.clear()
        with run_lock.begun(self.workspace.runs_folder) as run:
            return list(self._sending(run, DeliverOrder(only=own, hurry=True)).events())

    def page(
        self, *, standing: Standing, hook: str | None, after: str | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return one page of the outbox and the cursor to go on after, None at the end.

        Raises:
            UsageError: *after* is no cursor.
        """
        require_overseer(self.workspace, "the outbox", "event")
        with self.workspace.database.read() as connection:
            if hook is not None:
                hook = self._known_hook(connection, hook)
            rows = queries.list_outgoing(
                connection,
                standing=standing,
                hook=hook,
                after=None if after is None else _from_cursor(after),
                limit=limit + 1,
            )
        page = [_view(row) for row in rows[:limit]]
        last = rows[limit - 1] if len(rows) > limit else None
        return page, None if last is None else f"{last.seq}:{last.hook}"

    def _known_hook(self, connection: Connection, hook: str) -> str:
        """Return the name of a hook as events have it: the configuration's `siem` is `hooks.siem`."""
        known = places(self.workspace).keys() | queries.count_outgoing(connection).keys()
        if (whole := hook if hook in known else f"hooks.{hook}") in known:
            return whole
        short = sorted(name.removeprefix("hooks.") for name in known)
        raise NotFoundError(
            f"there is no hook {hook!r}, and no event waits for it",
            hint=meant(
                hook.removeprefix("hooks."), short, otherwise="keyctl config show has the hooks"
            ),
        )

    def retry(self, event_ids: Sequence[str] | None) -> Iterator[Sent]:
        """Send these failed events now, or all failed ones, whatever their pause.

        Raises:
            EventNotFoundError: There is no such event.
        """
        require_admin(self.workspace, "retry events", "event_retry_denied", "event")
        database = self.workspace.database
        with run_lock.begun(self.workspace.runs_folder) as run:
            with database.write() as connection:
                for event_id in event_ids or ():
                    if not queries.find_outgoing(connection, event_id):
                        raise _not_found(event_id)
                now = database.began_at(connection)
                queries.hasten_outgoing(connection, now=now, event_ids=event_ids)
            self._tidy(run)
            yield from self._sending(run, DeliverOrder(only=event_ids)).events()

    def discard(self, event_id: str, *, reason: str) -> dict[str, Any]:
        """Give an event up for every hook that does not have it yet, on record.

        Raises:
            EventNotFoundError: There is no such event.
        """
        with administering(
            self.workspace, "discard events", "event_discard_denied", "event", event_id
        ) as unit:
            rows = queries.find_outgoing(unit.connection, event_id, lock=True)
            if not rows:
                raise _not_found(event_id)
            open_ones = [row for row in rows if row.delivered_at is None]
            for row in open_ones:
                queries.delete_outgoing(unit.connection, row)
                unit.record(
                    "event_discarded",
                    "event",
                    row.event_id,
                    before={"hook": row.hook, "event": row.event, "seq": row.seq},
                    reason=reason,
                )
        head = unit.heads[-1] if unit.heads else None
        return {
            "event_id": event_id,
            "discarded": [row.hook for row in open_ones],
            "audit": None if head is None else anchor(head),
        }

    def stranded(self) -> dict[str, int]:
        """Return how many events wait for hooks that this configuration does not name."""
        with self.workspace.database.read() as connection:
            waiting = queries.count_outgoing(connection)
        known = places(self.workspace)
        return {hook: count for hook, count in waiting.items() if hook not in known}

    def _sending(self, run: Run, order: DeliverOrder) -> Sending:
        return Sending(workspace=self.workspace, run=run, known=places(self.workspace), order=order)

    def _tidy(self, run: Run) -> None:
        """Forget what arrived long ago, and free what killed runs of this host were sending.

        Others' claims end by themselves.
        """
        database = self.workspace.database
        with database.write() as connection:
            now = database.began_at(connection)
            queries.forget_delivered(connection, before=now - _KEPT)
            for run_id, until in queries.outgoing_runs(connection, now=now):
                if not run.may_act(run_id, until=until, now=now):
                    queries.release_outgoing(connection, run_id)
                    run.bury(run_id)


def _from_cursor(text: str) -> tuple[int, str]:
    seq, colon, hook = text.partition(":")
    # 18 digits are more than there will ever be, and fit into 64 bits.
    if not (colon and seq.isascii() and seq.isdigit() and len(seq) <= 18):
        raise UsageError(
            "--after is not a cursor that keyctl events list printed", hint="take it from `next`"
        )
    return int(seq), hook


def _view(row: Outgoing) -> dict[str, Any]:
    view = asdict(row)
    for name in ("payload", "run_id", "claimed_until"):
        del view[name]
    return view


def _not_found(event_id: str) -> EventNotFoundError:
    return EventNotFoundError(
        f"there is no event {event_id!r} in the outbox", hint="keyctl events list shows them"
    )
