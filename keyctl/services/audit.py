"""The audit trail, for who may read it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyctl import jsontext
from keyctl.db import audit
from keyctl.errors import KeyNotFoundError
from keyctl.services import keys
from keyctl.services.callers import require_overseer
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class AuditService:
    """Reads the chain of audit events."""

    workspace: Workspace

    def page(
        self,
        *,
        key: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: int | None = None,
        limit: int,
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Return one page of events, the newest first, and the sequence number to go on after.

        Raises:
            KeyNotFoundError: *key* names none.
        """
        require_overseer(self.workspace.caller, "the audit trail")
        with self.workspace.database.read() as connection:
            key_ids = None
            if key is not None:
                # A denied request is on record under the alias it asked for.
                try:
                    key_ids = [keys.find(connection, key).id, key]
                except KeyNotFoundError:
                    key_ids = [key]
            rows = audit.find_events(
                connection,
                key_ids=key_ids,
                actor=actor,
                action=action,
                since=since,
                until=until,
                before_seq=after,
                limit=limit + 1,
            )
        page = [_view(row) for row in rows[:limit]]
        return page, page[-1]["seq"] if len(rows) > limit else None

    def head(self) -> dict[str, Any]:
        """Return the chain's last sequence number and hash."""
        require_overseer(self.workspace.caller, "the audit trail")
        with self.workspace.database.read() as connection:
            head = audit.find_head(connection)
        return {"seq": head.seq, "head": head.hash}


def _view(row: dict[str, Any]) -> dict[str, Any]:
    view = dict(row)
    for name in ("before", "after"):
        view[name] = None if view[name] is None else jsontext.loads(view[name])
    return view
