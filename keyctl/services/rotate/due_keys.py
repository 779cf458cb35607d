"""Find the keys that are due for rotation, and claim them for this run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import lifecycle
from keyctl.db import queries
from keyctl.db.queries.listing import Due
from keyctl.errors import UnreadableRowError
from keyctl.policy.facts import Caller
from keyctl.records import Claim, Key
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import named_sink
from keyctl.services.rotate.eligibility import may_rotate
from keyctl.services.transaction import writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink

CHUNK: Final = 16
MOST_ABANDONED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DueLine:
    """What became of one key that was due."""

    key_id: str
    key_alias: str | None
    result: str
    reason: str | None = None
    audit: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A key that this run is to rotate, and where it is to be delivered."""

    key: Key
    claim: Claim
    sink: Sink


@dataclass(slots=True, kw_only=True)
class DueKeys:
    """The keys that are due at one instant, each seen once, whatever a run finds on its way.

    `due_at` is fixed, so that a long run ends.
    """

    workspace: Workspace
    run: Run
    due_at: datetime
    _after: tuple[datetime, str] | None = None
    _suspects_after: str = ""
    _suspects_done: bool = False
    _seen: set[str] = field(default_factory=set)

    def claim(self, room: int) -> tuple[list[Claimed], list[DueLine]]:
        """Claim the next keys, and return them and a line for each that is passed over."""
        chunk: list[Claimed] = []
        lines: list[DueLine] = []
        buried: list[Claim] = []
        with writing(self.workspace) as unit:
            claims: list[Claim] = []
            found = self._candidates(unit.connection, unit.caller, room, now=unit.now, lock=True)
            abandoned = _abandoned(unit.connection, found)
            for key, known in found:
                unfit = self._unfit(key, known, abandoned[key.id], now=unit.now)
                if unfit is not None:
                    lines.append(unfit)
                    continue
                sink = named_sink(self.workspace, self._sink_name(key) or "")
                claim = Claim(
                    key_id=key.id,
                    run_id=self.run.id,
                    fingerprint=None,
                    staged_at=unit.now,
                    # Renewed at each key's own stage; until then it covers the chunk before it.
                    deadline_at=unit.now + CHUNK * (sink.timeout + run_lock.SLACK),
                )
                if known is None:
                    claims.append(claim)
                elif queries.take_over(unit.connection, claim, dead_run=known.run_id):
                    buried.append(known)
                else:
                    lines.append(line_of(key, "skipped", "claimed"))
                    continue
                chunk.append(Claimed(key=key, claim=claim, sink=sink))
            if claims:
                queries.insert_claim(unit.connection, *claims)
        self.run.claimed.update(item.key.id for item in chunk)
        run_lock.bury(self.workspace.database, self.run, buried)
        return chunk, lines

    def release(self, keys: Sequence[Key]) -> None:
        """End this run's claims on *keys*."""
        if not keys:
            return
        with writing(self.workspace, to_finish=True) as unit:
            for key in keys:
                queries.release_claim(unit.connection, key.id, self.run.id)
        self.run.claimed.difference_update(key.id for key in keys)

    def listed(self) -> Iterator[DueLine]:
        """Yield what a run would do with each key, without claiming any."""
        database = self.workspace.database
        while True:
            with database.read() as connection:
                now = database.now(connection)
                found = self._candidates(
                    connection, self.workspace.caller, CHUNK, now=now, lock=False
                )
                abandoned = _abandoned(connection, found)
            if not found:
                return
            for key, claim in found:
                unfit = self._unfit(key, claim, abandoned[key.id], now=now)
                yield unfit or line_of(key, "due")

    def _candidates(
        self, connection: Connection, caller: Caller, limit: int, *, now: datetime, lock: bool
    ) -> list[tuple[Key, Claim | None]]:
        """Return the next keys that the caller may rotate; others are passed over in silence."""
        settings = self.workspace.settings
        while page := self._page(connection, limit, lock=lock):
            theirs = [
                (key, claim)
                for key, claim in page
                if may_rotate(settings, connection, caller, key, now=now)
            ]
            if theirs:
                return theirs
        return []

    def _page(
        self, connection: Connection, limit: int, *, lock: bool
    ) -> list[tuple[Key, Claim | None]]:
        """Return the next page: first the keys whose sink is in doubt, then the longest due."""
        found: list[tuple[Key, Claim | None]] = []
        while not found and not self._suspects_done:
            page = queries.keys_with_suspect_sink(
                connection, after=self._suspects_after, limit=limit, lock=lock
            )
            if page:
                self._suspects_after = _id_of(page[-1][0])
                found = self._readable(page)
            else:
                self._suspects_done = True
        while not found:
            page = queries.keys_due(
                connection, due_at=self.due_at, after=self._after, limit=limit, lock=lock
            )
            if not page:
                return []
            self._after = self._place_of(page[-1][0])
            found = [item for item in self._readable(page) if item[0].id not in self._seen]
        self._seen.update(key.id for key, _ in found if not self._suspects_done)
        return found

    def _readable(self, page: Sequence[Due]) -> list[tuple[Key, Claim | None]]:
        """Return the keys of *page* that can be read, and note the others in the workspace."""
        known = {item.object_id for item in self.workspace.unreadable}
        self.workspace.unreadable.extend(
            item
            for item, _ in page
            if isinstance(item, UnreadableRowError) and item.object_id not in known
        )
        return [(item, claim) for item, claim in page if isinstance(item, Key)]

    def _place_of(self, item: Key | UnreadableRowError) -> tuple[datetime, str]:
        moment = (
            item.key_rotation_at if isinstance(item, Key) else item.known.get("key_rotation_at")
        )
        return moment or self.due_at, _id_of(item)

    def _sink_name(self, key: Key) -> str | None:
        return key.sink or self.workspace.settings.default_sink

    def _unfit(
        self, key: Key, claim: Claim | None, abandoned: int, *, now: datetime
    ) -> DueLine | None:
        """Return the line for a key that is not to be rotated now, None for one that is."""
        state = lifecycle.key_state(key, now=now)
        if state != "active":
            return line_of(key, "skipped", state)
        if claim is not None and self.run.is_alive(claim, now=now):
            return line_of(key, "skipped", "claimed")
        name = self._sink_name(key)
        if name is None or name not in self.workspace.settings.sinks:
            return line_of(key, "failed", "no_sink")
        if abandoned >= MOST_ABANDONED:
            return line_of(key, "failed", "abandoned")
        return None


def _id_of(item: Key | UnreadableRowError) -> str:
    return item.id if isinstance(item, Key) else item.object_id


def line_of(key: Key, result: str, reason: str | None = None) -> DueLine:
    """Return the line for *key*."""
    return DueLine(key_id=key.id, key_alias=key.key_alias, result=result, reason=reason)


def _abandoned(connection: Connection, found: Sequence[tuple[Key, Claim | None]]) -> Counter[str]:
    """Return how many secrets of each key are staged."""
    secrets = queries.secrets_of(connection, *(key.id for key, _ in found))
    return Counter(secret.key_id for secret in secrets if secret.state == "staged")
