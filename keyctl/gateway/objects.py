"""Keep who made what a provider knows under an id, and charge it to them once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar
from uuid import uuid4

from sqlalchemy import Connection

from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.db.queries import Address
from keyctl.db.schema import KEEPABLE
from keyctl.errors import BusyError, DatabaseError, DatabaseLostError, UnavailableError
from keyctl.gateway.accounts import Amount
from keyctl.purses import PurseName, Terms
from keyctl.records import ProviderObject

# What is not settled by then is charged as it was reserved.
SETTLED_WITHIN: Final[Mapping[str, timedelta]] = {
    "batch": timedelta(hours=48),
    "response": timedelta(hours=24),
    "file": timedelta(0),
}
NOTHING: Final = Amount(0)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Objects:
    """The batches, background answers and files of one database.  Each method is one transaction, and blocks.

    All of them raise UnavailableError when the database is away.
    """

    database: Database

    def keep(
        self,
        address: Address,
        *,
        key_id: str,
        budgets: Mapping[PurseName, Terms | None],
        reserved: Amount = NOTHING,
        cost: int | None = None,
    ) -> str | None:
        """Write who made the object, and hold what is *reserved* of these budgets until it is charged.

        Returns its id; None when the object is there already, and somebody else's.
        """
        object_id = uuid4().hex

        def write(connection: Connection) -> str | None:
            now = self.database.began_at(connection)
            record = ProviderObject(
                id=object_id,
                deployment=address.deployment,
                kind=address.kind,
                provider_id=address.provider_id,
                key_id=key_id,
                charged_to=queries.charged_to(
                    {name: (terms, reserved.of(name)) for name, terms in budgets.items()}
                ),
                reserved=reserved.nano,
                cost=cost,
                created_at=now,
                charged_at=None,
            )
            until = now + SETTLED_WITHIN[address.kind]
            if queries.keep_object(connection, record, until=until, now=now):
                return object_id
            there = queries.find_object(connection, address)
            return there.id if there is not None and there.key_id == key_id else None

        return self._written(write)

    def find(self, addresses: Sequence[Address]) -> dict[Address, ProviderObject]:
        """Return those of these objects that somebody made."""
        try:
            with self.database.read(oldest=KEEPABLE) as connection:
                found = {address: queries.find_object(connection, address) for address in addresses}
        except (DatabaseError, BusyError) as error:
            raise _unavailable(error) from error
        return {address: record for address, record in found.items() if record is not None}

    def charge(self, object_id: str, cost: Amount) -> bool:
        """Charge what the object has cost; False when it is charged already."""

        def write(connection: Connection) -> bool:
            now = self.database.began_at(connection)
            return queries.charge_object(
                connection, object_id, cost=cost.nano, tokens=cost.tokens, now=now
            )

        return self._written(write)

    def _written(self, write: Callable[[Connection], Answer]) -> Answer:
        """Write in one transaction; once more when the connection was lost: each write is safe to repeat."""
        try:
            try:
                with self.database.recording(oldest=KEEPABLE) as connection:
                    return write(connection)
            except DatabaseLostError:
                with self.database.recording(oldest=KEEPABLE) as connection:
                    return write(connection)
        except (DatabaseError, BusyError) as error:
            raise _unavailable(error) from error


def _unavailable(error: DatabaseError | BusyError) -> UnavailableError:
    return UnavailableError(f"the database is away: {error.message}", hint=error.hint)
