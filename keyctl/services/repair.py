"""List what crashes left behind, with the command that clears it, and clear it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.db.schema import HEAD
from keyctl.errors import KeyctlError, UnreadableRowError
from keyctl.policy import operations
from keyctl.policy.documents import stored_policy
from keyctl.records import Key
from keyctl.services.callers import administering, require_admin, require_overseer
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import named_sink
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.transaction import archive_pending
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class CheckService:
    """Looks for keys and secrets that no living run will confirm."""

    workspace: Workspace

    def check(self) -> dict[str, Any]:
        """Return the schema revision and one entry for each key that a crash left unfinished."""
        require_overseer(self.workspace, "the state of the database", "database")
        with run_lock.begun(self.workspace.runs_folder) as run:
            left = list(self._left(run))
        return {
            "revision": HEAD,
            "left": left,
            **rights_lost(self.workspace.database),
            "earlier_routes": self._earlier_routes(),
            "unreadable": self._unreadable(),
        }

    def _earlier_routes(self) -> list[dict[str, Any]]:
        """Return the keys from before there was a default for routes, which they go on without."""
        with self.workspace.database.read() as connection:
            found = queries.keys_with_earlier_routes(connection)
        return [
            {
                "key_id": key_id,
                "key_alias": alias,
                "command": f"keyctl update {key_id} --clear allowed_routes",
            }
            for key_id, alias in found
        ]

    def _unreadable(self) -> list[dict[str, Any]]:
        """Return every row that cannot be read, policies and hashes included; noted in the workspace."""
        with self.workspace.database.read(snapshot=True) as connection:
            found = [*queries.unreadable_rows(connection), *_policies(connection)]
        self.workspace.unreadable.extend(found)
        return [
            {
                "object_type": item.object_type,
                "object_id": item.object_id,
                "columns": item.columns,
                "problem": item.message,
            }
            for item in found
        ]

    def repair(self) -> dict[str, Any]:
        """Archive what nobody depends on, rotate anew what has a sink, and name the command for the rest."""
        require_admin(self.workspace, "repair the database", "database_repair_denied", "database")
        left = []
        with run_lock.begun(self.workspace.runs_folder) as run:
            for entry in list(self._left(run)):
                outcome = self._repair(entry, run)
                left.append({**entry, "result": outcome})
        return {"revision": HEAD, "left": left, **rights_lost(self.workspace.database)}

    def _left(self, run: Run) -> Iterator[dict[str, Any]]:
        database = self.workspace.database
        with database.read() as connection:
            now = database.now(connection)
            for key in queries.unfinished_keys(connection):
                claim = queries.find_claim(connection, key.id)
                if claim is not None and run.is_alive(claim, now=now):
                    continue
                yield {
                    "key_id": key.id,
                    "key_alias": key.key_alias,
                    "problem": _problem(key),
                    "until": claim.deadline_at if claim else None,
                    "command": _command(key),
                }

    def _repair(self, entry: dict[str, Any], run: Run) -> str:
        if entry["problem"] == "pending":
            return self._archive(entry["key_id"], run)
        with self.workspace.database.read() as connection:
            key = queries.find_key(connection, entry["key_id"])
        if key is None:
            return "settled by another run"
        # The default sink serves keys that are rotated without a person; of another one a person
        # may hold the secret in use, which a rotation into that sink would end.
        default = self.workspace.settings.default_sink if key.auto_rotate else None
        name = key.sink or default
        if name is None:
            return f"left: {entry['command']}"
        try:
            sink = named_sink(self.workspace, name)
            RotateService(self.workspace).rotate(RotateOrder(given=entry["key_id"]), sink)
        except KeyctlError as error:
            return f"failed: {error.message}"
        return "rotated"

    def _archive(self, key_id: str, run: Run) -> str:
        with administering(
            self.workspace, "repair the database", "database_repair_denied", "database"
        ) as unit:
            key = queries.find_key(unit.connection, key_id, lock=True)
            claim = queries.find_claim(unit.connection, key_id)
            if key is None or key.confirmed_at is not None or key.deleted_at is not None:
                return "settled by another run"
            if claim is not None and run.is_alive(claim, now=unit.now):
                return "taken over by another run"
            archive_pending(unit, key, reason="db check --repair")
        if claim is not None:
            run_lock.bury(self.workspace.database, run, [claim])
        return "archived"


def rights_lost(database: Database) -> dict[str, Any]:
    """Return the secrets from before `administers` that may not be used as a caller any more.

    Each with the command that gives it back.  A key whose routes hold no operation loses nothing.
    """
    with database.read() as connection:
        lost = [
            {
                "key_id": key.id,
                "key_alias": key.key_alias,
                "secret_id": secret.id,
                "command": f"keyctl update {key.id} --administers {secret.id}",
            }
            for secret, key in queries.secrets_that_lost_their_right(connection)
            if operations.may_administer(key)
        ]
    return {"administers_lost": lost}


def _policies(connection: Connection) -> Iterator[UnreadableRowError]:
    for owner in queries.owners_with_policy(connection):
        try:
            stored_policy(owner)
        except UnreadableRowError as error:
            yield error


def _problem(key: Key) -> str:
    if key.confirmed_at is None:
        return "pending"
    return "abandoned_secret" if key.sink_suspect_at is None else "sink_suspect"


def _command(key: Key) -> str:
    if key.confirmed_at is None:
        return "run the same command again"
    return f"keyctl rotate {key.id}"
