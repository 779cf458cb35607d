"""Verify keys, for threads and for an event loop."""

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from math import isfinite
from types import TracebackType
from typing import ClassVar, Final, Literal, Self, cast

from keyctl import hashing
from keyctl.db.database import Database
from keyctl.gateway.books import Charged, amount_of
from keyctl.gateway.checks import Matcher
from keyctl.gateway.core import Core, Limits, Waiting
from keyctl.gateway.leasing import LeaseTerms
from keyctl.gateway.objects import Objects
from keyctl.gateway.verdict import AsyncVerdict, Verdict
from keyctl.gateway.waiting import until_done
from keyctl.purses import PurseName

_MAX_SECONDS: Final = 86_400.0
_MIN_SECONDS: Final = {"outage_grace": 0.0}
_MAX_COUNT: Final = 10_000_000
UNSETTLED: Final = ("charge", "release")


class _Gateway:
    """One database's keys: what both verifiers are made of."""

    _kind: ClassVar[type[Verdict]] = Verdict

    def __init__(
        self,
        database_url: str,
        *,
        cache_ttl: float = 5.0,
        cache_size: int = 20_000,
        negative_ttl: float = 5.0,
        negative_size: int = 20_000,
        outage_grace: float = 300.0,
        flush_interval: float = 1.0,
        bcrypt_workers: int | None = None,
        timeout: float = 10.0,
        database_timeout: float = 3.0,
        lease: float = 60.0,
        unsettled: Literal["charge", "release"] = "charge",
        budget_rollover: bool = False,
        matches: Matcher = hashing.digest_matches,
    ) -> None:
        """Prepare to verify; nothing is opened before the first key.  All lengths are seconds.

        - *cache_ttl*: after that long a revocation is seen at the latest
        - *cache_size*: how many keys are remembered, at about 8 KB each
        - *negative_ttl*, *negative_size*: the same for strings that are no key
        - *outage_grace*: how long a key goes on working after the database last confirmed it, if
          the database is away; it still expires, and what it spends still counts.  0: not at all
        - *flush_interval*: how often recorded usage is written
        - *bcrypt_workers*: how many keys are hashed at once; by default one core is left over
        - *timeout*: how long a request waits at most
        - *database_timeout*: how long a silent database is waited for
        - *lease*: how long what is reserved outlives a process that was killed
        - *unsettled*: what becomes of it then: it is charged as it was reserved, or given back
        - *budget_rollover*: whether a new period begins with what was overspent in the last one
        - *matches*: how a digest is held against a stored hash

        Raises:
            ValueError: A length or size is out of range.
            UsageError: *database_url* is no URL of a database that keyctl can use.
        """
        self._timeout = seconds("timeout", timeout)
        limits = Limits(
            cache_ttl=seconds("cache_ttl", cache_ttl),
            cache_size=_count("cache_size", cache_size),
            negative_ttl=seconds("negative_ttl", negative_ttl),
            negative_size=_count("negative_size", negative_size),
            outage_grace=seconds("outage_grace", outage_grace),
            bcrypt_workers=_workers(bcrypt_workers),
        )
        terms = LeaseTerms(
            lease=timedelta(seconds=seconds("lease", lease)),
            charges_unsettled=_charges(unsettled),
            budget_rollover=budget_rollover,
        )
        interval = seconds("flush_interval", flush_interval)
        patience = timedelta(seconds=seconds("database_timeout", database_timeout))
        database = Database(database_url, patience=patience)
        self.objects = Objects(database)
        self._core = Core(
            database,
            limits,
            terms,
            kind=self._kind,
            flush_interval=interval,
            timeout=self._timeout,
            matches=matches,
        )

    def record(
        self,
        cost: Decimal | float,
        *,
        key_id: str,
        team_id: str | None = None,
        user_id: str | None = None,
        organization_id: str | None = None,
    ) -> None:
        """Charge a key and its owners, as `Verdict.record`, for who has only kept their names.

        Raises:
            ValueError: It is no amount of money.
            UnavailableError: The verifier is closed.
        """
        named = {
            "keys": key_id,
            "teams": team_id,
            "users": user_id,
            "organizations": organization_id,
        }
        charged = [Charged(PurseName(table, name)) for table, name in named.items() if name]
        self._core.ledger.charge(charged, amount_of(cost, 0))

    @property
    def is_written(self) -> bool:
        """Whether the database has all that was recorded: nothing is lost if the process ends now."""
        return self._core.ledger.books.is_written()


class Verifier(_Gateway):
    """Verifies presented keys from any number of threads; made once, and shared by them."""

    def verify(self, key: str, *, model: str | None = None, route: str | None = None) -> Verdict:
        """Return the verdict on a presented *key*, for a request to *route* for *model* if given.

        The route is the decoded path of the request.

        Raises:
            UnavailableError: It cannot be verified now: answer 503.
        """
        answer = self._core.ask(key, model, route)
        if isinstance(answer, Waiting):
            with suppress(TimeoutError):
                answer.flight.exception(self._timeout)
            answer = self._core.conclude(answer)
        return answer

    def flush(self) -> None:
        """Write what is recorded now, without waiting for the interval.

        Raises:
            UnavailableError: The database cannot take it; it is kept.
        """
        self._core.ledger.recorder.flush()

    def close(self) -> None:
        """Write what is recorded, and stop.

        Raises:
            UnavailableError: The database cannot take it; closing again tries again.
        """
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncVerifier(_Gateway):
    """Verifies presented keys on an event loop.  It is bound to no loop, so one serves several."""

    _kind = AsyncVerdict

    async def verify(
        self, key: str, *, model: str | None = None, route: str | None = None
    ) -> AsyncVerdict:
        """Return the verdict on a presented *key*, for a request to *route* for *model* if given.

        The route is the decoded path of the request.  Nothing blocks the loop; who is cancelled
        while it waits cancels nobody else.

        Raises:
            UnavailableError: It cannot be verified now: answer 503.
        """
        answer = self._core.ask(key, model, route)
        if isinstance(answer, Waiting):
            await until_done(answer.flight, self._timeout)
            answer = self._core.conclude(answer)
        return cast("AsyncVerdict", answer)

    async def flush(self) -> None:
        """Write what is recorded now, without waiting for the interval.

        Raises:
            UnavailableError: The database cannot take it; it is kept.
        """
        await asyncio.to_thread(self._core.ledger.recorder.flush)

    async def close(self) -> None:
        """Write what is recorded, and stop.

        Raises:
            UnavailableError: The database cannot take it; closing again tries again.
        """
        await asyncio.to_thread(self._core.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def seconds(name: str, value: float) -> float:
    """Return the length that an option of this name is given.

    Raises:
        ValueError: It is out of range.
    """
    if not isfinite(value) or not _least(name) <= value <= _MAX_SECONDS:
        raise ValueError(f"{name} must be {accepted_seconds(name)}, not {value}")
    return float(value)


def accepted_seconds(name: str) -> str:
    """Return in words how long the option of this name may be."""
    return f"{_least(name):g} to {_MAX_SECONDS:g} seconds"


def _least(name: str) -> float:
    return _MIN_SECONDS.get(name, 0.001)


def _workers(given: int | None) -> int:
    """Return how many keys are hashed at once; where nobody says, one core is left over."""
    return max(1, (os.cpu_count() or 1) - 1) if given is None else _count("bcrypt_workers", given)


def _charges(unsettled: str) -> bool:
    if unsettled not in UNSETTLED:
        raise ValueError(f'unsettled must be "charge" or "release", not {unsettled!r}')
    return unsettled == "charge"


def _count(name: str, value: int) -> int:
    if not 1 <= value <= _MAX_COUNT:
        raise ValueError(f"{name} must be 1 to {_MAX_COUNT}, not {value}")
    return value
