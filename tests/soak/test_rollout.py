"""Programs of two versions work side by side on one PostgreSQL while its schema is upgraded under them."""

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from databases import Postgres
from gate import Gate
from schema_steps import downgrade
from servers import until
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    NullPool,
    create_engine,
    insert,
    make_url,
    select,
    text,
    update,
)
from world import Hand

from keyctl import hashing, keystring
from keyctl.db import migrate
from keyctl.db.database import utcnow
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Event
from keyctl.db.schema import HEAD, RESERVABLE
from keyctl.fields import parse_grace
from keyctl.gateway import Verifier
from keyctl.services.audit import AuditService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.verify import verify

BEFORE = sorted(
    script.revision
    for script in ScriptDirectory(str(migrate.alembic_home() / "migrations")).walk_revisions()
    if RESERVABLE <= script.revision < HEAD
)
COST = Decimal("0.001")


class Loop(threading.Thread):
    """Does one thing again and again until it says that it is over, or the test does."""

    def __init__(self, turn: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._turn = turn
        self.turns = 0
        self.over = threading.Event()
        self.fault: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Take turns."""
        try:
            while not self.over.is_set() and self._turn():
                self.turns += 1
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            self.fault = error


class OldProgram:
    """What a program of an older schema reads and writes in a rotation, as SQL on the columns that it knows."""

    def __init__(self, engine: Engine, revision: str) -> None:
        self._engine = engine
        self._revision = revision
        self._known = MetaData()
        with engine.begin() as connection:
            self._known.reflect(connection, only=["keys", "secrets", "teams"])
        self.made: list[str] = []

    def rotate(self) -> bool:
        """Rotate the key, if the schema is the one that this program knows."""
        made = keystring.mint()
        hashed = hashing.hash_key(made, cost=4)
        with self._engine.begin() as connection:
            # Every writer of every version asks this first, and leaves a newer schema alone.
            found = connection.execute(text("SELECT version_num FROM alembic_version"))
            if found.scalar_one() != self._revision:
                return False
            self._write(connection, made.lookup, hashed)
        self.made.append(made.reveal())
        return True

    def _write(self, connection: Connection, lookup: str, hashed: str) -> None:
        secrets, now = self._known.tables["secrets"], utcnow()
        newest = select(secrets).where(secrets.c.state == "active").with_for_update()
        row = connection.execute(newest).mappings().one()
        ends = {"state": "retiring", "not_after": now + timedelta(hours=1)}
        connection.execute(update(secrets).where(secrets.c.id == row["id"]).values(ends))
        new = {"id": lookup, "lookup": lookup, "hash": hashed, "created_at": now}
        connection.execute(insert(secrets).values({**row, **new}))
        event = Event(
            actor="local:old@host",
            changed_by=None,
            action="key_rotated",
            object_type="key",
            object_id=row["key_id"],
        )
        audit.append(connection, [event], at=now)

    def read(self) -> None:
        """Read all that it knows of keys, secrets and teams; a newer schema still has it."""
        with self._engine.begin() as connection:
            # As every program of every version: an upgrade waits behind it, not between two tables.
            connection.execute(text("SELECT version_num FROM alembic_version"))
            for table in self._known.tables.values():
                connection.execute(select(table)).all()


@pytest.mark.parametrize("revision", BEFORE)
def test_an_upgrade_under_load_loses_nothing(
    postgres: Postgres, tmp_path: Path, revision: str
) -> None:
    """The old program's rotations all count and end at the upgrade; the gateway never fails; the new one goes on."""
    with postgres.database() as url:
        gate = Gate(url, tmp_path)
        first = gate.key(key_alias="a", max_budget=1000, **gate.owners())
        downgrade(gate.database, revision)
        plain = make_url(url).set(drivername="postgresql+psycopg")
        old = OldProgram(create_engine(plain, poolclass=NullPool), revision)
        with Verifier(url, cache_ttl=0.01, flush_interval=0.1) as verifier:

            def request() -> bool:
                verdict = verifier.verify((old.made or [first])[-1])
                assert verdict.valid, verdict
                verdict.record(COST)
                old.read()
                return True

            rotating, gateway = Loop(old.rotate), Loop(request)
            until(lambda: min(rotating.turns, gateway.turns) >= 10)
            gate.database.upgrade()
            rotating.join(30)
            turns = gateway.turns
            new = Hand()
            order = RotateOrder(given="a", grace=parse_grace("1h"))
            RotateService(gate.workspace).rotate(order, new)
            until(lambda: gateway.turns >= turns + 10 or not gateway.is_alive())
            gateway.over.set()
            gateway.join(30)

        assert (rotating.fault, gateway.fault) == (None, None)
        assert not rotating.is_alive()
        assert len(old.made) >= 10
        assert gate.database.revision() == HEAD
        for key in (first, *old.made, new.held):
            assert verify(gate.database, key).valid
        AuditService(gate.workspace).verify(state=False, step=lambda: None)
        spent = Decimal(gate.spends()[0]) / 10**9
        assert spent == COST * gateway.turns
        gate.close()
