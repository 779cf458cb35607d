"""Mint and hash key strings ahead on all cores, while what is hashed already is written."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from keyctl import hashing
from keyctl.keystring import KeyString
from keyctl.services.workspace import Workspace

_LARGEST_BATCH: Final = 1000
_SMALLEST_BATCH: Final = 50
_CHEAP: Final = 6  # the bcrypt cost up to which a batch is as large as it gets
_CHUNK: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A new key string and its hash."""

    key: KeyString
    hash: str


def batch_size(workspace: Workspace) -> int:
    """Return how many keys make a second's work or two: what a crash wastes at most."""
    cost = workspace.settings.bcrypt_cost
    return max(_SMALLEST_BATCH, _LARGEST_BATCH >> max(0, cost - _CHEAP))


def minted(workspace: Workspace, count: int, batch: int) -> Iterator[Sequence[Minted]]:
    """Yield *count* hashed key strings in batches; all cores go on hashing while one is written."""
    cost = workspace.settings.bcrypt_cost

    def mint(many: int) -> list[Minted]:
        keys = [workspace.mint() for _ in range(many)]
        # bcrypt releases the GIL, so threads are enough for all cores.
        return [Minted(key=key, hash=hashing.hash_key(key, cost=cost)) for key in keys]

    # A future for each key would cost more than it takes to write one.
    chunk = min(_CHUNK, batch)
    chunks = (min(chunk, count - first) for first in range(0, count, chunk))
    wanted = -(-batch // chunk)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        ahead: list[Future[list[Minted]]] = []
        try:
            while True:
                missing = 2 * wanted - len(ahead)
                ahead += [pool.submit(mint, part) for part in islice(chunks, missing)]
                if not ahead:
                    return
                yield [item for future in ahead[:wanted] for item in future.result()]
                ahead = ahead[wanted:]
        finally:
            pool.shutdown(cancel_futures=True)
