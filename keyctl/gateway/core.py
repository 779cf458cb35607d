"""Answer from the cache, or say what must be waited for; both verifiers do it here."""

import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from cachetools import LRUCache

from keyctl import keystring
from keyctl.db.database import Database
from keyctl.errors import UnavailableError
from keyctl.gateway.cached_key import Entry
from keyctl.gateway.checks import Checks, Matcher
from keyctl.gateway.clock import Clock, ticks
from keyctl.gateway.leasing import LeaseTerms
from keyctl.gateway.ledger import Ledger
from keyctl.gateway.loader import Loader
from keyctl.gateway.process import register, unregister
from keyctl.gateway.source import AwayError, Source
from keyctl.gateway.verdict import Verdict

_UNKNOWN_AT_ONCE: Final = 10_000

# What a flight lands with; None: no key has this string.
Landed = Entry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much is remembered; lengths in seconds."""

    cache_ttl: float
    cache_size: int
    negative_ttl: float
    negative_size: int
    outage_grace: float
    bcrypt_workers: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for a flight, and what is known of its key meanwhile."""

    flight: Future[Landed]
    known: Entry | None
    model: str | None
    route: str | None


class Core:
    """Caches what keys are known, by the SHA-256 of the presented string; the string is never kept.

    Whatever has to be read or hashed for a string is a *flight*: one at a time, for all who wait.
    """

    def __init__(
        self,
        database: Database,
        limits: Limits,
        terms: LeaseTerms,
        *,
        kind: type[Verdict],
        flush_interval: float,
        timeout: float,
        matches: Matcher,
    ) -> None:
        self._database = database
        self._limits = limits
        self._matches = matches
        self._malformed = kind(valid=False, reason="malformed")
        self._unknown = kind(valid=False, reason="unknown")
        self.ledger = Ledger(database, Clock(), terms, interval=flush_interval, timeout=timeout)
        self._source = Source(database, self.ledger, kind)
        self._begin()
        register(self)

    def ask(self, text: str, model: str | None, route: str | None) -> Verdict | Waiting:
        """Return the verdict on *text* if it can be given at once, else what to wait for.

        Raises:
            UnavailableError: There is nothing to wait for either.
        """
        if len(text) > keystring.SUPPLIED_MAX or not text.isascii():
            return self._malformed
        digest = hashlib.sha256(text.encode("ascii")).digest()
        with self._lock:
            entry = self._known.get(digest)
        if entry is None:
            return self._ask_about_stranger(text, digest, model, route)
        age = entry.age()
        if age < self._limits.cache_ttl:
            # Refreshed ahead of its time, so that nobody waits for a key that is in use.
            if age > self._limits.cache_ttl / 2 and not entry.is_refreshing:
                self._refresh_ahead(digest, entry)
            return entry.judge(model, route)
        if self._source.is_away:
            return self._judge_in_outage(entry, model, route)
        flight = self._flight(digest, entry.found.secret.lookup, entry)
        return Waiting(flight, entry, model, route)

    def conclude(self, waiting: Waiting) -> Verdict:
        """Return the verdict that the request's flight allows.

        Raises:
            UnavailableError: The flight came to nothing, or has not landed in time.
        """
        if not waiting.flight.done():
            raise UnavailableError("the key could not be verified in time", hint="try again")
        try:
            landed = waiting.flight.result()
        except UnavailableError as error:
            if isinstance(error, AwayError) and waiting.known is not None:
                return self._judge_in_outage(waiting.known, waiting.model, waiting.route)
            # Each who waited raises one of its own: tracebacks would pile up on a shared one.
            raise UnavailableError(error.message, hint=error.hint) from error
        return self._unknown if landed is None else landed.judge(waiting.model, waiting.route)

    def close(self) -> None:
        """Write what is recorded, and stop all threads.

        Raises:
            UnavailableError: The database cannot take what is recorded.
        """
        self._source.close()
        for loader in (self._strangers, self._refreshes):
            loader.close()
        self._checks.close()
        try:
            self.ledger.close()
        finally:
            self._database.engine.dispose()
        unregister(self)

    def begin_in_child(self) -> None:
        """Begin anew in a child process: connections, threads and what is recorded are the parent's."""
        self._database.leave_connections()
        self.ledger.begin()
        self._source.begin()
        self._begin()

    def _begin(self) -> None:
        limits = self._limits
        self._lock = threading.Lock()
        self._known: LRUCache[bytes, Entry] = LRUCache(limits.cache_size)
        self._negative: LRUCache[bytes, float] = LRUCache(limits.negative_size)
        self._flights: dict[bytes, Future[Landed]] = {}
        # Apart, so that strangers, however many, never delay a key that is in use.
        self._strangers = Loader(self._source.load, name="keyctl-strangers", room=_UNKNOWN_AT_ONCE)
        self._refreshes = Loader(self._source.load, name="keyctl-refreshes", room=limits.cache_size)
        self._checks = Checks(self._matches, workers=limits.bcrypt_workers)

    def _ask_about_stranger(
        self, text: str, digest: bytes, model: str | None, route: str | None
    ) -> Verdict | Waiting:
        with self._lock:
            until = self._negative.get(digest)
        if until is not None and ticks() < until:
            return self._unknown
        key = keystring.parse(text)
        if key is None:
            return self._malformed
        if self._source.is_away:
            raise UnavailableError("the database is away, and this key is not known yet")
        flight = self._flight(digest, key.lookup, None)
        return Waiting(flight, None, model, route)

    def _judge_in_outage(self, entry: Entry, model: str | None, route: str | None) -> Verdict:
        if entry.age() < self._limits.outage_grace:
            return entry.judge(model, route)
        raise UnavailableError("the database is away for longer than the grace for outages")

    def _refresh_ahead(self, digest: bytes, entry: Entry) -> None:
        if not self._source.is_away:
            entry.is_refreshing = True
            self._flight(digest, entry.found.secret.lookup, entry)

    def _flight(self, digest: bytes, lookup: str, known: Entry | None) -> Future[Landed]:
        """Return the flight for a string: the one that there is, or a new one that begins with a read."""
        with self._lock:
            if (flight := self._flights.get(digest)) is not None:
                return flight
            flight = self._flights[digest] = Future()
        self._load(digest, flight, lookup, known)
        return flight

    def _load(
        self, digest: bytes, flight: Future[Landed], lookup: str, known: Entry | None
    ) -> None:
        loader = self._strangers if known is None else self._refreshes
        try:
            loading = loader.ask(lookup)
        except UnavailableError as refused:
            self._fail(digest, flight, known, refused)
        else:
            loading.add_done_callback(partial(self._read, digest, flight, known))

    def _read(
        self,
        digest: bytes,
        flight: Future[Landed],
        known: Entry | None,
        loading: Future[Entry | None],
    ) -> None:
        """Go on with a flight whose key was read: bcrypt, unless its hash is one that matched before."""
        error = loading.exception()
        if error is not None:
            self._fail(digest, flight, known, error)
            return
        entry = loading.result()
        if entry is None or (
            known is not None and known.found.secret.hash == entry.found.secret.hash
        ):
            self._land(digest, flight, entry)
            return
        secret = entry.found.secret
        try:
            check = self._checks.submit(secret.lookup, digest.hex(), hashed=secret.hash)
        except UnavailableError as refused:
            self._fail(digest, flight, known, refused)
        else:
            check.add_done_callback(partial(self._checked, digest, flight, entry))

    def _checked(
        self, digest: bytes, flight: Future[Landed], entry: Entry, check: Future[bool]
    ) -> None:
        error = None if check.cancelled() else check.exception()
        if check.cancelled() or error is not None:
            self._fail(digest, flight, None, error or UnavailableError("the verifier is closed"))
        elif not check.result():
            self._land(digest, flight, None)
        elif entry.age() < self._limits.cache_ttl / 2:
            self._land(digest, flight, entry)
        else:
            # It waited for its bcrypt so long that it may have been revoked meanwhile.
            self._load(digest, flight, entry.found.secret.lookup, entry)

    def _land(self, digest: bytes, flight: Future[Landed], entry: Entry | None) -> None:
        with self._lock:
            del self._flights[digest]
            if entry is None:
                self._known.pop(digest, None)
                self._negative[digest] = ticks() + self._limits.negative_ttl
            else:
                self._known[digest] = entry
        flight.set_result(entry)

    def _fail(
        self, digest: bytes, flight: Future[Landed], known: Entry | None, error: BaseException
    ) -> None:
        with self._lock:
            del self._flights[digest]
        if known is not None:
            known.is_refreshing = False
        flight.set_exception(error)
