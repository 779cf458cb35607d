"""Tell how everything stands in one answer: keys, what is due, what ends, what failed, what is spent."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from keyctl import lifecycle, money
from keyctl.db import queries
from keyctl.db.queries import audit, standing
from keyctl.db.queries.events import Conditions
from keyctl.db.schema import HEAD
from keyctl.services.callers import require_overseer
from keyctl.services.repair import CheckService
from keyctl.services.transaction import anchor
from keyctl.services.workspace import Workspace

_SOON: Final = timedelta(days=7)
_RECENT: Final = timedelta(days=1)
NEARLY_SPENT: Final = 80
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class StatusService:
    """Reads how everything stands, for who may see all of it."""

    workspace: Workspace

    def status(self) -> dict[str, Any]:
        """Return the whole answer; lists in it have at most ten entries.

        Raises:
            DeniedError: The caller may not see everything.
        """
        require_overseer(self.workspace, "the status", "status")
        left = CheckService(self.workspace).check()["left"]
        database = self.workspace.database
        with database.read() as connection:
            now = database.now(connection)
            counts = standing.count_keys(connection, now=now)
            ending = standing.keys_ending(connection, now=now, before=now + _SOON, limit=_SHOWN)
            failed = Conditions(actions=["key_rotation_failed"], since=now - _RECENT)
            return {
                "database": {
                    "url": database.shown,
                    "revision": HEAD,
                    "state": "current" if database.move is None else database.move.stage,
                },
                "caller": self.workspace.caller.actor,
                "keys": {state: counts.get(state, 0) for state in lifecycle.KEY_STATES},
                "unfinished": len(left),
                "rotation": {
                    "due": standing.count_rotations_due(connection, now=now),
                    "failed_within_1d": audit.count_events(connection, failed),
                },
                "ending_within_7d": ending,
                "budgets": {
                    "reset_due": queries.count_budgets_due(connection, now=now),
                    "nearly_spent": [
                        {
                            **budget,
                            "spend": money.dollars(budget["spend"]),
                            "max_budget": money.dollars(budget["max_budget"]),
                        }
                        for budget in standing.budgets_nearly_spent(
                            connection, percent=NEARLY_SPENT, limit=_SHOWN
                        )
                    ],
                },
                "outbox": standing.outbox_standing(connection),
                "audit": anchor(audit.find_head(connection)),
            }
