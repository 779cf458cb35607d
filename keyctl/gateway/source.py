"""Read keys from the database, and know whether it is away."""

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from keyctl import purses
from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.db.schema import VERIFIABLE
from keyctl.errors import (
    BusyError,
    DatabaseError,
    DatabaseLostError,
    UnavailableError,
    UnreadableRowError,
)
from keyctl.gateway.books import Charged
from keyctl.gateway.cached_key import Entry
from keyctl.gateway.clock import ticks
from keyctl.gateway.ledger import Ledger, Tab
from keyctl.gateway.rates import rates_of
from keyctl.gateway.verdict import Verdict
from keyctl.policy import models
from keyctl.purses import PurseName

log = logging.getLogger("keyctl.gateway")

_PROBE_EVERY: Final = 1.0


class AwayError(UnavailableError):
    """The database is away, so that nothing is known to have changed."""


class Source:
    """Where entries come from.  While the database is away one thread asks for it, and nobody else waits."""

    def __init__(self, database: Database, ledger: Ledger, kind: type[Verdict]) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = ledger.books.clock
        self._kind = kind
        self.begin()

    def begin(self) -> None:
        """Begin in a new process, which finds out for itself."""
        self.is_away = False
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def load(self, lookups: Sequence[str]) -> Mapping[str, Entry | UnavailableError]:
        """Return what the database holds for these lookups, of those that it knows.

        Instead of what cannot be read, why not: neither is that key unknown, nor do others suffer.

        Raises:
            AwayError: It does not answer.
        """
        if self.is_away:
            raise AwayError("the database is away", hint="it is asked for once a second")
        try:
            with suppress(DatabaseLostError):
                return self._read_consistently(lookups)
            # A server that was restarted has cut the connections in the pool: try a new one.
            return self._read_consistently(lookups)
        except (DatabaseError, BusyError) as error:
            raise self._leave(error) from error

    def close(self) -> None:
        """Stop asking for a database that is away."""
        self._closed.set()

    def _read_consistently(self, lookups: Sequence[str]) -> Mapping[str, Entry | UnavailableError]:
        entries = None
        while entries is None:
            entries = self._read(lookups)
        return entries

    def _read(self, lookups: Sequence[str]) -> Mapping[str, Entry | UnavailableError] | None:
        """Return entries, or None when usage was written meanwhile that they may or may not include."""
        loaded_at = ticks()
        asked = self._ledger.books.position()
        with self._database.read(oldest=VERIFIABLE) as connection:
            asked_at = ticks()
            now, is_standby = self._database.now_and_role(connection)
            self._clock.set(now, asked_at=asked_at)
            found, batch = queries.find_all_presented(connection, lookups, recorder=asked[0])
            if groups := queries.find_groups(connection):
                found = {
                    lookup: item
                    if isinstance(item, UnreadableRowError)
                    else models.with_groups(item, groups)
                    for lookup, item in found.items()
                }
            metered = {
                budget.name
                for presented in found.values()
                if not isinstance(presented, UnreadableRowError)
                for budget in purses.budgets(presented)
                if budget.name.meter
            }
            meters, metered_batch = queries.find_meters(connection, metered, recorder=asked[0])
        entries: dict[str, Entry | UnavailableError] = {}
        for lookup, presented in found.items():
            if isinstance(presented, UnreadableRowError):
                log.error("%s", presented.message)
                entries[lookup] = UnavailableError(presented.message, hint=presented.hint)
                continue
            budgets = purses.budgets(presented, meters)
            kept = self._ledger.books.purses(
                budgets, asked=asked, batch=batch, metered_batch=metered_batch
            )
            if kept is None:
                return None
            charged = [
                *(
                    Charged(PurseName(table, owner.id))
                    for table, owner in purses.charged(presented)
                ),
                *(Charged(budget.name, budget.terms) for budget in budgets if budget.name.meter),
            ]
            if is_standby and kept:
                entries[lookup] = UnavailableError(
                    "the database is a standby, where a key with a budget cannot be charged",
                    hint="let the gateway use the primary",
                )
                continue
            entries[lookup] = Entry(
                presented,
                loaded_at=loaded_at,
                clock=self._clock,
                tab=Tab(self._ledger, tuple(charged), kept, rates_of(presented)),
                kind=self._kind,
            )
        return entries

    def _leave(self, error: DatabaseError | BusyError) -> AwayError:
        """Note that the database is away, and ask for it until it is back."""
        with self._lock:
            if not self.is_away:
                self.is_away = True
                log.warning("the database is away: %s", error.message)
                threading.Thread(
                    target=self._await_return,
                    args=(self._closed,),
                    name="keyctl-probe",
                    daemon=True,
                ).start()
        return AwayError(f"the database is away: {error.message}", hint=error.hint)

    def _await_return(self, closed: threading.Event) -> None:
        while not closed.wait(_PROBE_EVERY):
            try:
                with self._database.read(oldest=VERIFIABLE):
                    pass
            except (DatabaseError, BusyError):
                continue
            except Exception:
                log.exception("the database cannot be asked for")
                continue
            self.is_away = False
            log.warning("the database is back")
            return
