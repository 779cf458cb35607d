"""What a crash left behind: listed, and with the command that clears it."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from keyctl.db import queries
from keyctl.db.schema import HEAD
from keyctl.db.tables import keys, secrets
from keyctl.records import Key
from keyctl.services import runs
from keyctl.services.callers import require_overseer
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class CheckService:
    """Looks for pending keys and staged secrets that no living run will confirm."""

    workspace: Workspace

    def check(self) -> dict[str, Any]:
        """Return the schema revision and one entry for each key that a crash left unfinished."""
        require_overseer(self.workspace.caller, "the state of the database")
        database = self.workspace.database
        left = []
        with runs.begun(self.workspace.runs_folder) as run, database.read() as connection:
            now = database.now(connection)
            query = (
                select(keys)
                .join(secrets, secrets.c.key_id == keys.c.id)
                .where(keys.c.deleted_at.is_(None), secrets.c.state == "staged")
                .distinct()
                .order_by(keys.c.id)
            )
            for row in connection.execute(query).mappings():
                key = Key.of(row)
                claim = queries.find_claim(connection, key.id)
                if claim is not None and run.is_alive(claim, now=now):
                    continue
                pending = key.confirmed_at is None
                left.append(
                    {
                        "key_id": key.id,
                        "key_alias": key.key_alias,
                        "problem": "pending" if pending else "abandoned_secret",
                        "until": claim.deadline_at if claim else None,
                        "command": "run the same keyctl generate again"
                        if pending
                        else f"keyctl rotate {key.id}",
                    }
                )
        return {"revision": HEAD, "left": left}
