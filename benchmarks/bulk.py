"""How near `generate --count` comes to what the cores can hash.

The floor is bcrypt alone, on as many threads as there are cores; keyctl also mints, judges, writes,
delivers, confirms and reads back each key.  Rates are taken between a small and a large count, so
that starting up is left out.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import bcrypt
from measure import KEYCTL, run

ROUNDS = 3
COUNTS = {6: (1000, 6000), 8: (250, 1500), 10: (60, 360)}


def seconds(subject: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    subject()
    return time.perf_counter() - begun


def hash_only(cost: int, count: int) -> None:
    """Hash *count* digests on all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(lambda _: bcrypt.hashpw(b"a" * 64, bcrypt.gensalt(cost)), range(count)):
            pass


def main() -> None:
    """Print the share of the cores' bcrypt rate that keyctl reaches, for each cost."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for cost, (few, many) in COUNTS.items():
            config = home / f"{cost}.toml"
            config.write_text(f"bcrypt_cost = {cost}\n")
            config.chmod(0o600)
            own = {
                "KEYCTL_CONFIG": str(config),
                "KEYCTL_DATABASE_URL": f"sqlite:///{home}/keyctl.db",
            }

            def keys(count: int, own: dict[str, str] = own) -> Callable[[], object]:
                return run([KEYCTL, "generate", "--count", str(count), "-o", "jsonl"], home, **own)

            keys(1)()
            shares, rates = [], []
            for _ in range(ROUNDS):
                floor = seconds(partial(hash_only, cost, many - few))
                ours = seconds(keys(many)) - seconds(keys(few))
                shares.append(floor / ours)
                rates.append((many - few) / ours)
            print(
                f"bcrypt cost {cost:2}   {statistics.median(rates):7.1f} keys/s"
                f"   {statistics.median(shares):6.1%} of the cores' bcrypt rate   target 95 % or more"
            )


if __name__ == "__main__":
    main()
