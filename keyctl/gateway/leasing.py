"""Read what other processes have reserved of locked budgets, and settle what ended processes left reserved."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from keyctl.db import queries
from keyctl.db.queries import Balance
from keyctl.gateway.accounts import Account
from keyctl.gateway.books import Books
from keyctl.purses import PurseName

log = logging.getLogger("keyctl.gateway")

# A lease is what a request asks for, and nothing more, unless so many requests of that size are
# left; then a share of what is left, so that the requests that follow ask nobody.
_FAR: Final = 1_000
_SHARE: Final = 100
# The process counts its own time: it stops using a lease that much before others take it for ended.
_MARGIN: Final = 0.9
# Of which so much is always left while requests come.
_FRESH: Final = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """How long reservations live without their process, and what becomes of them then."""

    lease: timedelta
    charges_unsettled: bool
    budget_rollover: bool

    @property
    def kept(self) -> float:
        """Return for how many seconds a process may use what it has leased."""
        return self.lease.total_seconds() * _MARGIN

    @property
    def fresh(self) -> float:
        """Return for how many seconds of that, at the least, a lease is not written anew with each request."""
        return self.kept * _FRESH


@dataclass(slots=True, kw_only=True)
class Stock:
    """A locked budget: what is spent and reserved of it by everybody but this process."""

    limit: int | None
    gone: int
    is_leased: bool = False  # this process has a row

    def left(self, account: Account) -> int | None:
        """Return what is left beyond what this process has used; None without a limit."""
        return None if self.limit is None else self.limit - self.gone - account.committed

    def spare(self, account: Account, used: int) -> int:
        """Return what to lease beyond what is *used*, for the requests that follow."""
        if self.limit is None or not account.asked:
            return 0
        left = self.limit - self.gone - used
        return left // _SHARE if left >= _FAR * account.asked else 0


def take_stock(
    connection: Connection,
    balances: Mapping[PurseName, Balance],
    *,
    names: Collection[PurseName],
    books: Books,
    terms: LeaseTerms,
    now: datetime,
) -> dict[PurseName, Stock]:
    """Return the stock of each of these locked budgets.

    What a process reserved whose time is over is charged now, or given back, and marked.  What was
    charged so for this process, which was taken for dead, is taken back: it settles it itself.
    """
    stocks = {
        name: Stock(limit=balances[name].limit, gone=balances[name].spend)
        for name in names
        if name in balances
    }
    found = queries.leases_of(connection, stocks, now=now)
    corrections: dict[PurseName, int] = {}
    for name, leases in found.items():
        stock = stocks[name]
        for lease in leases:
            change = 0
            if lease.recorder == books.id:
                stock.is_leased = True
                change = -(lease.charged or 0)
            elif lease.charged is None and lease.is_over:
                change = lease.held if terms.charges_unsettled else 0
                queries.mark_unsettled(connection, lease, charged=change, now=now)
                log.warning("a gateway ended without settling what it had reserved of %s", name)
            elif lease.charged is None:
                stock.gone += lease.amount
            corrections[name] = corrections.get(name, 0) + change
    queries.spend_more(connection, corrections)
    for name, change in corrections.items():
        stocks[name].gone = max(0, stocks[name].gone + change)
    return stocks


def write_leases(
    connection: Connection,
    amounts: Mapping[PurseName, tuple[int, int]],
    stocks: Mapping[PurseName, Stock],
    *,
    books: Books,
) -> None:
    """Set what this process has reserved of locked budgets: amounts, and what of each is in use."""
    there = {name for name, stock in stocks.items() if stock.is_leased}
    queries.write_leases(connection, books.id, amounts, there=there)
