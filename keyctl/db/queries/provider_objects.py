"""Keep what a provider made for a key under an id, and charge it once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select, update

from keyctl.db.queries.leases import keep_leases, leases_of, write_leases
from keyctl.db.queries.purses import lock_purses, spend_more
from keyctl.db.tables import leases, provider_objects, recorders
from keyctl.db.upserts import insert_into
from keyctl.money import MAX_NANO
from keyctl.purses import PurseName, Terms
from keyctl.records import ProviderObject


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object is: at which deployment, of which kind, and under which of the provider's ids."""

    deployment: str
    kind: str
    provider_id: str


def keep_object(
    connection: Connection, record: ProviderObject, *, until: datetime, now: datetime
) -> bool:
    """Write who made an object, and reserve what it may cost until then; False when it is there already.

    What is reserved counts as charged when that time is over: whoever comes across it charges it.
    """
    columns = {name: getattr(record, name) for name in record.__slots__}
    fresh = insert_into(connection, provider_objects).values(**columns)
    written = connection.execute(fresh.on_conflict_do_nothing().returning(provider_objects.c.id))
    if written.first() is None:
        return False
    amounts = _reserved(record)
    if any(amounts.values()):
        keep_leases(connection, record.id, until=until, now=now)
        names = lock_purses(connection, _terms(record), now=now)
        write_leases(
            connection, record.id, {name: (amounts[name], amounts[name]) for name in names}
        )
    return True


def find_object(connection: Connection, address: Address) -> ProviderObject | None:
    """Return the object at *address*."""
    query = select(provider_objects).where(
        provider_objects.c.deployment == address.deployment,
        provider_objects.c.kind == address.kind,
        provider_objects.c.provider_id == address.provider_id,
    )
    row = connection.execute(query).mappings().first()
    return ProviderObject(**row) if row else None


def charge_object(
    connection: Connection, object_id: str, *, cost: int, tokens: int, now: datetime
) -> bool:
    """Charge an object's cost and tokens to who made it, and end what was reserved for it; False when it is charged.

    What was charged for it when its reservation ended is taken into account.
    """
    cost = min(cost, MAX_NANO)
    charged = connection.execute(
        update(provider_objects)
        .where(provider_objects.c.id == object_id, provider_objects.c.charged_at.is_(None))
        .values(charged_at=now, cost=cost)
        .returning(provider_objects)
    )
    row = charged.mappings().first()
    if row is None:
        return False
    record = ProviderObject(**row)
    balances = lock_purses(connection, _terms(record), now=now)
    before = {
        lease.purse: lease.charged or 0
        for found in leases_of(connection, balances, now=now).values()
        for lease in found
        if lease.recorder == object_id
    }
    connection.execute(delete(leases).where(leases.c.recorder_id == object_id))
    connection.execute(delete(recorders).where(recorders.c.id == object_id))
    spend_more(
        connection,
        {name: (tokens if name.counts_tokens else cost) - before.get(name, 0) for name in balances},
    )
    return True


def charged_to(budgets: Mapping[PurseName, tuple[Terms | None, int]]) -> list[list[Any]]:
    """Return budgets, their terms and what is reserved of them as an object's row keeps them."""
    return [
        [*name, amount, *([] if terms is None else [terms.limit, terms.period, str(terms.anchor)])]
        for name, (terms, amount) in budgets.items()
    ]


def _reserved(record: ProviderObject) -> Mapping[PurseName, int]:
    return {PurseName(*entry[:3]): int(entry[3]) for entry in record.charged_to}


def _terms(record: ProviderObject) -> Mapping[PurseName, Terms | None]:
    terms: dict[PurseName, Terms | None] = {}
    for table, object_id, meter, _, *rest in record.charged_to:
        given = None
        if rest:
            limit, period, anchor = rest
            given = Terms(limit=limit, period=period, anchor=datetime.fromisoformat(anchor))
        terms[PurseName(table, object_id, meter)] = given
    return terms
