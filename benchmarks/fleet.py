"""What fleets cost: a plan beside reading both sides, `apply` beside hashing, many keys beside bare statements.

fleet.py [KEYS] [sqlite|postgresql] [plan|apply|bulk|memory]…
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from bulk import hash_only, seconds
from filler import another, filled, servers
from measure import KEYCTL, alternate, compare, run
from sqlalchemy import bindparam, select, text, update

from keyctl.cli.fleets import plan_document
from keyctl.config.document import read
from keyctl.db.database import Database, utcnow
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Event
from keyctl.db.tables import keys, organizations, secrets, teams, users
from keyctl.fleetfile.described import FleetText, read_fleet
from keyctl.policy.facts import Caller
from keyctl.records import Key, Team
from keyctl.services.directory import DirectoryService
from keyctl.services.fleet.planner import FleetOrder
from keyctl.services.fleet.service import FleetService
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update_many import ManyChangesService
from keyctl.services.transaction import row_of
from keyctl.services.workspace import Workspace

ROUNDS, COST, BATCH, HASHED = 3, 10, 500, 1000
LARGE = 100_000
CONFIG = """
bcrypt_cost = {cost}
[sinks.files]
type = "file"
path = "{folder}/{{alias}}"
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """A database with the keys `k-0…` of team `t`, and a workspace on it."""

    database: Database
    workspace: Workspace
    count: int

    @property
    def ids(self) -> list[str]:
        """Return the ids of all keys."""
        return [f"key_{number:020d}" for number in range(self.count)]


def stored(url: str, count: int, home: Path) -> Stored:
    """Fill a new database with the keys of a fleet."""
    database, _ = filled(another(url), count, managed_by="default", max_budget=5 * 10**9)
    settings = read(
        {
            "bcrypt_cost": COST,
            "sinks": {"files": {"type": "file", "path": f"{home}/keys/{{alias}}"}},
        }
    )
    workspace = Workspace(
        database=database,
        settings=settings,
        caller=Caller(actor="local:benchmark", role="proxy_admin"),
        runs_folder=home / "runs",
    )
    DirectoryService(workspace).create(Team, "t", {})
    with database.write() as connection:
        connection.execute(text("UPDATE teams SET managed_by = 'default'"))
        connection.execute(
            text("UPDATE keys SET key_alias = 'k-' || substr(id, 15), team_id = 't'")
        )
    return Stored(database, workspace, count)


def described(count: int, first: int = 0) -> str:
    """Return a fleet file in which each key has an entry of its own."""
    lines = ["version: 1", "teams:", "  t: {}", "keys:"]
    lines += [
        f"  k-{number:010d}: {{team_id: t, max_budget: 5, deliver: files}}"
        for number in range(first, first + count)
    ]
    return "\n".join(lines) + "\n"


def plan(kind: str, url: str, count: int, home: Path) -> None:
    """Compare a plan with reading the file and the tables alone."""
    world, body = stored(url, count, home), described(count).replace(", deliver: files", "")

    def floor() -> None:
        yaml.load(body, Loader=yaml.CSafeLoader)  # the safe one, in C
        with world.database.read() as connection:
            for table in (keys, teams, users, organizations):
                connection.execute(select(table)).all()

    def ours() -> None:
        order = FleetOrder(fleet=read_fleet([FleetText(name="fleet.yaml", text=body)]))
        found = FleetService(world.workspace).plan(order)
        assert plan_document(found, order)["summary"]["unchanged"] == count + 1

    medians = alternate({"YAML and one query a table": floor, "plan": ours}, rounds=ROUNDS)
    compare(
        f"{kind}: plan of {count:,} keys against {count:,} stored",
        medians,
        "YAML and one query a table",
        3,
    )
    world.database.engine.dispose()


def apply(kind: str, url: str, count: int, home: Path) -> None:
    """Compare the making of new keys with bcrypt alone, on all cores; begin and end left out."""
    (home / "keys").mkdir(mode=0o700)
    config = home / "config.toml"
    config.write_text(CONFIG.format(cost=COST, folder=home / "keys"))
    config.chmod(0o600)
    database = Database(another(url))
    database.upgrade()
    own = {
        "KEYCTL_CONFIG": str(config),
        "KEYCTL_DATABASE_URL": database.address.url.render_as_string(hide_password=False),
    }
    made, shares = 0, []

    def more(many: int) -> float:
        nonlocal made
        made += many
        (home / "fleet.yaml").write_text(described(made))
        return seconds(run([KEYCTL, "apply", "fleet.yaml"], home, **own))

    more(1)
    for _ in range(ROUNDS):
        few = more(HASHED // 10)
        floor = seconds(lambda: hash_only(COST, count))
        ours = more(HASHED // 10 + count) - few
        shares.append(floor / ours)
    print(
        f"{kind}: apply of {count:,} new keys reaches {statistics.median(shares):.1%}"
        f" of the cores' bcrypt rate at cost {COST}   target 90 % or more"
    )
    database.engine.dispose()


def bulk(kind: str, url: str, count: int, home: Path) -> None:
    """Compare ending and changing many keys with the same rows and events through SQLAlchemy Core."""
    world = stored(url, count, home)
    flags = iter(range(1, 10**6))

    def bare(*, ends: bool) -> None:
        with world.database.read() as connection:
            found = [Key.of(row) for row in connection.execute(select(keys)).mappings()]
        for first in range(0, count, BATCH):
            now, value = utcnow(), next(flags)
            values: dict[str, Any] = {"updated_at": now}
            values |= {"deleted_at": now} if ends else {"rpm_limit": value}
            part = found[first : first + BATCH]
            rows = [
                {"changed": key.id, **{f"new_{n}": v for n, v in values.items()}} for key in part
            ]
            events = [
                Event(
                    actor="local:benchmark",
                    changed_by=None,
                    action="key_updated",
                    object_type="key",
                    object_id=key.id,
                    before=row_of(key),
                    after=row_of(replace(key, **values)),
                )
                for key in part
            ]
            with world.database.write() as connection:
                own = {name: bindparam(f"new_{name}", type_=keys.c[name].type) for name in values}
                changed = update(keys).where(keys.c.id == bindparam("changed")).values(own)
                connection.execute(changed, rows)
                if ends:
                    dead = update(secrets).where(secrets.c.key_id.in_([key.id for key in part]))
                    connection.execute(dead.values(state="revoked"))
                audit.append(connection, events, at=now)

    def limits() -> None:
        value = next(flags)
        ended = ManyChangesService(world.workspace).update(world.ids, {"rpm_limit": value})
        assert {item.result for item in ended} == {"updated"}

    def blocked(service: EndingService) -> None:
        state = next(flags) % 2 == 0
        ended = service.block(world.ids, blocked=state)
        assert len(ended) == count

    service = EndingService(world.workspace)
    base = "rows and events through Core"
    medians = alternate(
        {
            base: lambda: bare(ends=False),
            "update": limits,
            "block": lambda: blocked(service),
        },
        rounds=ROUNDS,
    )
    compare(f"{kind}: {count:,} keys", medians, base, 3)
    # Once each, in two databases: what is deleted cannot be deleted again.
    ended = {"delete": seconds(lambda: service.delete(world.ids))}
    world.database.engine.dispose()
    world = stored(url, count, home)
    ended = {base: seconds(lambda: bare(ends=True)), **ended}
    compare(f"{kind}: {count:,} keys with their secrets, once", ended, base, 3)
    world.database.engine.dispose()


def memory(kind: str, url: str, count: int, home: Path) -> None:
    """Tell how much memory each command takes that plans, makes, changes and ends many keys."""
    world = stored(url, count, home)
    variables = files_of_memory(world, home)
    watched = (
        "import json,resource,subprocess,sys;"
        "p=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL);"
        "print(json.dumps([p.returncode,resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
    )
    for line in (
        "plan fleet.yaml",
        "plan changed.yaml",
        "plan -o json changed.yaml",
        "apply changed.yaml",
        "apply -o json more.yaml",
        "export",
        "update --team t --rpm-limit 7 --yes",
        "block --team t --yes",
        "delete --team t --yes",
        "apply -o json new.yaml",
        "rotate --team t --grace 1h --yes",
        "plan --prune empty.yaml",
        "apply --prune --yes empty.yaml",
        "generate --from rows.csv --out-dir made",
        f"generate --count {count} --alias d-{{n}} --dry-run",
    ):
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", watched, KEYCTL, *line.split()],
            env=variables,
            cwd=home,
            capture_output=True,
            check=True,
            timeout=3600,
        )
        status, peak = json.loads(done.stdout)
        print(
            f"{kind}: {line} of {count:,} keys takes {peak / 1024:.0f} MiB"
            f" (exit {status}, {time.perf_counter() - begun:.0f} s)   target 200 MiB or less",
            flush=True,
        )
    world.database.engine.dispose()


def files_of_memory(world: Stored, home: Path) -> dict[str, str]:
    """Write the fleet files, the rows and the configuration; return the environment for them."""
    config, count = home / "config.toml", world.count
    config.write_text(CONFIG.format(cost=4, folder=home / "keys"))
    config.chmod(0o600)
    (home / "keys").mkdir(mode=0o700)
    as_stored = described(count).replace(", deliver: files", "")
    files = {
        "fleet.yaml": as_stored,
        "changed.yaml": as_stored.replace("max_budget: 5", "max_budget: 6"),
        "more.yaml": as_stored.replace("max_budget: 5", "max_budget: 7"),
        "new.yaml": described(count).replace("k-", "n-"),
        "empty.yaml": "version: 1\nteams:\n  t: {}\n",
        "rows.csv": "alias,team,max_budget\n"
        + "".join(f"r-{number},t,5\n" for number in range(count)),
    }
    for name, text_of_file in files.items():
        (home / name).write_text(text_of_file)
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "KEYCTL_CONFIG": str(config),
        "KEYCTL_DATABASE_URL": world.database.address.url.render_as_string(hide_password=False),
    }


PARTS = {"plan": plan, "apply": apply, "bulk": bulk, "memory": memory}


def main() -> None:
    """Print the ratios for both kinds of database."""
    count = int(sys.argv[1]) if sys.argv[1:] else 10_000
    with servers() as urls:
        chosen = [name for name in sys.argv[2:] if name in urls] or list(urls)
        for kind, url in urls.items():
            if kind not in chosen:
                continue
            for part in [name for name in sys.argv[2:] if name in PARTS] or PARTS:
                with tempfile.TemporaryDirectory() as name:
                    many = LARGE if part == "memory" and not sys.argv[1:] else count
                    PARTS[part](kind, url, many, Path(name))


if __name__ == "__main__":
    main()
