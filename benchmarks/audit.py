"""What the audit chain costs: per change, and to verify a million events.

A change with its event is compared with the same change whose event is left out; verifying with
hashing alone, which is the least that can find a changed event.  Memory is that of a process which does
nothing but `keyctl audit verify`.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from filler import another, servers
from measure import KEYCTL, alternate, compare, run

from keyctl.config.settings import Settings
from keyctl.db.database import Database, utcnow
from keyctl.db.queries import audit
from keyctl.db.queries.audit import GENESIS, Event, Head
from keyctl.policy.facts import Caller
from keyctl.records import Team
from keyctl.requests import GenerateRequest
from keyctl.services.audit import AuditService
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate_many import BulkService
from keyctl.services.issue.order import Order
from keyctl.services.workspace import Workspace

MANY, ROUNDS, BATCH = 1_000_000, 201, 10_000
LIMIT = 100 * 1024  # KiB


def workspace(url: str, folder: str) -> Workspace:
    """Return what services work with, on a new database."""
    database = Database(url)
    database.upgrade()
    return Workspace(
        database=database,
        settings=Settings(bcrypt_cost=4),
        caller=Caller(actor="local:benchmark@host", role="proxy_admin"),
        runs_folder=Path(folder),
    )


@contextmanager
def no_chain() -> Iterator[None]:
    """Leave the chain out: no event is hashed or written."""
    with patch.object(audit, "append", lambda *_, **__: [Head(1, GENESIS)]):
        yield


def changes(service: DirectoryService) -> Callable[[], object]:
    """Return what changes a team, to another budget each time."""
    amounts = iter(range(1, 10_000_000))
    return lambda: service.update(Team, "web", {"max_budget": next(amounts)})


def per_change(kind: str, url: str, folder: str) -> None:
    """Print what one small change costs with and without its event."""
    service = DirectoryService(workspace(another(url), folder))
    service.create(Team, "web", {})
    change = changes(service)

    def without() -> None:
        with no_chain():
            change()

    medians = alternate({"without the chain": without, "with it": change}, rounds=ROUNDS)
    compare(f"{kind}: a change of a team", medians, "without the chain", None)


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
        for row in audit.export(connection, audit.Conditions()):
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


def verifying(kind: str, url: str, count: int, folder: str) -> None:
    """Print events a second, as a multiple of hashing alone, and the memory it took."""
    database = workspace(another(url), folder).database
    fill(database, count)
    own = database.address.url.render_as_string(hide_password=False)
    verify = run([KEYCTL, "audit", "verify"], Path(folder), KEYCTL_DATABASE_URL=own)
    shares, rates = [], []
    for _ in range(3):
        begun = time.perf_counter()
        verify()
        spent = time.perf_counter() - begun
        shares.append(spent / hash_all(database))
        rates.append(count / spent)
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    most = subprocess.run(
        [sys.executable, "-c", program, KEYCTL, "audit", "verify"],
        env={"KEYCTL_DATABASE_URL": own, "HOME": folder, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    ).stdout
    kib = int(most.strip().splitlines()[-1])
    print(
        f"{kind}: audit verify of {count:,} events: {sorted(rates)[1]:,.0f} a second,"
        f" {sorted(shares)[1]:.2f} times hashing alone;"
        f" {kib // 1024} MiB of memory   target {LIMIT // 1024} or less"
    )
    database.engine.dispose()


def stating(kind: str, url: str, count: int, folder: str) -> None:
    """Print what it costs to hold every row of so many keys against the chain, beside the chain alone."""
    work = workspace(another(url), folder)
    order = Order(request=GenerateRequest(key_alias="k-{n}"))
    BulkService(work).generate(order, count, lambda _: None)
    service, spent = AuditService(work), {False: 0.0, True: 0.0}
    for state in (False, True, False, True):
        begun = time.perf_counter()
        service.verify(state=state, step=lambda: None)
        spent[state] = time.perf_counter() - begun
    print(
        f"{kind}: audit verify --state of {count:,} keys: {count / spent[True]:,.0f} keys a second,"
        f" {spent[True] / spent[False]:.1f} times the chain alone"
    )
    work.database.engine.dispose()


def main() -> None:
    """Print the figures for both kinds of database; the argument is how many events."""
    count = int(sys.argv[1]) if sys.argv[1:] else MANY
    with TemporaryDirectory() as folder, servers() as urls:
        for kind, url in urls.items():
            per_change(kind, url, folder)
            verifying(kind, url, count, folder)
            stating(kind, url, max(1, count // 50), folder)


if __name__ == "__main__":
    main()
