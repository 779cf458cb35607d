"""Measure what the audit chain costs: the event of a change, verifying events, and holding rows against them.

python benchmarks/audit.py [ROWS] [sqlite|postgresql] [change|chain|state]…

A change with its event is compared with the same change whose event is left out; verifying with
hashing alone, which is the least that can find a changed event; `audit verify --state` with the same
chain alone, and with the least that could compare: the chain, and every row read once.  ROWS is how many
events `chain` verifies, and how many keys `state` has: each key is two rows, its own and its secret's.
Memory is that of a process which does nothing but `keyctl audit verify`.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch

from filler import another, filled, servers
from measure import KEYCTL, alternate, compare, run

from keyctl.config.settings import Settings
from keyctl.db import told
from keyctl.db.database import Database, utcnow
from keyctl.db.queries import audit
from keyctl.db.queries.audit import GENESIS, Event, Head
from keyctl.db.queries.events import Conditions
from keyctl.policy.facts import Caller
from keyctl.records import Team
from keyctl.services.audit import AuditService
from keyctl.services.directory import DirectoryService
from keyctl.services.workspace import Workspace

MANY, CHANGES, ROUNDS, BATCH = 20_000, 201, 3, 10_000
LIMIT = 100 * 1024  # KiB


def workspace(database: Database, folder: str) -> Workspace:
    """Return what services work with."""
    return Workspace(
        database=database,
        settings=Settings(bcrypt_cost=4),
        caller=Caller(actor="local:benchmark@host", role="proxy_admin"),
        runs_folder=Path(folder),
    )


def empty(url: str) -> Database:
    """Return a new database without a row."""
    database = Database(another(url))
    database.upgrade()
    return database


@contextmanager
def no_chain() -> Iterator[None]:
    """Leave the chain out: no event is hashed or written."""
    with patch.object(audit, "append", lambda *_, **__: [Head(1, GENESIS)]):
        yield


def changes(service: DirectoryService) -> Callable[[], object]:
    """Return what changes a team, to another budget each time."""
    amounts = iter(range(1, 10_000_000))
    return lambda: service.update(Team, "web", {"max_budget": next(amounts)})


def per_change(kind: str, url: str, _: int, folder: str) -> None:
    """Print what one small change costs with and without its event."""
    database = empty(url)
    service = DirectoryService(workspace(database, folder))
    service.create(Team, "web", {})
    change = changes(service)

    def without() -> None:
        with no_chain():
            change()

    medians = alternate({"without the chain": without, "with it": change}, rounds=CHANGES)
    compare(f"{kind}: a change of a team", medians, "without the chain", None)
    database.engine.dispose()


def fill(database: Database, count: int) -> None:
    """Write *count* events of a usual size."""
    row = {"max_budget": "50", "models": ["gpt-4", "claude-3"], "metadata": {"app": "web"}}
    made = 0
    while made < count:
        events = [
            Event(
                actor="local:benchmark@host",
                changed_by=None,
                action="key_updated",
                object_type="key",
                object_id=f"key_{made + number:020d}",
                before=row,
                after={**row, "max_budget": str(number)},
            )
            for number in range(min(BATCH, count - made))
        ]
        with database.write() as connection:
            audit.append(connection, events, at=utcnow() - timedelta(days=1))
        made += len(events)


def hash_all(database: Database) -> float:
    """Return the seconds that hashing alone takes, of events that are in memory already."""
    spent = 0.0
    with database.read(snapshot=True) as connection:
        rows: list[dict[str, object]] = []
        for row in audit.export(connection, Conditions()):
            rows.append(row)
            if len(rows) == BATCH:
                spent += hashing(rows)
                rows.clear()
    return spent + hashing(rows)


def hashing(rows: list[dict[str, object]]) -> float:
    """Return the seconds that hashing these events takes."""
    begun = time.perf_counter()
    for row in rows:
        audit.event_hash(row)
    return time.perf_counter() - begun


def chain(kind: str, url: str, count: int, folder: str) -> None:
    """Print events a second, as a multiple of hashing alone, and the memory it took."""
    database = empty(url)
    fill(database, count)
    own = database.address.url.render_as_string(hide_password=False)
    verify = run([KEYCTL, "audit", "verify"], Path(folder), KEYCTL_DATABASE_URL=own)
    taken, hashed = [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        verify()
        taken.append(time.perf_counter() - begun)
        hashed.append(hash_all(database))
    medians = {"hashing alone": median(hashed), "audit verify": median(taken)}
    compare(f"{kind}: audit verify of {count:,} events", medians, "hashing alone", None)
    kib = peak(["audit", "verify"], own, folder)
    print(f"  {kib // 1024} MiB of memory   target {LIMIT // 1024} or less")
    database.engine.dispose()


def peak(arguments: list[str], url: str, folder: str) -> int:
    """Return the most memory that a command took, in KiB."""
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    told_of = subprocess.run(
        [sys.executable, "-c", program, KEYCTL, *arguments],
        env={"KEYCTL_DATABASE_URL": url, "HOME": folder, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=3600,
    ).stdout
    return int(told_of.strip().splitlines()[-1])


def state(kind: str, url: str, count: int, folder: str) -> None:
    """Print what it costs to hold the rows of so many keys against the chain that tells of each."""
    database, _ = filled(another(url), count)
    service = AuditService(workspace(database, folder))
    service.record_upgraded()

    def verify(*, state: bool) -> None:
        assert service.verify(state=state, step=lambda: None).seq == 2 * count

    def chain_and_rows() -> None:
        verify(state=False)
        with database.read(snapshot=True) as connection:
            assert sum(1 for _ in told.stored(connection)) == 2 * count

    base = "the chain alone"
    subjects = {
        base: lambda: verify(state=False),
        "the chain, and every row read": chain_and_rows,
        "audit verify --state": lambda: verify(state=True),
    }
    medians = alternate(subjects, rounds=ROUNDS)
    compare(f"{kind}: {2 * count:,} rows of {count:,} keys", medians, base, None)
    own = database.address.url.render_as_string(hide_password=False)
    kib = peak(["audit", "verify", "--state"], own, folder)
    print(f"  {kib // 1024} MiB of memory   target {LIMIT // 1024} or less")
    database.engine.dispose()


PARTS = {"change": per_change, "chain": chain, "state": state}


def main() -> None:
    """Print the figures for the databases and the parts that were named, or for all."""
    count = int(sys.argv[1]) if sys.argv[1:] else MANY
    with TemporaryDirectory() as folder, servers() as urls:
        for kind in [name for name in sys.argv[2:] if name in urls] or urls:
            for part in [name for name in sys.argv[2:] if name in PARTS] or PARTS:
                PARTS[part](kind, urls[kind], count, folder)
                sys.stdout.flush()


if __name__ == "__main__":
    main()
