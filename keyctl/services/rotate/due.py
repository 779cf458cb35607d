"""Rotate what is due: for cron, on any number of hosts at once."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from keyctl import hashing
from keyctl.db import queries
from keyctl.durations import Grace
from keyctl.errors import (
    BatchError,
    BusyError,
    DeniedError,
    KeyctlError,
    KeyNotFoundError,
    PolicyDeniedError,
)
from keyctl.keystring import KeyString
from keyctl.records import Key
from keyctl.services import denials
from keyctl.services.callers import require_route
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.protocol import Confirmed, Delivery
from keyctl.services.delivery.sinks import target_of
from keyctl.services.denials import Attempt
from keyctl.services.keys.find import visible_to
from keyctl.services.rotate.confirm import RotationRows
from keyctl.services.rotate.due_keys import CHUNK, Claimed, DueKeys, DueLine, line_of
from keyctl.services.rotate.model import StagedRotation, Wanted
from keyctl.services.rotate.stage import RotationStaging
from keyctl.services.transaction import anchor
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink

# So many keys share their transactions: a killed run leaves no more of them to be delivered anew.
GROUP: Final = 8
_CHECKED_AT_ONCE: Final = 64


@dataclass(slots=True, kw_only=True)
class DueOrder:
    """Options of one run.  `stopped` is asked before each key: a signal may set it."""

    grace: Grace | None = None
    most: int | None = None
    deadline: timedelta | None = None
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class DueService:
    """Finds keys that are due and rotates them with the protocol of a single rotation."""

    workspace: Workspace

    def rotate_due(self, order: DueOrder) -> Iterator[DueLine]:
        """Rotate every key that is due, and yield a line for each as soon as it is done.

        A key that fails stops none of the others.
        """
        end = None if order.deadline is None else time.monotonic() + order.deadline.total_seconds()
        require_route(self.workspace, "key_rotate", "key")
        with run_lock.begun(self.workspace.runs_folder) as run, _hashing(self.workspace) as hashes:
            due = DueKeys(workspace=self.workspace, run=run, due_at=self._now())
            delivery = Delivery(
                workspace=self.workspace,
                run=run,
                rows=RotationRows(self.workspace),
                reads_later=True,
            )
            yield from _DueRun(
                order=order, end=end, due=due, delivery=delivery, hashes=hashes
            ).lines()

    def list_due(self, *, most: int | None = None) -> Iterator[DueLine]:
        """Yield what a run would do, without doing it."""
        shown = 0
        with run_lock.begun(self.workspace.runs_folder) as run:
            due = DueKeys(workspace=self.workspace, run=run, due_at=self._now())
            for line in due.listed():
                if line.result == "due":
                    if shown == most:
                        return
                    shown += 1
                yield line

    def count(self) -> int:
        """Return how many keys are due of those that the caller may list."""
        database = self.workspace.database
        with database.read() as connection:
            return queries.count_keys_due(
                connection,
                due_at=database.now(connection),
                visible=visible_to(self.workspace.caller),
            )

    def _now(self) -> datetime:
        """Return the instant that decides what is due."""
        with self.workspace.database.read() as connection:
            return self.workspace.database.now(connection)


@dataclass(slots=True, kw_only=True)
class _DueRun:
    """One run, and how far it is."""

    order: DueOrder
    end: float | None
    due: DueKeys
    delivery: Delivery[StagedRotation]
    hashes: "_Hashes"
    attempted: int = 0

    def lines(self) -> Iterator[DueLine]:
        """Claim and rotate chunk after chunk until nothing is left or it is to end."""
        most = self.order.most
        try:
            while not self._is_over():
                room = CHUNK if most is None else min(CHUNK, most - self.attempted)
                chunk, lines = self._claim(room)
                yield from lines
                if not chunk and not lines:
                    return
                # After a full chunk more will come: the cores hash on while this one is written.
                self.hashes.prepare(2 * CHUNK if len(chunk) == CHUNK else len(chunk))
                yield from self._rotate(deque(chunk))
        finally:
            self.delivery.read_back()

    def _claim(self, room: int) -> tuple[list[Claimed], list[DueLine]]:
        """Claim the next keys.

        Raises:
            DeniedError: The caller lost the right to it before any key was rotated.
            BatchError: The same after some were.
        """
        try:
            return self.due.claim(room)
        except DeniedError as error:
            if self.attempted == 0:
                raise
            raise BatchError(
                f"no more keys are rotated: {error.message}", hint=error.hint
            ) from error

    def _is_over(self) -> bool:
        most = self.order.most
        return self._is_stopped() or (most is not None and self.attempted >= most)

    def _is_stopped(self) -> bool:
        return self.order.stopped() or (self.end is not None and time.monotonic() >= self.end)

    def _rotate(self, waiting: deque[Claimed]) -> Iterator[DueLine]:
        """Rotate the claimed keys; what is not begun, at the end or after a signal, is released."""
        try:
            while waiting and not self._is_over():
                group = _next_group(waiting)
                self.attempted += len(group)
                yield from self._rotate_group(group)
        finally:
            self.due.release([item.key for item in waiting])

    def _rotate_group(self, group: Sequence[Claimed]) -> Iterator[DueLine]:
        """Rotate a few keys, each for itself, that share their two transactions.

        A signal lets the key in hand be finished; what is not begun by then is taken back.
        """
        lines: dict[str, DueLine] = {}
        staged = self._stage(group, lines)
        unstaged = [item.key for item in group if item.key.id in lines]
        loads = [self.delivery.to_sink(item, item.answer(), sink) for item, sink in staged]
        handed = self.delivery.hand_over(loads, is_stopped=self._is_stopped)
        for item, _ in staged:
            outcome = handed.outcomes.get(item.key_id)
            if isinstance(outcome, Confirmed):
                place = anchor((outcome.heads or item.heads)[-1])
                lines[item.key_id] = replace(line_of(item.key, "rotated"), audit=place)
            elif outcome is not None:
                lines[item.key_id] = self._failed(item.key, outcome)
        try:
            yield from (lines[item.key.id] for item in group if item.key.id in lines)
        finally:
            # Of what was handed over the delivery ends the claims, or keeps what it left undone.
            self.due.release(unstaged)
        if handed.broken is not None and not isinstance(handed.broken, KeyctlError):
            raise handed.broken
        # After the lines: what is wrong with one secret must not hide what became of the others.
        self.delivery.read_back(at_least=_CHECKED_AT_ONCE)

    def _stage(
        self, group: Sequence[Claimed], lines: dict[str, DueLine]
    ) -> list[tuple[StagedRotation, Sink]]:
        """Stage what can be delivered, and note a line for each of the others."""
        checked: list[tuple[Claimed, Wanted]] = []
        for item in group:
            try:
                item.sink.check(target_of(item.key))
            except KeyctlError as error:
                lines[item.key.id] = self._failed(item.key, error)
                continue
            key_string, hashed = self.hashes.take()
            wanted = Wanted(
                key_id=item.key.id,
                key_string=key_string,
                hashed=hashed,
                sink=item.sink,
                own_claim=item.claim,
            )
            checked.append((item, wanted))
        if not checked:
            return []
        staging = RotationStaging(
            workspace=self.delivery.workspace, run=self.due.run, grace=self.order.grace
        )
        every = [wanted for _, wanted in checked]
        try:
            outcomes = self.delivery.stage(lambda unit, dead: staging.write(unit, dead, every))
        except KeyctlError as error:  # such as a database that is busy: nothing is delivered
            for item, _ in checked:
                lines[item.key.id] = _broken(item.key, error)
            return []
        staged: list[tuple[StagedRotation, Sink]] = []
        for (item, _), outcome in zip(checked, outcomes, strict=True):
            if isinstance(outcome, StagedRotation):
                staged.append((outcome, item.sink))
            else:
                lines[item.key.id] = self._failed(item.key, outcome)
        return staged

    def _failed(self, key: Key, error: KeyctlError) -> DueLine:
        if isinstance(error, (BusyError, PolicyDeniedError, KeyNotFoundError)):
            # What others did to the key since it was claimed.
            if isinstance(error, PolicyDeniedError) and not _is_state(error):
                attempt = Attempt("key_rotate_denied", "key", key.id)
                denials.record(self.delivery.workspace, attempt, error)
                return line_of(key, "failed", error.code)
            return line_of(key, "skipped", error.code)
        return _broken(key, error)


class _Hashes:
    """Key strings and their hashes, made ahead on all cores while keys are written."""

    def __init__(self, pool: ThreadPoolExecutor, workspace: Workspace) -> None:
        self._pool = pool
        self._workspace = workspace
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
        key = self._workspace.mint()
        return key, hashing.hash_key(key, cost=self._workspace.settings.bcrypt_cost)


@contextmanager
def _hashing(workspace: Workspace) -> Iterator[_Hashes]:
    # bcrypt releases the GIL, so threads are enough for all cores.
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield _Hashes(pool, workspace)
    finally:
        pool.shutdown(cancel_futures=True)


def _next_group(waiting: deque[Claimed]) -> list[Claimed]:
    """Return the next keys that share their transactions: a few whose sinks take no time, or one."""
    group = [waiting.popleft()]
    while (
        waiting and len(group) < GROUP and not (group[-1].sink.timeout or waiting[0].sink.timeout)
    ):
        group.append(waiting.popleft())
    return group


def _broken(key: Key, error: KeyctlError) -> DueLine:
    return line_of(key, "failed", f"{error.code}: {error.message}")


def _is_state(error: PolicyDeniedError) -> bool:
    return all(item.rule == "key.rotatable" for item in error.violations)
