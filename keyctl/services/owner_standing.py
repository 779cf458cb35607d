"""Tell how a team, a user or an organization stands: what is left of its budget, its keys by spend."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import money, purses, views
from keyctl.db import queries
from keyctl.db.queries import standing
from keyctl.db.queries.tiers import find_tier
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Principal, Team, User
from keyctl.services.keys.find import visible_to
from keyctl.services.spent import left_of

_COLUMN: Final[dict[type[Principal], str]] = {
    Team: "team_id",
    User: "user_id",
    Organization: "organization_id",
}
_DEAREST: Final = 10


def standing_of(
    connection: Connection, caller: Caller, record: Principal, *, now: datetime
) -> dict[str, Any]:
    """Return what is left of the budget in dollars, and the dearest of the keys that the caller may see.

    Also what is left of windows, of budgets of single models, of the tokens of a day, and of a user's
    budget tier.
    """
    dearest, count, spent = standing.spend_by_key(
        connection,
        visible_to(caller),
        column=_COLUMN[type(record)],
        value=record.id,
        limit=_DEAREST,
    )
    own = purses.own_budget(record)
    return {
        "left": None if own is None else left_of(own, now)["left"],
        **_metered(connection, record, now),
        "keys": {
            "count": count,
            "spend": money.dollars(spent),
            "dearest": [
                {name: views.dollars(name, value) for name, value in key.items()} for key in dearest
            ],
        },
    }


def _metered(connection: Connection, record: Principal, now: datetime) -> dict[str, Any]:
    if not isinstance(record, Team | User | Organization):
        return {}
    tier = None
    if isinstance(record, User) and record.budget_id is not None:
        tier = find_tier(connection, record.budget_id)
    found = list(purses.metered(record, {} if tier is None else {tier.id: tier}))
    meters, _ = queries.find_meters(connection, [budget.name for budget in found])
    return {"budgets": [left_of(purses.spent(budget, meters), now) for budget in found]}
