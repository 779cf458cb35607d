"""What verifying inside a gateway costs: a cached key, a new one, and a stampede of new ones.

A cached verification is held against what any cache needs, a dict lookup and a SHA-256; a new key
against bcrypt alone, at cost 10; a stampede of requests for new keys against as many bcrypts as
there are keys, on as many threads.
"""

import asyncio
import hashlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filler import another, filled, servers
from measure import alternate, compare

from keyctl import hashing, keystring
from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.gateway import AsyncVerifier, Verifier
from keyctl.keystring import KeyString

KEYS, COST, ROUNDS, CALLS = 1_000, 10, 15, 20_000
STAMPEDE_KEYS, STAMPEDE_REQUESTS, WORKERS = 100, 1_000, 1


def cached(kind: str, url: str, key: str) -> None:
    """Print how many verifications of cached keys one core makes."""
    known = {hashlib.sha256(key.encode()).digest(): object()}
    with Verifier(url) as verifier:
        assert verifier.verify(key).valid

        def lookups() -> None:
            for _ in range(CALLS):
                assert known[hashlib.sha256(key.encode()).digest()]

        def verifications() -> None:
            for _ in range(CALLS):
                assert verifier.verify(key).valid

        medians = alternate({"dict": lookups, "verify": verifications}, rounds=ROUNDS)
    print(
        f"{kind}: {CALLS / medians['verify']:,.0f} cached verifications a second on one core,"
        f" {medians['verify'] / medians['dict']:.2f} times a dict lookup with SHA-256"
        "   target 100,000 or more"
    )


def uncached(kind: str, url: str, key: KeyString, hashed: str) -> None:
    """Print what a key costs that was never seen, beside its bcrypt."""
    with Verifier(url) as verifier:

        def verify() -> None:
            verifier._core._known.clear()  # noqa: SLF001  # as if it were never seen
            assert verifier.verify(key.reveal()).valid

        medians = alternate(
            {
                "bcrypt alone": lambda: hashing.matches(key, hashed=hashed),
                "verify a new key": verify,
            },
            rounds=ROUNDS * 2 + 1,
        )
    compare(f"{kind}: a key that is not cached", medians, "bcrypt alone", 1.15)


def stampede(kind: str, url: str, keys: Sequence[KeyString], hashed: Sequence[str]) -> None:
    """Print the 99th percentile of many requests at once for few new keys."""

    async def requests() -> list[float]:
        async with AsyncVerifier(url, bcrypt_workers=WORKERS, timeout=300.0) as verifier:

            async def one(key: KeyString) -> float:
                begun = time.perf_counter()
                assert (await verifier.verify(key.reveal())).valid
                return time.perf_counter() - begun

            wanted = [keys[number % len(keys)] for number in range(STAMPEDE_REQUESTS)]
            return list(await asyncio.gather(*(one(key) for key in wanted)))

    floors, lasts = [], []
    for _ in range(3):
        begun = time.perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            assert all(
                pool.map(
                    lambda pair: hashing.matches(pair[0], hashed=pair[1]),
                    zip(keys, hashed, strict=True),
                )
            )
        floors.append(time.perf_counter() - begun)
        lasts.append(statistics.quantiles(asyncio.run(requests()), n=100)[98])
    floor, last = statistics.median(floors), statistics.median(lasts)
    print(
        f"{kind}: {STAMPEDE_REQUESTS} requests at once for {len(keys)} new keys: p99 {last:.2f} s,"
        f" {last / floor:.2f} times the {len(keys)} bcrypts alone on {WORKERS} thread ({floor:.2f} s)"
    )


def rehashed(database: Database, count: int) -> tuple[list[KeyString], list[str]]:
    """Give the first *count* keys strings that are known here, and return them with their hashes."""
    keys = [keystring.mint() for _ in range(count)]
    hashed = [hashing.hash_key(key, cost=COST) for key in keys]
    with database.write() as connection:
        for number, (key, hash_) in enumerate(zip(keys, hashed, strict=True)):
            queries.update_secret(connection, f"{number:012d}", lookup=key.lookup, hash=hash_)
    return keys, hashed


def main() -> None:
    """Print all figures for both kinds of database."""
    with tempfile.TemporaryDirectory() as name, servers() as urls:
        for kind, server in urls.items():
            url = another(server) if kind == "postgresql" else f"sqlite:///{Path(name)}/keyctl.db"
            database, _ = filled(url, KEYS)
            keys, hashed = rehashed(database, STAMPEDE_KEYS)
            database.engine.dispose()
            cached(kind, url, keys[0].reveal())
            uncached(kind, url, keys[0], hashed[0])
            stampede(kind, url, keys, hashed)


if __name__ == "__main__":
    main()
