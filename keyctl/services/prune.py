"""Remove what ended long ago from the tables that everyday commands read."""

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from keyctl import durations
from keyctl.db import queries
from keyctl.db.queries import pruning
from keyctl.services.callers import require_admin
from keyctl.services.transaction import writing
from keyctl.services.workspace import Workspace

_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class PruneService:
    """Removes delivered events, revoked secrets, and the details of deleted keys.

    The audit trail is not cut.  Of a secret stays whose it was, so that its key string is still known
    as ended, is not taken a second time, and gives way in a file.  Of a key stays its row, so that a
    repeated request finds it: who it was and whose, how long it lived, and what it spent.
    """

    workspace: Workspace

    def prunable(self, older_than: str | None) -> dict[str, Any]:
        """Return what `prune` would remove."""
        before = self._before(older_than)
        with self.workspace.database.read() as connection:
            return {
                "before": before,
                "secrets": pruning.count_prunable(connection, before=before),
                "keys": pruning.count_strippable(connection, before=before),
                "events": pruning.count_forgettable(connection, before=before),
            }

    def prune(self, older_than: str | None) -> dict[str, Any]:
        """Remove what ended longer ago than *older_than*, on record, and return how much it was."""
        before = self._before(older_than)
        with writing(self.workspace) as unit:
            events = pruning.count_forgettable(unit.connection, before=before)
            queries.forget_delivered(unit.connection, before=before)
        return {
            "before": before,
            "secrets": self._prune_secrets(before),
            "keys": self._strip_keys(before),
            "events": events,
        }

    def _prune_secrets(self, before: datetime) -> int:
        removed, after = 0, ("", "")
        while True:
            with writing(self.workspace) as unit:
                rows = pruning.prunable(unit.connection, before=before, after=after, limit=_CHUNK)
                if not rows:
                    return removed
                pruning.prune(unit.connection, rows)
                for key_id, of_key in groupby(rows, key=lambda row: row["key_id"]):
                    gone = [{"id": row["id"], "removed": True} for row in of_key]
                    unit.record("secrets_pruned", "key", key_id, after={"secrets": gone})
            removed += len(rows)
            after = rows[-1]["key_id"], rows[-1]["id"]

    def _strip_keys(self, before: datetime) -> int:
        stripped, after = 0, ""
        while True:
            with writing(self.workspace) as unit:
                found = pruning.strippable(
                    unit.connection, before=before, after=after, limit=_CHUNK
                )
                if not found:
                    return stripped
                pruning.strip(unit.connection, found, at=unit.now, by=unit.caller.actor)
                for key_id in found:
                    unit.record("key_pruned", "key", key_id)
            stripped += len(found)
            after = found[-1]

    def _before(self, older_than: str | None) -> datetime:
        require_admin(self.workspace, "prune the database", "database_prune_denied", "database")
        length = durations.parse_duration(older_than or self.workspace.settings.prune_after)
        with self.workspace.database.read() as connection:
            return length.times(-1, self.workspace.database.now(connection))
