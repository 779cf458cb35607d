"""What `rotate --due` costs beside hashing alone, and what finding the due keys costs.

500 due keys among a million, at bcrypt cost 10, with a file sink; the floor is bcrypt for 500 keys
on all cores.  What is due is found through a partial index: among a million keys as fast as among
a thousand.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from bulk import hash_only, seconds
from filler import another, filled, servers
from measure import KEYCTL, alternate, compare, run
from sqlalchemy import text

from keyctl.db import queries
from keyctl.db.database import Database, utcnow

MANY, FEW, DUE, COST, ROUNDS = 1_000_000, 1_000, 500, 10, 3
CONFIG = """
bcrypt_cost = {cost}
default_sink = "files"
[sinks.files]
type = "file"
path = "{folder}/{{key_id}}"
"""


def make_due(database: Database, count: int) -> None:
    """Let the rotation of *count* keys, spread over all, be due."""
    with database.write() as connection:
        total = connection.execute(text("SELECT count(*) FROM keys")).scalar_one()
        step = total // count
        ids = [f"key_{number * step:020d}" for number in range(count)]
        due = text(
            "UPDATE keys SET auto_rotate = true, rotation_interval = '30d',"
            " key_rotation_at = :due WHERE id = :id"
        )
        moment = "2020-01-01 00:00:00.000000"
        connection.execute(due, [{"id": key_id, "due": moment} for key_id in ids])


def find_due(database: Database) -> None:
    """Read the first keys that are due."""
    with database.read() as connection:
        found = queries.keys_due(connection, due_at=utcnow(), after=None, limit=16, lock=False)
    assert len(found) == 16


def main() -> None:
    """Print the ratios for both kinds of database; the argument is how many keys."""
    many = int(sys.argv[1]) if sys.argv[1:] else MANY
    with tempfile.TemporaryDirectory() as name, servers() as urls:
        for kind, url in urls.items():
            home = Path(name) / kind
            (home / "keys").mkdir(mode=0o700, parents=True)
            config = home / "config.toml"
            config.write_text(CONFIG.format(cost=COST, folder=home / "keys"))
            config.chmod(0o600)
            large, _ = filled(another(url), many)
            small, _ = filled(another(url), FEW)
            own = {
                "KEYCTL_CONFIG": str(config),
                "KEYCTL_DATABASE_URL": large.address.url.render_as_string(hide_password=False),
            }
            rotate = run([KEYCTL, "rotate", "--due", "-o", "jsonl"], home, **own)
            shares = []
            for _ in range(ROUNDS):
                make_due(large, DUE)
                shares.append(seconds(rotate) / seconds(lambda: hash_only(COST, DUE)))
            print(
                f"{kind}: rotate --due of {DUE} among {many:,} keys takes"
                f" {statistics.median(shares):.2f} times bcrypt alone   target 1.25 or less"
            )
            make_due(large, DUE)
            make_due(small, DUE)
            report_finding(kind, small, large, many)
            large.engine.dispose()
            small.engine.dispose()


def report_finding(kind: str, small: Database, large: Database, many: int) -> None:
    """Print what finding the due keys costs among few and among many."""
    few, all_ = f"among {FEW:,}", f"among {many:,}"
    medians = alternate({few: lambda: find_due(small), all_: lambda: find_due(large)}, rounds=101)
    compare(f"{kind}: find the keys that are due", medians, few, 1.5)


if __name__ == "__main__":
    main()
