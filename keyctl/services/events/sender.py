"""Send events: each hook's in their order, all hooks at once, and note what became of each."""

import math
import queue
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from keyctl import jsontext
from keyctl.causes import cause
from keyctl.db import queries
from keyctl.db.queries.outbox import Outgoing
from keyctl.hooks.base import HookFailedError, Message
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.run_lock import Run
from keyctl.services.events.destinations import Place
from keyctl.services.workspace import Workspace
from keyctl.sinks.command import end_all

_CHUNK: Final = 20
_FIRST_PAUSE: Final = timedelta(seconds=30)
_LONGEST_PAUSE: Final = timedelta(hours=6)
# A hook that fails so often in a row is left alone for the rest of a run.
_PATIENCE: Final = 3

# An event and why it failed, None when it arrived; None alone when a hook's thread is done.
_Answers = queue.Queue[tuple[Outgoing, str | None] | None]


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
    """Options of one run.  `stopped` is asked before each event: a signal may set it.

    In a `hurry` no hook gets more time than its time-out, for all its events together.
    """

    most: int | None = None
    seconds: float | None = None
    only: Sequence[str] | None = None
    hurry: bool = False
    stopped: Callable[[], bool] = lambda: False


@dataclass(slots=True, kw_only=True)
class Sending:
    """One run: what it may send and where to, which hooks keep failing, and when each must end."""

    workspace: Workspace
    run: Run
    known: dict[str, Place]
    order: DeliverOrder
    _ends: dict[str, float] = field(default_factory=dict)
    _taken: int = 0
    _failures: Counter[str] = field(default_factory=Counter)
    # What the database's clock said, and this process's stopwatch then.
    _clock: tuple[datetime, float] | None = None

    def events(self) -> Iterator[Sent]:
        """Claim and send chunk after chunk until nothing is due or it is to end."""
        begun, most = time.monotonic(), self.order.most
        limit = math.inf if self.order.seconds is None else self.order.seconds
        self._ends = {
            name: begun + (min(limit, place.seconds) if self.order.hurry else limit)
            for name, place in self.known.items()
        }
        while not self.order.stopped() and (most is None or self._taken < most):
            chunk = self._claim(_CHUNK if most is None else min(_CHUNK, most - self._taken))
            if not chunk:
                return
            self._taken += len(chunk)
            yield from self._send_all(chunk)

    def _is_over(self, hook: str) -> bool:
        return (
            self.order.stopped()
            or self._failures[hook] >= _PATIENCE
            or time.monotonic() >= self._ends[hook]
        )

    def _claim(self, room: int) -> list[Outgoing]:
        hooks = [name for name in self.known if not self._is_over(name)]
        if not hooks:
            return []
        database = self.workspace.database
        with database.write() as connection:
            now = database.began_at(connection)
            self._clock = now, time.monotonic()
            rows = queries.outgoing_due(
                connection, hooks=hooks, now=now, limit=room, only=self.order.only
            )
            if rows:
                # Each hook has a thread of its own: the slowest one's share decides.
                shares = Counter(row.hook for row in rows)
                longest = max(self.known[hook].seconds * count for hook, count in shares.items())
                until = now + timedelta(seconds=longest) + run_lock.SLACK
                queries.claim_outgoing(connection, rows, run_id=self.run.id, until=until)
        return rows

    def _send_all(self, chunk: Sequence[Outgoing]) -> Iterator[Sent]:
        """Send a chunk, all hooks at once; what was not tried is free again."""
        by_hook: dict[str, list[Outgoing]] = {}
        for row in chunk:
            by_hook.setdefault(row.hook, []).append(row)
        answers: _Answers = queue.Queue()
        for rows in by_hook.values():
            # A daemon, so that a server which never answers cannot keep the process from ending.
            threading.Thread(target=self._send_in_turn, args=(rows, answers), daemon=True).start()
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
                yield self._settle(row, error)
        except BaseException:
            # A function that went on would be called again, by whoever sends its event next.
            self._ends = dict.fromkeys(self._ends, 0.0)
            end_all()
            raise
        finally:
            if untried:
                with self.workspace.database.write() as connection:
                    queries.release_outgoing(connection, self.run.id, list(untried.values()))

    def _send_in_turn(self, rows: Sequence[Outgoing], answers: _Answers) -> None:
        try:
            for row in rows:
                if self._is_over(row.hook):
                    return
                try:
                    error = self._attempt(row)
                except Exception as fault:  # noqa: BLE001  # untried it would be claimed for ever
                    error = cause(fault)
                self._failures[row.hook] = 0 if error is None else self._failures[row.hook] + 1
                answers.put((row, error))
        finally:
            answers.put(None)

    def _attempt(self, row: Outgoing) -> str | None:
        """Send one event; return why it failed, None when it arrived.

        In a thread that is given up at the time-out: a server that sends a byte now and then never
        runs into a socket's own.
        """
        place, sent_at = self.known[row.hook], self._now(row)
        left = self._ends[row.hook] - time.monotonic()
        seconds = min(place.seconds, max(0.0, left))
        answer: queue.Queue[str | None] = queue.Queue()

        def send() -> None:
            try:
                place.send(_message(row, self.run), sent_at=sent_at, timeout=seconds)
            except HookFailedError as error:
                answer.put(str(error))
            except Exception as error:  # noqa: BLE001  # a fault in a hook must not end the others
                answer.put(cause(error))
            else:
                answer.put(None)

        threading.Thread(target=send, daemon=True).start()
        try:
            return answer.get(timeout=seconds + 0.5)
        except queue.Empty:
            return f"no answer within {seconds:.0f} s"

    def _now(self, row: Outgoing) -> datetime:
        """Return the time by the database's clock: receivers refuse signatures that are minutes old."""
        if self._clock is None:
            return row.created_at
        now, since = self._clock
        return now + timedelta(seconds=time.monotonic() - since)

    def _settle(self, row: Outgoing, error: str | None) -> Sent:
        database = self.workspace.database
        with database.write() as connection:
            now = database.began_at(connection)
            if error is None:
                queries.settle_outgoing(
                    connection, row, run_id=self.run.id, delivered_at=now, last_error=None
                )
                return _sent(row, "delivered")
            next_at = now + pause_after(row.attempts + 1)
            queries.settle_outgoing(
                connection, row, run_id=self.run.id, next_at=next_at, last_error=error
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


def _message(row: Outgoing, run: Run) -> Message:
    try:
        data = jsontext.loads(row.payload)["data"]
    except (KeyError, TypeError, ValueError) as error:
        raise HookFailedError("the event is not what was written") from error
    return Message(
        id=row.event_id,
        event=row.event,
        at=row.created_at,
        body=row.payload,
        data=data,
        lock=run.lock,
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
