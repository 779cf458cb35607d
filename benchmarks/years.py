"""Measure what ten years of daily rotation of 10,000 keys leave behind, beside one month of it.

python benchmarks/years.py [KEYS DAYS]

Every key was rotated once a day, and ``keyctl db prune --older-than 30d`` ran every day: 30 days of
ended secrets are in their table, and of all before there is a tombstone each.  The rows are made by
the database itself; the audit trail has a million events, of which only the head is real.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from filler import another, filled, servers
from measure import alternate, compare
from sqlalchemy import Connection, text

from keyctl.config.document import read
from keyctl.db.database import Database
from keyctl.db.queries import KeyFilter
from keyctl.keystring import KeyString
from keyctl.policy.facts import Caller
from keyctl.services.keys.read import KeyService
from keyctl.services.prune import PruneService
from keyctl.services.rotate.due import DueOrder, DueService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace

LIVE_DAYS, EVENTS, DUE, ROUNDS = 30, 1_000_000, 100, 7
# A number below 10 ** 11 as text, and a key's id spread over all keys.
_TEXT = {"sqlite": "printf('%0{1}d', {0})", "postgresql": "lpad(({0})::text, {1}, '0')"}
_DAYS_AGO = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || ({0}) || ' days')",
    "postgresql": "now() - ({0}) * interval '1 day'",
}


def numbers(kind: str, count: int) -> str:
    """Return a table of the numbers below *count*."""
    if kind == "postgresql":
        return f"generate_series(0::bigint, {count - 1}) AS numbers(n)"
    return (
        "(WITH RECURSIVE counting(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counting"
        f" WHERE n < {count - 1}) SELECT n FROM counting) AS numbers"
    )


def fill(connection: Connection, keys: int, days: int) -> None:
    """Add the secrets that have ended, and the tombstones of those that were pruned."""
    kind = connection.dialect.name

    def name(number: str, width: int) -> str:
        return _TEXT[kind].format(number, width)

    if kind == "postgresql":
        connection.execute(text("SET LOCAL session_replication_role = replica"))
    owner = f"'key_' || {name(f'(n * 7919) % {keys}', 20)}"
    ended = _DAYS_AGO[kind].format(f"n / {keys} + 0.5")
    connection.execute(
        text(
            "INSERT INTO secrets (id, lookup, key_id, hash, state, supplied, run_id, created_at,"
            f" not_after, administers) SELECT 'r' || {name('n', 11)}, 'r' || {name('n', 11)}, {owner},"
            f" (SELECT hash FROM secrets LIMIT 1), 'revoked', {'0' if kind == 'sqlite' else 'false'},"
            f" 'filler', {ended}, {ended}, {'0' if kind == 'sqlite' else 'false'}"
            f" FROM {numbers(kind, keys * LIVE_DAYS)}"
        )
    )
    if days <= LIVE_DAYS:
        return
    made = _DAYS_AGO[kind].format(f"{LIVE_DAYS} + n / {keys}")
    connection.execute(
        text(
            "INSERT INTO ended_secrets (id, lookup, key_id, created_at)"
            f" SELECT 't' || {name('n', 11)}, 't' || {name('n', 11)}, {owner}, {made}"
            f" FROM {numbers(kind, keys * (days - LIVE_DAYS))}"
        )
    )
    now = _DAYS_AGO[kind].format("0")
    connection.execute(
        text(
            "INSERT INTO audit_events (seq, at, actor, action, object_type, object_id, after,"
            f" prev_hash, hash) SELECT n + 1, {now}, 'local:cron@host', 'key_rotated', 'key', {owner},"
            f" '{{}}', '{'0' * 64}', '{'1' * 64}' FROM {numbers(kind, EVENTS)}"
        )
    )
    connection.execute(text(f"UPDATE audit_head SET seq = {EVENTS}, hash = '{'1' * 64}'"))


def made(url: str, keys: int, days: int) -> tuple[Database, KeyString]:
    """Return a database of so many days, and the key string of one of its keys."""
    database, known = filled(
        url, keys, auto_rotate=True, rotation_interval="1d", sink="files", grace_period="none"
    )
    if database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as plain:
            plain.execute(text("PRAGMA foreign_keys = OFF"))
    with database.write() as connection:
        fill(connection, keys, days)
    database.engine.dispose()
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return database, known


class Days:
    """What is done every day with one database."""

    def __init__(self, database: Database, known: KeyString, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        settings = {
            "bcrypt_cost": 4,
            "sinks": {"files": {"type": "file", "path": f"{folder}/{{key_id}}"}},
        }
        self.known = known
        self.pruned = 0
        self.due = 0
        self.workspace = Workspace(
            database=database,
            settings=read(settings),
            caller=Caller(actor="local:benchmark", role="proxy_admin"),
            runs_folder=folder / "runs",
        )

    def verify(self) -> None:
        """Verify a key."""
        assert verify(self.workspace.database, self.known.reveal()).valid

    def list(self) -> None:
        """List a page of a hundred keys."""
        KeyService(self.workspace).page(KeyFilter(), after=None, limit=100)

    def rotate(self) -> None:
        """Let a hundred keys be due, and rotate them."""
        database = self.workspace.database
        names = [f"key_{number:020d}" for number in range(self.due, self.due + DUE)]
        self.due += DUE
        with database.write() as connection:
            connection.execute(
                text(
                    "UPDATE keys SET key_rotation_at = created_at WHERE id BETWEEN :first AND :last"
                ),
                {"first": names[0], "last": names[-1]},
            )
        lines = list(DueService(self.workspace).rotate_due(DueOrder()))
        assert [line.result for line in lines] == ["rotated"] * DUE, lines[:3]

    def prune(self) -> None:
        """Prune what one day more has ended."""
        self.pruned += 1
        done = PruneService(self.workspace).prune(f"{LIVE_DAYS - self.pruned}d")
        assert done["secrets"] > 0


def report(kind: str, url: str, keys: int, days: int, folder: Path) -> None:
    """Print the ratios of one kind of database."""
    month = Days(*made(another(url), keys, LIVE_DAYS), folder / f"{kind}-month")
    years = Days(*made(another(url), keys, days), folder / f"{kind}-years")
    before, after = f"after {LIVE_DAYS} days", f"after {days:,} days"
    asked: list[tuple[str, Callable[[Days], None]]] = [
        ("verify one key", Days.verify),
        ("list: a page of 100", Days.list),
        (f"rotate --due: {DUE} keys", Days.rotate),
        (f"db prune: {keys:,} secrets of a day", Days.prune),
    ]
    for title, do in asked:
        subjects = {before: lambda do=do: do(month), after: lambda do=do: do(years)}
        compare(f"{kind}: {title}", alternate(subjects, rounds=ROUNDS), before, 1.5)
        sys.stdout.flush()
    month.workspace.database.engine.dispose()
    years.workspace.database.engine.dispose()


def main() -> None:
    """Print the ratios for both kinds of database."""
    keys, days = (int(item) for item in sys.argv[1:] or ("10000", "3650"))
    with TemporaryDirectory() as folder, servers() as urls:
        for kind, url in urls.items():
            report(kind, url, keys, days, Path(folder))


if __name__ == "__main__":
    main()
