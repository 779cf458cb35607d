"""What is stored, held against what the audit chain last said of it."""

import random

import pytest
from clock import Clock
from honest import Honest
from sqlalchemy import text, update
from tampering import another, differing
from world import Hand, World

from keyctl.db import told
from keyctl.db.queries import audit
from keyctl.db.tables import metadata
from keyctl.services.audit import AuditService
from keyctl.services.state import hear
from keyctl.services.workspace import Workspace


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    return World(workspace)


MADE_ADMIN = """
    INSERT INTO team_members (team_id, user_id, role, created_at) SELECT team_id, 'eve', 'admin', created_at
    FROM team_members WHERE user_id = 'tina'
"""


class TestHonestDays:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_nothing_differs_after_any_commands(
        self, world: World, clock: Clock, seed: int
    ) -> None:
        """Whatever is made, changed, rotated, moved, blocked, refused and ended: the chain says it all."""
        honest = Honest(world, clock, random.Random(seed))  # noqa: S311  # repeatable

        for _ in range(120):
            honest.step()

        assert differing(world.workspace) == []
        assert len(honest.done) >= 10

    def test_usage_is_no_change(self, world: World) -> None:
        """What gateways record is left out: spend, last use, and periods that begin anew."""
        world.make({"key_alias": "used", "team_id": "web"})
        with world.workspace.database.engine.begin() as connection:
            for statement in (
                "UPDATE keys SET spend = 5, last_used_at = '2030-01-01 00:00:00.000000'",
                "UPDATE teams SET spend = 7, budget_reset_at = '2031-01-01 00:00:00.000000'",
            ):
                connection.execute(text(statement))

        assert differing(world.workspace) == []


class TestEdits:
    def test_every_single_field_is_named(self, world: World, clock: Clock) -> None:
        """Each compared column of each table, edited by SQL, alone: that object and that field."""
        Honest(world, clock, random.Random(3)).furnish()  # noqa: S311  # repeatable
        engine = world.workspace.database.engine
        edited = 0

        for word, table in told.TABLES.items():
            for name in told.compared(word):
                column = table.c[name]
                with engine.begin() as connection:
                    row = connection.execute(table.select().limit(1)).mappings().one()
                    changed = another(column, row[name])
                    where = [key == row[key.name] for key in table.primary_key.columns]
                    try:
                        connection.execute(update(table).where(*where).values({name: changed}))
                    except Exception:  # noqa: BLE001  # a constraint stands in the way: as good
                        connection.rollback()
                        continue
                identity = "/".join(str(row[key.name]) for key in table.primary_key.columns)
                assert differing(world.workspace) == [f"{word} {identity}: {name}"]
                with engine.begin() as connection:
                    connection.execute(update(table).where(*where).values({name: row[name]}))
                edited += 1

        assert edited >= 100
        assert differing(world.workspace) == []

    @pytest.mark.parametrize(
        ("statement", "found"),
        [
            (
                MADE_ADMIN,
                "team_member web/eve: (the whole row)",
            ),
            (
                "DELETE FROM team_members WHERE user_id = 'tina'",
                "team_member web/tina: (the whole row)",
            ),
            ("UPDATE users SET role = 'proxy_admin' WHERE id = 'eve'", "user eve: role"),
            ("UPDATE teams SET policy = NULL WHERE id = 'web'", "team web: policy"),
            ("UPDATE teams SET models = '[1' WHERE id = 'web'", "team web: models"),
        ],
    )
    def test_rows_that_come_and_go(self, world: World, statement: str, found: str) -> None:
        """A row too many, one too few, a role, a policy, and what cannot be read."""
        world.change({"team": {"policy": {"max_keys": 5}}})
        with world.workspace.database.engine.begin() as connection:
            connection.execute(text(statement))

        assert differing(world.workspace) == [found]

    def test_a_secret_from_nowhere(self, world: World) -> None:
        """A credential that somebody put beside a key is not made right by an honest command."""
        key_id = world.make({"key_alias": "ci", "team_id": "web"})
        with world.workspace.database.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO secrets (id, key_id, lookup, hash, state, supplied, run_id, created_at,"
                    " administers) SELECT 'BackDoor1234', key_id, 'BackDoor1234', hash, 'retiring', supplied,"
                    " run_id, created_at, administers FROM secrets WHERE key_id = :key"
                ),
                {"key": key_id},
            )
        world.rotate(key_id, Hand())

        assert "secret BackDoor1234: (the whole row)" in differing(world.workspace)


class TestAccepting:
    def test_what_an_admin_has_mended_goes_on_record(self, world: World) -> None:
        """Afterwards the chain says what stands, who accepted it and why."""
        with world.workspace.database.engine.begin() as connection:
            connection.execute(text("UPDATE users SET email = 'e@x.org' WHERE id = 'eve'"))
        service = AuditService(world.workspace)

        view = service.accept(reason="mended by hand")

        assert (view["accepted"], differing(world.workspace)) == (1, [])

    def test_a_database_from_before(self, world: World) -> None:
        """After an upgrade everything is recorded once, and nothing differs."""
        world.make({"key_alias": "old", "team_id": "web"})
        with world.workspace.database.engine.begin() as connection:
            connection.execute(text("UPDATE secrets SET administers = true"))

        AuditService(world.workspace).record_upgraded()

        assert differing(world.workspace) == []


def test_each_column_is_compared_or_usage() -> None:
    """A new column of these tables is compared; one that is usage is named as such, and is there."""
    for word, table in told.TABLES.items():
        assert table is metadata.tables[table.name]
        own = {column.name for column in table.primary_key.columns}
        assert {*told.compared(word), *told.USAGE[word], *own} == set(table.c.keys())
        assert not set(told.compared(word)) & told.USAGE[word]


def test_each_column_is_told(world: World, clock: Clock) -> None:
    """The chain says every compared column of each kind of object, new ones included."""
    Honest(world, clock, random.Random(4)).furnish()  # noqa: S311  # repeatable

    with world.workspace.database.read() as connection, told.nothing_told() as memory:
        for _ in audit.check_chain(connection, heard=lambda event: hear(memory, event)):
            pass
        for word, row in told.stored(connection):
            assert isinstance(row, dict)
            known = memory.find(word, told.identity_of(word, row))
            assert known is not None, (word, row)
            unsaid = set(told.compared(word)) - known[0].keys()
            # What was not said of a member is null: limits that were never set.
            assert unsaid == set() or ("member" in word and not any(map(row.get, unsaid)))
