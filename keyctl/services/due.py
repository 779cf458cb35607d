"""Rotate what is due: for cron, on any number of hosts at once, one key after the other."""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from keyctl import lifecycle
from keyctl.db import queries
from keyctl.errors import BusyError, KeyctlError, KeyNotFoundError, PolicyDeniedError
from keyctl.keystring import KeyString
from keyctl.records import Claim, Key
from keyctl.requests import parse_grace
from keyctl.services import runs
from keyctl.services.delivery import named_sink, target_of
from keyctl.services.rotate import Confirmed, RotateService, Staged, Wanted, anchor
from keyctl.services.runs import Run
from keyctl.services.staging import Written, check_written, persist, uninterrupted
from keyctl.services.unit import writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink

CHUNK: Final = 16
# So many keys share their transactions: a killed run leaves no more of them to be delivered anew.
GROUP: Final = 8
_CHECKED_AT_ONCE: Final = 64
MOST_ABANDONED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What became of one key that was due."""

    key_id: str
    key_alias: str | None
    result: str
    reason: str | None = None
    audit: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class DueOrder:
    """How to go about it.  `stopped` is asked before each key: a signal may set it."""

    grace: str | None = None
    most: int | None = None
    deadline: timedelta | None = None
    stopped: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _Progress:
    """What this run has seen: it rotates a key at most once, whatever it finds on the way."""

    due_at: datetime
    after: tuple[datetime, str] | None = None
    suspects_after: str = ""
    suspects_done: bool = False
    attempted: int = 0
    seen: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class DueService:
    """Finds keys that are due and rotates them with the protocol of a single rotation."""

    workspace: Workspace

    def rotate_due(self, order: DueOrder) -> Iterator[Line]:
        """Rotate every key that is due, and yield a line for each as soon as it is done.

        A key that fails stops none of the others.

        Raises:
            InvalidDurationError: The grace period is none.
        """
        parse_grace("none" if order.grace is None else order.grace)
        end = None if order.deadline is None else time.monotonic() + order.deadline.total_seconds()
        rotating = RotateService(self.workspace)
        with (
            runs.begun(self.workspace.runs_folder) as run,
            _hashing(rotating) as hashes,
        ):
            progress = _Progress(due_at=self._now())
            written: list[Written] = []
            try:
                yield from self._rotate_all(order, end, rotating, hashes, run, progress, written)
            finally:
                self._check(written)

    def list_due(self, *, most: int | None = None) -> Iterator[Line]:
        """Yield what a run would do, without doing it."""
        database, progress = self.workspace.database, _Progress(due_at=self._now())
        with runs.begun(self.workspace.runs_folder) as run:
            while most is None or progress.attempted < most:
                with database.read() as connection:
                    found = self._candidates(connection, progress, CHUNK, lock=False)
                    if not found:
                        return
                    now = database.now(connection)
                    abandoned = _abandoned(connection, found)
                    judged = [
                        self._unfit(key, claim, run, abandoned[key.id], now=now)
                        for key, claim in found
                    ]
                for (key, _), unfit in zip(found, judged, strict=True):
                    progress.attempted += unfit is None
                    yield unfit or _line(key, "due")

    def count(self) -> int:
        """Return how many keys are due."""
        database = self.workspace.database
        with database.read() as connection:
            return queries.count_keys_due(connection, due_at=database.now(connection))

    def _now(self) -> datetime:
        """Return the instant that decides what is due; fixed, so that a long run ends."""
        with self.workspace.database.read() as connection:
            return self.workspace.database.now(connection)

    def _rotate_all(
        self,
        order: DueOrder,
        end: float | None,
        rotating: RotateService,
        hashes: "_Hashes",
        run: Run,
        progress: _Progress,
        written: list[Written],
    ) -> Iterator[Line]:
        """Claim and rotate chunk after chunk until nothing is left or it is to end."""
        while not _is_over(order, end, progress):
            room = CHUNK if order.most is None else min(CHUNK, order.most - progress.attempted)
            chunk, lines = self._claim_chunk(progress, run, room)
            yield from lines
            if not chunk and not lines:
                return
            # After a full chunk more will come: the cores hash on while this one is written.
            hashes.prepare(2 * CHUNK if len(chunk) == CHUNK else len(chunk))
            yield from self._rotate_chunk(
                chunk, order, end, rotating, hashes, run, progress, written
            )
            if len(written) >= _CHECKED_AT_ONCE:
                self._check(written)

    def _check(self, written: list[Written]) -> None:
        """Read back what was written, on a new connection: those are dear, so for many keys at once."""
        if written:
            with uninterrupted():
                persist(
                    lambda: check_written(self.workspace.database, written),
                    delivered=f"{len(written)} keys were rotated",
                )
            written.clear()

    # --- claiming

    def _claim_chunk(
        self, progress: _Progress, run: Run, room: int
    ) -> tuple[list[tuple[Key, Claim, Sink]], list[Line]]:
        """Claim the next keys, and return them and a line for each that is passed over."""
        chunk: list[tuple[Key, Claim, Sink]] = []
        lines: list[Line] = []
        buried: list[Claim] = []
        with writing(self.workspace) as unit:
            claims: list[Claim] = []
            found = self._candidates(unit.connection, progress, room, lock=True)
            abandoned = _abandoned(unit.connection, found)
            for key, known in found:
                unfit = self._unfit(key, known, run, abandoned[key.id], now=unit.now)
                if unfit is not None:
                    lines.append(unfit)
                    continue
                sink = named_sink(self.workspace, self._sink_name(key) or "")
                claim = Claim(
                    key_id=key.id,
                    run_id=run.id,
                    fingerprint=None,
                    staged_at=unit.now,
                    # Renewed at each key's own stage; until then it covers the chunk before it.
                    deadline_at=unit.now + CHUNK * (sink.timeout + runs.SLACK),
                )
                if known is None:
                    claims.append(claim)
                elif queries.take_over(unit.connection, claim, dead_run=known.run_id):
                    buried.append(known)
                else:
                    lines.append(_line(key, "skipped", "claimed"))
                    continue
                chunk.append((key, claim, sink))
            if claims:
                queries.insert_claim(unit.connection, *claims)
        run.claimed.update(key.id for key, _, _ in chunk)
        for claim in buried:
            run.bury(claim.run_id)
        return chunk, lines

    def _candidates(
        self, connection: Any, progress: _Progress, limit: int, *, lock: bool
    ) -> list[tuple[Key, Claim | None]]:
        """Return the next page: first the keys whose sink is in doubt, then the longest due."""
        found: list[tuple[Key, Claim | None]] = []
        if not progress.suspects_done:
            found = queries.keys_with_suspect_sink(
                connection, after=progress.suspects_after, limit=limit, lock=lock
            )
            if found:
                progress.suspects_after = found[-1][0].id
            else:
                progress.suspects_done = True
        while not found:
            page = queries.keys_due(
                connection, due_at=progress.due_at, after=progress.after, limit=limit, lock=lock
            )
            if not page:
                return []
            last = page[-1][0]
            progress.after = (last.key_rotation_at or progress.due_at, last.id)
            found = [item for item in page if item[0].id not in progress.seen]
        progress.seen.update(key.id for key, _ in found if not progress.suspects_done)
        return found

    def _sink_name(self, key: Key) -> str | None:
        return key.sink or self.workspace.settings.default_sink

    def _unfit(
        self, key: Key, claim: Claim | None, run: Run, abandoned: int, *, now: datetime
    ) -> Line | None:
        """Return the line for a key that is not to be rotated now, None for one that is."""
        state = lifecycle.key_state(key, now=now)
        if state != "active":
            return _line(key, "skipped", state)
        if claim is not None and run.is_alive(claim, now=now):
            return _line(key, "skipped", "claimed")
        name = self._sink_name(key)
        if name is None or name not in self.workspace.settings.sinks:
            return _line(key, "failed", "no_sink")
        if abandoned >= MOST_ABANDONED:
            return _line(key, "failed", "abandoned")
        return None

    # --- rotating

    def _rotate_chunk(
        self,
        chunk: Sequence[tuple[Key, Claim, Sink]],
        order: DueOrder,
        end: float | None,
        rotating: RotateService,
        hashes: "_Hashes",
        run: Run,
        progress: _Progress,
        written: list[Written],
    ) -> Iterator[Line]:
        """Rotate the claimed keys; what is not begun, at the end or after a signal, is released."""
        waiting = deque(chunk)
        try:
            while waiting and not _is_over(order, end, progress):
                group = _next_group(waiting)
                progress.attempted += len(group)
                yield from self._rotate_group(group, order, rotating, hashes, run, written)
        finally:
            self._release([key.id for key, _, _ in waiting], run)

    def _rotate_group(
        self,
        group: Sequence[tuple[Key, Claim, Sink]],
        order: DueOrder,
        rotating: RotateService,
        hashes: "_Hashes",
        run: Run,
        written: list[Written],
    ) -> list[Line]:
        """Rotate a few keys, each for itself, that share their two transactions.

        A signal lets the key in hand be finished; what is not begun by then is taken back.
        """
        lines: dict[str, Line] = {}
        checked: list[tuple[Key, Wanted]] = []
        for key, claim, sink in group:
            try:
                sink.check(target_of(key))
            except KeyctlError as error:
                lines[key.id] = self._failed(key, error, run)
                continue
            key_string, hashed = hashes.take()
            wanted = Wanted(
                key_id=key.id, key_string=key_string, hashed=hashed, sink=sink, own_claim=claim
            )
            checked.append((key, wanted))
        outcomes = self._stage([item for _, item in checked], order, rotating, run)
        staged: deque[tuple[Staged, Sink]] = deque()
        for (key, wanted), outcome in zip(checked, outcomes, strict=True):
            if isinstance(outcome, Staged):
                staged.append((outcome, wanted.sink))
            else:
                lines[key.id] = self._failed(key, outcome, run)
        delivered: list[Staged] = []
        try:
            while staged and not order.stopped():
                item, sink = staged.popleft()
                try:
                    rotating.deliver(item, sink, run)
                except KeyctlError as error:
                    lines[item.key.id] = self._failed(item.key, error, run)
                else:
                    delivered.append(item)
        finally:
            # However it ended: what was delivered is confirmed, what was not even begun taken back.
            with uninterrupted():
                lines.update(self._confirm(delivered, rotating, run, written))
                for item, _ in staged:
                    rotating.leave(item, run)
        return [lines[key.id] for key, _, _ in group if key.id in lines]

    def _stage(
        self, wanted: Sequence[Wanted], order: DueOrder, rotating: RotateService, run: Run
    ) -> Sequence[Staged | KeyctlError]:
        if not wanted:
            return []
        try:
            return rotating.stage_all(wanted, run, grace=order.grace)
        except KeyctlError as error:  # such as a database that is busy: nothing was written
            return [error] * len(wanted)

    def _confirm(
        self,
        delivered: Sequence[Staged],
        rotating: RotateService,
        run: Run,
        written: list[Written],
    ) -> Iterator[tuple[str, Line]]:
        if not delivered:
            return
        try:
            outcomes: Sequence[Confirmed | KeyctlError] = rotating.confirm_all(delivered, run)
        except KeyctlError as error:
            outcomes = [error] * len(delivered)
        for staged, outcome in zip(delivered, outcomes, strict=True):
            if isinstance(outcome, Confirmed):
                written.append(outcome.written)
                place = anchor((outcome.heads or staged.heads)[-1])
                yield staged.key.id, replace(_line(staged.key, "rotated"), audit=place)
            else:
                yield staged.key.id, self._failed(staged.key, outcome, run)

    def _failed(self, key: Key, error: KeyctlError, run: Run) -> Line:
        self._release([key.id], run)
        if isinstance(error, (BusyError, PolicyDeniedError, KeyNotFoundError)):
            # What others did to the key since it was claimed.
            skipped = not isinstance(error, PolicyDeniedError) or _is_state(error)
            return _line(key, "skipped" if skipped else "failed", error.code)
        return _line(key, "failed", f"{error.code}: {error.message}")

    def _release(self, key_ids: Sequence[str], run: Run) -> None:
        if key_ids:
            with writing(self.workspace) as unit:
                for key_id in key_ids:
                    queries.release_claim(unit.connection, key_id, run.id)
            run.claimed.difference_update(key_ids)


class _Hashes:
    """Key strings and their hashes, made ahead on all cores while keys are written."""

    def __init__(self, pool: ThreadPoolExecutor, rotating: RotateService) -> None:
        self._pool = pool
        self._rotating = rotating
        self._ready: deque[Future[tuple[KeyString, str]]] = deque()

    def prepare(self, count: int) -> None:
        """See to it that as many as a chunk needs are being made."""
        while len(self._ready) < count:
            self._ready.append(self._pool.submit(self._make))

    def take(self) -> tuple[KeyString, str]:
        """Return the next one."""
        self.prepare(1)
        return self._ready.popleft().result()

    def _make(self) -> tuple[KeyString, str]:
        key = self._rotating.workspace.mint()
        return key, self._rotating.hash(key)


@contextmanager
def _hashing(rotating: RotateService) -> Iterator[_Hashes]:
    # bcrypt releases the GIL, so threads are enough for all cores.
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield _Hashes(pool, rotating)
    finally:
        pool.shutdown(cancel_futures=True)


def _abandoned(connection: Any, found: Sequence[tuple[Key, Claim | None]]) -> Counter[str]:
    """Return how many secrets of each key are staged."""
    secrets = queries.secrets_of(connection, *(key.id for key, _ in found))
    return Counter(secret.key_id for secret in secrets if secret.state == "staged")


def _next_group(waiting: deque[tuple[Key, Claim, Sink]]) -> list[tuple[Key, Claim, Sink]]:
    """Return the next keys that share their transactions: a few whose sinks take no time, or one."""
    group = [waiting.popleft()]
    while waiting and len(group) < GROUP and not (group[-1][2].timeout or waiting[0][2].timeout):
        group.append(waiting.popleft())
    return group


def _is_over(order: DueOrder, end: float | None, progress: _Progress) -> bool:
    return (
        order.stopped()
        or (end is not None and time.monotonic() >= end)
        or (order.most is not None and progress.attempted >= order.most)
    )


def _is_state(error: PolicyDeniedError) -> bool:
    return all(item.rule == "key.rotatable" for item in error.violations)


def _line(key: Key, result: str, reason: str | None = None) -> Line:
    return Line(key_id=key.id, key_alias=key.key_alias, result=result, reason=reason)
