"""Send what is in the outbox: at least once, by one run at a time, until it has arrived."""

import queue
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from keyctl import jsontext
from keyctl.db import queries
from keyctl.db.queries.outbox import Outgoing, Standing
from keyctl.errors import EventNotFoundError, UsageError
from keyctl.hooks.base import HookFailedError, Message
from keyctl.services import runs
from keyctl.services.callers import require_admin, require_overseer
from keyctl.services.places import Place, places
from keyctl.services.runs import Run
from keyctl.services.unit import writing
from keyctl.services.workspace import Workspace

_CHUNK: Final = 20
# Of its own events a command sends so many at the most: they are named in one statement, which has
# room for some ten thousand names, and its time is short anyhow.  Cron sends the rest.
_MOST_OF_OWN: Final = 500
_FIRST_PAUSE: Final = timedelta(seconds=30)
_LONGEST_PAUSE: Final = timedelta(hours=6)
_KEPT: Final = timedelta(days=30)
# A hook that fails so often in a row is left alone for the rest of a run.
_PATIENCE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one event for one hook in this run."""

    event_id: str
    hook: str
    event: str
    result: str
    reason: str | None = None
    next_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class DeliverOrder:
    """How to go about it.  `stopped` is asked before each event: a signal may set it."""

    most: int | None = None
    seconds: float | None = None
    only: Sequence[str] | None = None
    stopped: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _Course:
    """How far a run is: hooks that keep failing, how many events it took, and when it must end."""

    end: float | None
    failures: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    read: tuple[datetime, float] | None = None

    def left(self) -> float | None:
        """Return the seconds that are left, None without an end."""
        return None if self.end is None else self.end - time.monotonic()

    def set_time(self, now: datetime) -> None:
        """Note what the database's clock said."""
        self.read = now, time.monotonic()

    def time(self, default: datetime) -> datetime:
        """Return the time by the database's clock, which this process's stopwatch carries on."""
        if self.read is None:
            return default
        now, since = self.read
        return now + timedelta(seconds=time.monotonic() - since)


@dataclass(frozen=True, slots=True)
class EventService:
    """Delivers, lists and retries events."""

    workspace: Workspace

    def deliver(self, order: DeliverOrder) -> Iterator[Sent]:
        """Send what is due, each hook's events in their order, and yield what became of each."""
        require_admin(self.workspace, "deliver events", "event")
        self._forget()
        yield from self._deliver(order)

    def deliver_own(self) -> list[Sent]:
        """Send what this process put into the outbox, within the longest time-out of a hook."""
        own = self.workspace.outgoing[:_MOST_OF_OWN]
        if not own:
            return []
        self.workspace.outgoing.clear()
        seconds = max((place.seconds for place in self._places().values()), default=0.0)
        return list(self._deliver(DeliverOrder(only=own, seconds=seconds)))

    def page(
        self, *, standing: Standing, hook: str | None, after: str | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return one page of the outbox and the cursor to go on after, None at the end.

        Raises:
            UsageError: *after* is no cursor.
        """
        require_overseer(self.workspace.caller, "the outbox")
        with self.workspace.database.read() as connection:
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

    def retry(self, event_ids: Sequence[str] | None) -> Iterator[Sent]:
        """Send these failed events now, or all failed ones, whatever their pause.

        Raises:
            EventNotFoundError: There is no such event.
        """
        require_admin(self.workspace, "retry events", "event")
        with self.workspace.database.write() as connection:
            for event_id in event_ids or ():
                if not queries.find_outgoing(connection, event_id):
                    raise _not_found(event_id)
            now = self.workspace.database.now(connection)
            queries.hasten_outgoing(connection, now=now, event_ids=event_ids)
        yield from self._deliver(DeliverOrder(only=event_ids))

    def discard(self, event_id: str, *, reason: str) -> dict[str, Any]:
        """Give an event up for every hook that does not have it yet, on record.

        Raises:
            EventNotFoundError: There is no such event.
        """
        require_admin(self.workspace, "discard events", "event", event_id)
        with writing(self.workspace) as unit:
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
            "audit": None if head is None else {"seq": head.seq, "head": head.hash},
        }

    def stranded(self) -> dict[str, int]:
        """Return how many events wait for hooks that this configuration does not name."""
        with self.workspace.database.read() as connection:
            waiting = queries.count_outgoing(connection)
        known = self._places()
        return {hook: count for hook, count in waiting.items() if hook not in known}

    def _places(self) -> dict[str, Place]:
        return places(self.workspace)

    def _forget(self) -> None:
        database = self.workspace.database
        with database.write() as connection:
            queries.forget_delivered(connection, before=database.now(connection) - _KEPT)

    def _deliver(self, order: DeliverOrder) -> Iterator[Sent]:
        known = self._places()
        course = _Course(None if order.seconds is None else time.monotonic() + order.seconds)
        with runs.begun(self.workspace.runs_folder) as run:
            self._release_dead(run)
            while not _is_over(order, course):
                hooks = [name for name in known if course.failures[name] < _PATIENCE]
                room = _CHUNK if order.most is None else min(_CHUNK, order.most - course.taken)
                chunk = self._claim(run, known, hooks, order.only, room, course)
                if not chunk:
                    return
                course.taken += len(chunk)
                yield from self._send_all(chunk, known, run, order, course)

    # --- claiming

    def _release_dead(self, run: Run) -> None:
        """Free what killed runs of this host were sending; others' claims end by themselves."""
        database = self.workspace.database
        with database.write() as connection:
            now = database.now(connection)
            for run_id, until in queries.outgoing_runs(connection, now=now):
                if not run.may_act(run_id, until=until, now=now):
                    queries.release_outgoing(connection, run_id)
                    run.bury(run_id)

    def _claim(
        self,
        run: Run,
        known: dict[str, Place],
        hooks: Sequence[str],
        only: Sequence[str] | None,
        room: int,
        course: _Course,
    ) -> list[Outgoing]:
        database = self.workspace.database
        with database.write() as connection:
            now = database.now(connection)
            course.set_time(now)
            rows = queries.outgoing_due(connection, hooks=hooks, now=now, limit=room, only=only)
            if rows:
                # Each hook has a thread of its own: the slowest one's share decides.
                shares = Counter(row.hook for row in rows)
                longest = max(known[hook].seconds * count for hook, count in shares.items())
                until = now + timedelta(seconds=longest) + runs.SLACK
                queries.claim_outgoing(connection, rows, run_id=run.id, until=until)
        return rows

    # --- sending

    def _send_all(
        self,
        chunk: Sequence[Outgoing],
        known: dict[str, Place],
        run: Run,
        order: DeliverOrder,
        course: _Course,
    ) -> Iterator[Sent]:
        """Send a chunk, all hooks at once; what was not tried is free again."""
        by_hook: dict[str, list[Outgoing]] = {}
        for row in chunk:
            by_hook.setdefault(row.hook, []).append(row)
        answers: queue.Queue[tuple[Outgoing, str | None] | None] = queue.Queue()
        for hook, rows in by_hook.items():
            # A daemon, so that a server which never answers cannot keep the process from ending.
            threading.Thread(
                target=self._send_in_turn,
                args=(rows, known[hook], order, course, answers),
                daemon=True,
            ).start()
        untried = {(row.event_id, row.hook): row for row in chunk}
        try:
            running = len(by_hook)
            while running:
                answer = answers.get()
                if answer is None:
                    running -= 1
                    continue
                row, error = answer
                del untried[row.event_id, row.hook]
                yield self._settle(row, error, run)
        finally:
            if untried:
                with self.workspace.database.write() as connection:
                    queries.release_outgoing(connection, run.id, list(untried.values()))

    def _send_in_turn(
        self,
        rows: Sequence[Outgoing],
        place: Place,
        order: DeliverOrder,
        course: _Course,
        answers: "queue.Queue[tuple[Outgoing, str | None] | None]",
    ) -> None:
        try:
            for row in rows:
                if _is_over(order, course, counted=True) or course.failures[row.hook] >= _PATIENCE:
                    return
                left = course.left()
                seconds = place.seconds if left is None else min(place.seconds, left)
                error = self._attempt(row, place, seconds, sent_at=course.time(row.created_at))
                course.failures[row.hook] = 0 if error is None else course.failures[row.hook] + 1
                answers.put((row, error))
        finally:
            answers.put(None)

    def _attempt(
        self, row: Outgoing, place: Place, seconds: float, *, sent_at: datetime
    ) -> str | None:
        """Send one event; return why it failed, None when it arrived.

        In a thread that is given up at the time-out: a server that sends a byte now and then never
        runs into a socket's own.
        """
        body = jsontext.loads(row.payload)
        message = Message(
            id=row.event_id,
            event=row.event,
            at=row.created_at,
            body=row.payload,
            data=body["data"],
        )
        answer: queue.Queue[str | None] = queue.Queue()

        def send() -> None:
            try:
                place.send(message, sent_at=sent_at, timeout=seconds)
            except HookFailedError as error:
                answer.put(str(error))
            except Exception as error:  # noqa: BLE001  # a fault in a hook must not end the others
                answer.put(type(error).__name__)
            else:
                answer.put(None)

        threading.Thread(target=send, daemon=True).start()
        try:
            return answer.get(timeout=seconds + 0.5)
        except queue.Empty:
            return f"no answer within {seconds:.0f} s"

    def _settle(self, row: Outgoing, error: str | None, run: Run) -> Sent:
        database = self.workspace.database
        with database.write() as connection:
            now = database.now(connection)
            if error is None:
                queries.settle_outgoing(
                    connection, row, run_id=run.id, delivered_at=now, last_error=None
                )
                return _sent(row, "delivered")
            next_at = now + pause_after(row.attempts + 1)
            queries.settle_outgoing(
                connection, row, run_id=run.id, next_at=next_at, last_error=error
            )
        return _sent(row, "failed", error, next_at)


def pause_after(attempts: int, *, jitter: float | None = None) -> timedelta:
    """Return how long to wait after so many failed attempts.

    30 s, doubled each time up to 6 h, times a random half to one: hosts that failed together do
    not come back together.  *jitter*, from 0 to 1, stands for chance.
    """
    chance = secrets.SystemRandom().random() if jitter is None else jitter
    doubled: timedelta = _FIRST_PAUSE * 2.0 ** min(attempts - 1, 20)
    whole = min(doubled, _LONGEST_PAUSE)
    return whole * (0.5 + chance / 2)


def _is_over(order: DeliverOrder, course: _Course, *, counted: bool = False) -> bool:
    left = course.left()
    return (
        order.stopped()
        or (left is not None and left <= 0)
        or (not counted and order.most is not None and course.taken >= order.most)
    )


def _sent(
    row: Outgoing, result: str, reason: str | None = None, next_at: datetime | None = None
) -> Sent:
    return Sent(
        event_id=row.event_id,
        hook=row.hook,
        event=row.event,
        result=result,
        reason=reason,
        next_at=next_at,
    )


def _from_cursor(text: str) -> tuple[int, str]:
    seq, colon, hook = text.partition(":")
    if not (colon and seq.isascii() and seq.isdigit()):
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
