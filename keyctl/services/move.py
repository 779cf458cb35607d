"""Move everything into another database: close this one to writers, copy, compare, open the other."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import jsontext, keystring
from keyctl.db import moving
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Event
from keyctl.db.queries.events import Conditions
from keyctl.db.schema import HEAD, Move, check_writable, mark, move_of
from keyctl.errors import BrokenChainError, ConflictError, CorruptedError, UsageError
from keyctl.services.callers import require_admin
from keyctl.services.transaction import anchor, writing
from keyctl.services.workspace import Workspace

_MOVED: Final = "database_moved"
# Told the name of what is done, and how many rows of it more.
Step = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class MoveService:
    """Moves the workspace's database.

    The source's mark comes first, so that nothing is written there that the copy does not have.
    It stays when the copy is done: two databases would rotate the same keys into the same sinks.
    """

    workspace: Workspace

    def copy(self, target: Database, *, step: Step) -> dict[str, Any]:
        """Copy everything into *target*, or go on where a killed run of the same copy ended.

        Raises:
            UsageError: It is the same database.
            ConflictError: The target holds something else.
            CorruptedError: What arrived is not what was there.
        """
        source = self.workspace.database
        require_admin(self.workspace, "move the database", "database_move_denied", "database")
        if (
            target.address.url == source.address.url
            and target.address.schema == source.address.schema
        ):
            raise UsageError(
                "the target is the database itself", hint="name another one with KEYCTL_TARGET_URL"
            )
        move = self._found(target) or self._begun(target, step)
        rows = self._rows_moved(target, move)
        copied = rows is None
        if rows is None:
            rows = self._fill(target, move, step)
            self._open(target, move, rows)
        if move.stage == "moving":
            after = Move("moved", move.id)
            with source.write(marked=move.mark) as connection:
                mark(connection, after.mark, before=move.mark)
        with target.read() as connection:
            head = audit.find_head(connection)
        return {
            "source": source.shown,
            "target": target.shown,
            "state": "moved",
            "copied": copied,
            "rows": rows,
            "audit": anchor(head),
        }

    def steps(self) -> int:
        """Return of how many rows `copy` tells its *step*, about."""
        with self.workspace.database.read() as connection:
            return 3 * moving.count_rows(connection)

    def is_complete(self) -> bool:
        """Tell whether everything of this database is in another one."""
        move = move_of(self.workspace.database.revision())
        return move is not None and move.stage == "moved"

    def abort(self) -> dict[str, Any]:
        """Open the database to writers again, whatever became of the copy.

        Raises:
            ConflictError: It is not closed.
        """
        source = self.workspace.database
        require_admin(self.workspace, "open the database", "database_move_denied", "database")
        revision = source.revision()
        move = move_of(revision)
        if revision is None or move is None or move.stage == "filling":
            check_writable(revision)
            raise ConflictError(
                "the database is not being moved", hint="keyctl db status shows its state"
            )
        with source.write(marked=revision) as connection:
            mark(connection, move.revision, before=revision)
            head = audit.append(
                connection,
                [self._event("database_move_aborted", move)],
                at=source.began_at(connection),
            )[-1]
        return {"source": source.shown, "state": "open", "audit": anchor(head)}

    def _found(self, target: Database) -> Move | None:
        """Return the move that a run before this one began, None if there was none.

        Raises:
            ConflictError: The target belongs to another move.
            SchemaError: The source is being filled itself.
        """
        ours, theirs = move_of(self.workspace.database.revision()), move_of(target.revision())
        if ours is not None and ours.stage == "filling":
            check_writable(ours.mark)
        if theirs is not None and (
            ours is None or ours.id != theirs.id or theirs.stage != "filling"
        ):
            raise ConflictError(
                f"{target.shown} is part of another move",
                hint="name an empty database, or the one that this move began with",
            )
        if ours is not None and theirs is None and self._rows_moved(target, ours) is None:
            if ours.stage == "moved":
                check_writable(ours.mark)
            self._claim_target(target, ours)
        return ours

    def _begun(self, target: Database, step: Step) -> Move:
        source = self.workspace.database
        with source.read(snapshot=True) as connection:
            _check_chain(connection, step)
        move = Move("moving", keystring.random_text(8).lower())
        self._claim_target(target, move)
        with writing(self.workspace) as unit:
            unit.record(
                "database_move_begun",
                "database",
                move.id,
                before={"database": source.shown},
                after={"database": target.shown},
            )
            mark(unit.connection, move.mark, before=HEAD)
        return move

    def _claim_target(self, target: Database, move: Move) -> None:
        """Make an empty database's schema and close it to all but this move."""
        before = target.revision()
        if before is None:
            target.upgrade()
        with target.write() as connection:
            if not moving.is_empty(connection):
                raise ConflictError(
                    f"{target.shown} is not empty", hint="name a database without keys and events"
                )
            mark(connection, Move("filling", move.id).mark, before=HEAD)

    def _rows_moved(self, target: Database, move: Move) -> dict[str, int] | None:
        """Return what this move copied to *target*, None where it is not complete."""
        if target.revision() != HEAD:
            return None
        with target.read() as connection:
            found = audit.find_events(connection, Conditions(actions={_MOVED}), limit=100)
        texts = [row["after"] for row in found if row["object_id"] == move.id]
        return dict(jsontext.loads(texts[0])["rows"]) if texts else None

    def _fill(self, target: Database, move: Move, step: Step) -> dict[str, int]:
        marked = Move("filling", move.id).mark
        found: dict[str, moving.Contents] = {}
        source = self.workspace.database
        with source.read(snapshot=True) as connection:
            passed = moving.is_passed(connection, target)
            for table in moving.TABLES:
                found[table.name] = moving.copy_table(
                    connection,
                    source,
                    target,
                    table,
                    marked=marked,
                    step=partial(step, table.name),
                )
        with target.write(marked=marked) as connection:
            for table in moving.TABLES:
                arrived = moving.contents_of(
                    connection, table, step=partial(step, "compared"), passed=passed
                )
                if arrived != found[table.name]:
                    raise CorruptedError(
                        f"table {table.name} has {arrived.rows} rows in {target.shown}, and"
                        f" {found[table.name].rows} where they came from, or other contents",
                        hint="empty the target and run keyctl db copy again",
                    )
        return {name: contents.rows for name, contents in found.items()}

    def _open(self, target: Database, move: Move, rows: dict[str, int]) -> None:
        marked = Move("filling", move.id).mark
        with target.write(marked=marked) as connection:
            mark(connection, HEAD, before=marked)
            event = self._event(_MOVED, move, after={"database": target.shown, "rows": rows})
            audit.append(connection, [event], at=target.began_at(connection))

    def _event(self, action: str, move: Move, after: dict[str, Any] | None = None) -> Event:
        caller = self.workspace.caller
        return Event(
            actor=caller.actor,
            changed_by=caller.changed_by,
            action=action,
            object_type="database",
            object_id=move.id,
            before={"database": self.workspace.database.shown},
            after=after,
        )


def _check_chain(connection: Connection, step: Step) -> None:
    """Refuse to move a chain that does not hold.  What is copied is compared, so it holds there too."""
    try:
        for number, _ in enumerate(audit.check_chain(connection)):
            if number % moving.CHUNK == 0:
                step("verified", moving.CHUNK)
    except audit.BrokenLinkError as error:
        raise BrokenChainError(f"the audit chain is broken: {error}", hint=audit.ADVICE) from error
