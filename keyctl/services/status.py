"""Tell how everything stands in one answer: keys, what is due, what ends, what failed, what is spent."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import lifecycle, money
from keyctl.db import queries
from keyctl.db.queries import audit, standing
from keyctl.db.queries.events import Conditions
from keyctl.db.queries.metered import metered
from keyctl.db.schema import HEAD
from keyctl.purses import OWN
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
                    "nearly_spent": list(islice(_nearly_spent(connection, now), _SHOWN)),
                },
                "outbox": standing.outbox_standing(connection),
                "audit": anchor(audit.find_head(connection)),
            }


def _nearly_spent(connection: Connection, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield budgets that are nearly spent: those of the owners' own rows, then those with a meter."""
    for row in standing.budgets_nearly_spent(
        connection, now=now, percent=NEARLY_SPENT, limit=_SHOWN
    ):
        yield _view(row["object_type"], row["object_id"], OWN, row["spend"], row["max_budget"])
    for item in metered(connection, now=now):
        budget = item.budget
        if budget.spend * 100 >= budget.limit * NEARLY_SPENT:
            yield _view(
                item.object_type, item.object_id, budget.name.meter, budget.spend, budget.limit
            )


def _view(object_type: str, object_id: str, budget: str, spend: int, limit: int) -> dict[str, Any]:
    return {
        "object_type": object_type,
        "object_id": object_id,
        "budget": budget,
        "spend": money.dollars(spend),
        "max_budget": money.dollars(limit),
    }
