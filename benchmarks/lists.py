"""What `list --all -o csv` costs beside the same rows through SQLAlchemy Core and the csv module.

python benchmarks/lists.py [KEYS]
"""

import sys
import tempfile
from pathlib import Path

from filler import filled, servers
from measure import KEYCTL, alternate, compare, run

KEYS = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
ROUNDS = 2

# As a reader would write it who knows the table: the columns that the list shows, as text.
FLOOR = """
import csv, sys
from sqlalchemy import create_engine, select
from keyctl.db.tables import keys
from keyctl.db.urls import parse_url

NAMES = "id key_alias blocked team_id user_id max_budget spend expires created_at".split()
url = parse_url(sys.argv[1]).url
if url.drivername == "postgresql":
    url = url.set(drivername="postgresql+psycopg")
engine = create_engine(url)
writer = csv.writer(sys.stdout, lineterminator="\\n")
writer.writerow(NAMES)
query = select(*(keys.c[name] for name in NAMES)).where(keys.c.deleted_at.is_(None))
query = query.order_by(keys.c.created_at.desc(), keys.c.id.desc())
with engine.connect().execution_options(yield_per=1000) as connection:
    for row in connection.execute(query):
        writer.writerow(row)
"""


def main() -> None:
    """Print the ratio on both databases."""
    with tempfile.TemporaryDirectory() as folder, servers() as urls:
        home = Path(folder)
        (home / "floor.py").write_text(FLOOR)
        for kind, url in urls.items():
            database, _ = filled(url, KEYS)
            database.engine.dispose()
            medians = alternate(
                {
                    "SQLAlchemy Core and csv": run(
                        [sys.executable, str(home / "floor.py"), url], home
                    ),
                    "keyctl list --all -o csv": run(
                        [KEYCTL, "list", "--all", "-o", "csv"], home, KEYCTL_DATABASE_URL=url
                    ),
                    "keyctl list --all": run(
                        [KEYCTL, "list", "--all"], home, KEYCTL_DATABASE_URL=url
                    ),
                },
                rounds=ROUNDS,
            )
            title = f"{KEYS:,} keys, {kind}"
            compare(title, medians, "SQLAlchemy Core and csv", 2)


if __name__ == "__main__":
    main()
