"""Ask which keys have spent a budget of their own that has a meter: a window, a model's, a tier's, a day's tokens."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, Text, and_, or_, select, type_coerce

from keyctl import jsontext, purses
from keyctl.db import rows
from keyctl.db.tables import budgets, keys, meters
from keyctl.purses import Budget
from keyctl.records import ForeignValueError, Key, Tier


class _Limits(NamedTuple):
    """What limits a key by meters, as its row holds it."""

    budget_limits: str
    model_max_budget: str
    tpd_limit: int | None
    budget_id: str | None


# Among a key's budgets: one allows nothing at all.
_ALWAYS: Final = ""

# One of these, and the key has a budget with a meter.
_IS_LIMITED: Final = or_(
    type_coerce(keys.c.budget_limits, Text) != "[]",
    type_coerce(keys.c.model_max_budget, Text) != "{}",
    keys.c.tpd_limit.is_not(None),
    keys.c.budget_id.is_not(None),
)


def keys_past_a_meter(connection: Connection, *, now: datetime) -> frozenset[str]:
    """Return the ids of live keys with a metered budget of their own of which nothing is left.

    A period that is over counts as new, and what cannot be read is passed over: `db check` lists it.
    """
    counts = and_(
        meters.c.object_table == "keys",
        meters.c.object_id == keys.c.id,
        meters.c.spend > 0,
    )
    # The limits stand in documents, with exact decimals, so they are compared here and not there.
    query = (
        select(
            type_coerce(keys.c.budget_limits, Text),
            type_coerce(keys.c.model_max_budget, Text),
            keys.c.tpd_limit,
            keys.c.budget_id,
            keys.c.id,
            meters.c.meter,
            meters.c.spend,
            meters.c.budget_reset_at > now,
        )
        .select_from(keys.outerjoin(meters, counts))
        .where(keys.c.deleted_at.is_(None), _IS_LIMITED)
    )
    live_tiers = select(budgets).where(budgets.c.deleted_at.is_(None))
    tiers = {
        tier.id: tier
        for tier in rows.each(connection, live_tiers, budgets, Tier.of)
        if isinstance(tier, Tier)
    }
    # Many keys have the same limits.
    known: dict[_Limits, Mapping[str, Budget | None]] = {}
    found: set[str] = set()
    for *limits, key_id, meter, spend, goes_on in connection.execute(query):
        limited_by = _Limits(*limits)
        own = known.get(limited_by)
        if own is None:
            own = known[limited_by] = _budgets(limited_by, tiers, now)
        budget = own.get(meter)
        is_spent = (
            budget is not None
            and spend >= budget.limit
            and (goes_on or budget.period is None)  # else it is over, and counts as new
        )
        if is_spent or _ALWAYS in own:
            found.add(key_id)
    return frozenset(found)


def _budgets(
    limits: _Limits, tiers: Mapping[str, Tier], now: datetime
) -> Mapping[str, Budget | None]:
    """Return the metered budgets of a key that is limited so, by their meters."""
    try:
        key = Key(
            id="",
            budget_limits=jsontext.loads(limits.budget_limits),
            model_max_budget=jsontext.loads(limits.model_max_budget),
            tpd_limit=limits.tpd_limit,
            budget_id=limits.budget_id,
            created_at=now,
            created_by="",
            updated_at=now,
            updated_by="",
        )
        found: dict[str, Budget | None] = {
            item.name.meter: item for item in purses.metered(key, tiers)
        }
    except (ForeignValueError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    if any(budget is not None and budget.limit == 0 for budget in found.values()):
        found[_ALWAYS] = None
    return found
