"""Show the audit trail to whoever may read it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from keyctl import jsontext, views
from keyctl.db import queries, told
from keyctl.db.queries import audit, directory
from keyctl.db.queries.audit import Head
from keyctl.db.queries.events import Conditions
from keyctl.errors import (
    ActorNotFoundError,
    BrokenChainError,
    KeyNotFoundError,
    NotFoundError,
    StateDiffersError,
)
from keyctl.records import Principal, Team, User
from keyctl.services.callers import require_admin, require_overseer
from keyctl.services.keys.find import find
from keyctl.services.owners import WORD, missing
from keyctl.services.state import Difference, differences, hear, name_of, record_rows
from keyctl.services.transaction import anchor, writing
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are wanted; what is None does not matter."""

    key: str | None = None
    team: str | None = None
    user: str | None = None
    object_id: str | None = None
    actor: str | None = None
    actions: Collection[str] | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditService:
    """Reads the chain of audit events, and checks it."""

    workspace: Workspace

    def page(
        self, wanted: EventFilter, *, after: int | None = None, limit: int
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Return one page of events, the newest first, and the sequence number to go on after."""
        require_overseer(self.workspace, "the audit trail", "audit")
        with self.workspace.database.read() as connection:
            rows = audit.find_events(
                connection,
                _asked(connection, wanted),
                before_seq=after,
                limit=limit + 1,
            )
        page = [views.event_view(_view(row)) for row in rows[:limit]]
        return page, page[-1]["seq"] if len(rows) > limit else None

    def head(self) -> dict[str, Any]:
        """Return the chain's last sequence number and hash."""
        require_overseer(self.workspace, "the audit trail", "audit")
        with self.workspace.database.read() as connection:
            head = audit.find_head(connection)
        return anchor(head)

    def export(self, wanted: EventFilter) -> Iterator[dict[str, Any]]:
        """Yield every event, the oldest first, so that a million of them need no memory."""
        require_overseer(self.workspace, "the audit trail", "audit")
        with (
            self.workspace.database.read(snapshot=True) as connection,
            closing(audit.export(connection, _asked(connection, wanted))) as rows,
        ):
            for row in rows:
                yield _view(row)

    def count(self) -> int:
        """Return how many events `verify` walks over."""
        with self.workspace.database.read() as connection:
            return audit.count_events(connection)

    def verify(
        self, *, expected: Head | None = None, state: bool = False, step: Callable[[], None]
    ) -> Head:
        """Walk the chain and return its head; *step* is called after each event.

        *expected* is a head that was kept elsewhere: the event of that number must still be there
        with that hash, which a cut or rewritten chain cannot have.  With *state*, what is stored
        must be what the chain last said of it, usage aside.

        Raises:
            BrokenChainError: The chain does not hold; it names the first event that does not fit.
            StateDiffersError: What is stored differs; it names each object and field.
        """
        require_overseer(self.workspace, "the audit trail", "audit")
        head, kept = Head(0, audit.GENESIS), expected is None
        with (
            self.workspace.database.read(snapshot=True) as connection,
            told.nothing_told() as memory,
            closing(audit.check_chain(connection, heard=_listener(memory, state=state))) as links,
        ):
            try:
                for head in links:
                    if expected is not None and head.seq == expected.seq:
                        _check_kept(head, expected)
                        kept = True
                    step()
            except audit.BrokenLinkError as error:
                raise _broken(error) from error
            found = list(differences(connection, memory)) if state else []
        if found:
            raise _differs(found)
        if expected is not None and not kept:
            raise BrokenChainError(
                f"the audit chain ends at event {head.seq}: event {expected.seq} is missing",
                hint=audit.ADVICE,
            )
        return head

    def accept(self, *, reason: str) -> dict[str, Any]:
        """Record every row that differs from what the chain says as it stands now, on record as accepted.

        Rows that cannot be read, or that are gone, are left: there is nothing to record.
        """
        require_admin(self.workspace, "accept what is stored", "audit_accept_denied", "audit")
        with writing(self.workspace) as unit, told.nothing_told() as memory:
            try:
                for _ in audit.check_chain(unit.connection, heard=partial(hear, memory)):
                    pass
            except audit.BrokenLinkError as error:
                raise _broken(error) from error
            wanted = {
                (item.object_type, item.object_id) for item in differences(unit.connection, memory)
            }
            accepted = sum(
                record_rows(unit, word, [row], reason=reason)
                for word, row in told.stored(unit.connection)
                if (word, name_of(word, row)) in wanted
            )
        return {"accepted": accepted, "audit": anchor(unit.heads[-1]) if unit.heads else None}

    def record_upgraded(self) -> None:
        """Record all rows after an upgrade from a version whose chain did not tell all of them."""
        for word in told.TABLES:
            after: tuple[Any, ...] | None = None
            while True:
                with writing(self.workspace) as unit:
                    found, after = told.page(unit.connection, word, after=after, lock=True)
                    record_rows(unit, word, found, reason="the database was upgraded")
                if after is None:
                    break


def _listener(memory: told.Told, *, state: bool) -> Callable[[Mapping[str, Any]], None]:
    return partial(hear, memory) if state else lambda _: None


def _differs(found: Sequence[Difference]) -> StateDiffersError:
    objects = {(item.object_type, item.object_id) for item in found}
    return StateDiffersError(
        f"what is stored of {_counted(len(objects), 'object')} is not what the audit chain says"
        f" ({_counted(len(found), 'field')})",
        hint="compare them with a backup; keyctl audit accept puts what stands on record, once you know why",
        violations=[item.violation() for item in found],
    )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _asked(connection: Connection, wanted: EventFilter) -> Conditions:
    """Return the conditions for the query, the key by its id.

    Raises:
        NotFoundError: A name is neither in the database nor on record.
    """
    owners: list[tuple[type[Principal], str]] = []
    if wanted.team is not None:
        owners.append((Team, wanted.team))
    if wanted.user is not None:
        owners.append((User, wanted.user))
    asked = Conditions(
        key_ids=None if wanted.key is None else _key_ids(connection, wanted.key),
        concerning=[(WORD[kind], object_id) for kind, object_id in owners],
        object_id=wanted.object_id,
        actor=wanted.actor,
        actions=wanted.actions,
        since=wanted.since,
        until=wanted.until,
    )
    for kind, object_id in owners:
        named = Conditions(concerning=[(WORD[kind], object_id)])
        if not directory.known(connection, kind, [object_id]) and not audit.has_events(
            connection, named
        ):
            raise missing(kind, object_id)
    if wanted.actor is not None and not audit.has_events(
        connection, Conditions(actor=wanted.actor)
    ):
        raise ActorNotFoundError(
            f"{wanted.actor!r} did nothing that is on record",
            hint="an actor is local:USER@HOST or key:KEY_ID; keyctl audit list shows them",
            given=wanted.actor,
        )
    if wanted.object_id is not None and "*" not in wanted.object_id:
        named = Conditions(object_id=wanted.object_id)
        if not audit.has_events(connection, named):
            raise NotFoundError(
                f"no event is about {wanted.object_id!r}",
                hint="keyctl audit list shows the objects; with * in it, it is a pattern",
            )
    return asked


def _key_ids(connection: Connection, given: str) -> list[str]:
    """Return the ids of every key that had this name, and the name itself.

    A denied request is on record under the alias it asked for.
    """
    ids = queries.ids_by_alias(connection, given)
    try:
        ids.append(find(connection, given).id)
    except KeyNotFoundError:
        if not ids and not audit.has_events(connection, Conditions(key_ids=[given])):
            raise
    return [*ids, given]


def _check_kept(head: Head, expected: Head) -> None:
    if head.hash != expected.hash:
        raise BrokenChainError(
            f"event {head.seq} has another hash than the head that was kept", hint=audit.ADVICE
        )


def _broken(error: audit.BrokenLinkError) -> BrokenChainError:
    return BrokenChainError(f"the audit chain is broken: {error}", hint=audit.ADVICE)


def _view(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "before": _document(row["before"]), "after": _document(row["after"])}


def _document(text: str | None) -> Any:
    try:
        return None if text is None else jsontext.loads(text)
    except (RecursionError, ValueError):
        return text  # not what keyctl wrote: the reader should see what is there
