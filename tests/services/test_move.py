"""A database is moved whole, between SQLite and PostgreSQL, and nobody writes to two of them."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from databases import Postgres, administered
from harness import Cli
from sqlalchemy import text
from world import Hand, World

from keyctl.db import moving, passing
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.events import Conditions
from keyctl.db.schema import HEAD
from keyctl.errors import (
    BeingMovedError,
    BusyError,
    ConflictError,
    CorruptedError,
    KeyctlError,
    UsageError,
)
from keyctl.requests import GenerateRequest
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.move import MoveService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace


def quiet(_what: str, _rows: int) -> None:
    """Take the news of each step."""


# The server ends the connection, or what the connection is at work on.
ENDED = "pg_terminate_backend(pid, 5000)"
CANCELLED = "pg_cancel_backend(pid)"


def disturb(postgres_url: str, database: Database, how: str = ENDED) -> None:
    """End what is connected to a PostgreSQL database, or what it does."""
    name = database.address.url.database
    with administered(postgres_url) as execute:
        execute(f"SELECT {how} FROM pg_stat_activity WHERE datname = '{name}'")


KINDS = {"sqlite": "postgresql", "postgresql": "sqlite"}


@pytest.fixture(name="into")
def _into(kind: str) -> str:
    """The kind of the target: the other one, where a test does not ask for each."""
    return KINDS[kind]


@pytest.fixture(name="target")
def _target(into: str, postgres: Postgres, tmp_path: Path, clock: Any) -> Iterator[Database]:
    """An empty database, without a schema."""
    with ExitStack() as made:
        url = f"sqlite:///{tmp_path}/target/keyctl.db"
        if into == "postgresql":
            url = made.enter_context(postgres.database(migrated=False))
        database = Database(url, clock=clock)
        yield database
        database.engine.dispose()


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    """A database with something in every corner: people, keys, two secrets, an event to send."""
    world = World(workspace)
    world.change(
        {"settings": {"hooks": {"h": {"type": "python", "function": "m:f", "events": ["*"]}}}}
    )
    return world


def issued(workspace: Workspace, **fields: Any) -> str:
    """Make a key and return its key string."""
    hand = Hand()
    request = GenerateRequest.model_validate({"team_id": "web", **fields})
    GenerateService(workspace).generate(Order(request=request), hand)
    return hand.held


def texts(database: Database) -> list[tuple[Any, ...]]:
    """Return what the audit trail holds, byte for byte."""
    with database.read() as connection:
        rows = connection.execute(
            text('SELECT seq, "before", "after", prev_hash, hash FROM audit_events ORDER BY seq')
        )
        return [tuple(row) for row in rows]


@pytest.mark.parametrize("into", sorted(KINDS))
class TestACopy:
    def test_holds_everything_and_keeps_its_promises(self, world: World, target: Database) -> None:
        """Key strings verify, the chain goes on, events wait to be sent; the source is closed."""
        workspace = world.workspace
        old = issued(
            workspace, key_alias="a", metadata={"n": Decimal("1.50"), "text": "Ünï\u2028code"}
        )
        hand = Hand()
        RotateService(workspace).rotate(RotateOrder(given="a"), hand)
        before = texts(workspace.database)
        report = MoveService(workspace).copy(target, step=quiet)
        assert report["state"] == "moved"
        assert texts(target)[: len(before)] == before
        moved = replace(workspace, database=target)
        for key in (old, hand.held):
            assert verify(moved.database, key).valid
        with target.read() as connection:
            links = list(audit.check_chain(connection))
            events = connection.execute(text("SELECT count(*) FROM outbox")).scalar_one()
        assert len(links) == len(before) + 2  # the move's beginning and its end
        assert events > 0
        assert verify(workspace.database, old).valid  # it can still be read
        with pytest.raises(BeingMovedError, match="was moved") as caught:
            issued(workspace)
        assert caught.value.exit_code == 6
        assert verify(moved.database, issued(moved, key_alias="b")).valid

    def test_goes_on_where_it_was_killed(
        self, world: World, target: Database, monkeypatch: Any
    ) -> None:
        """Killed after any chunk, the same command ends with the same contents."""
        monkeypatch.setattr(moving, "CHUNK", 3)
        monkeypatch.setattr(passing, "ROWS", 3)
        monkeypatch.setattr(passing, "PARTS", 2)
        for number in range(4):
            issued(world.workspace, key_alias=f"k{number}")
        service = MoveService(world.workspace)
        calls = 0

        def dies(what: str, _rows: int) -> None:
            nonlocal calls
            calls += what != "verified"  # which is before anything is written
            if calls in (3, 9, 25, 60):
                calls += 1
                raise KeyboardInterrupt

        report = None
        while report is None:
            try:
                report = service.copy(target, step=dies)
            except KeyboardInterrupt:
                with pytest.raises(BeingMovedError), target.read():
                    pass
        assert calls > 60
        with world.workspace.database.read() as source, target.read() as copy:
            for table in moving.TABLES:
                rows = moving.contents_of(source, table, step=lambda _: None)
                if table.name not in (
                    "audit_events",
                    "audit_head",
                ):  # the target's has one event more
                    assert moving.contents_of(copy, table, step=lambda _: None) == rows
        assert report["rows"]["keys"] == 4

    def test_may_be_run_again(self, world: World, target: Database) -> None:
        """Done is done: the answer is the same, but that nothing was copied; nothing more is written."""
        service = MoveService(world.workspace)
        report = service.copy(target, step=quiet)
        assert service.copy(target, step=quiet) == {**report, "copied": False}

    def test_is_found_out_if_it_is_not_what_was_there(
        self, world: World, target: Database, monkeypatch: Any
    ) -> None:
        """A row that changed on the way is exit 11, and the target stays closed."""
        issued(world.workspace, key_alias="a")
        copied = moving.copy_table  # a fault in what no command reaches

        def tampered(
            reading: Any, source: Any, target: Database, table: Any, *, marked: str, step: Any
        ) -> moving.Contents:
            contents = copied(reading, source, target, table, marked=marked, step=step)
            if table.name == "keys":
                with target.write(marked=marked) as connection:
                    connection.execute(text("UPDATE keys SET spend = spend + 1"))
            return contents

        monkeypatch.setattr(moving, "copy_table", tampered)
        with pytest.raises(CorruptedError, match="table keys"):
            MoveService(world.workspace).copy(target, step=quiet)
        with pytest.raises(BeingMovedError), target.read():
            pass


class TestAnOutage:
    """Is told as of the side that has it, and the same command goes on after it."""

    @pytest.fixture(name="in_parts")
    def _in_parts(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Workspace:
        """Six keys, each of which is a part of its own."""
        monkeypatch.setattr(passing, "ROWS", 1)
        monkeypatch.setattr(moving, "CHUNK", 1)
        for number in range(6):
            issued(world.workspace, key_alias=f"k{number}")
        return world.workspace

    @pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
    @pytest.mark.parametrize(
        ("into", "how"), [("postgresql", CANCELLED), ("postgresql", ENDED), ("sqlite", ENDED)]
    )
    def test_of_the_source(
        self, in_parts: Workspace, target: Database, how: str, postgres_url: str
    ) -> None:
        """Between two parts of a table, while the target is written."""
        workspace = in_parts
        # More than waits on the way: the server must still have rows when it goes.
        with workspace.database.write() as connection:
            connection.execute(
                text("UPDATE keys SET metadata = '{\"a\": \"' || repeat('x', 4000000) || '\"}'")
            )

        def disturbed(what: str, _rows: int) -> None:
            if what == "keys":
                disturb(postgres_url, workspace.database, how)

        service = MoveService(workspace)
        with pytest.raises(KeyctlError) as caught:
            service.copy(target, step=disturbed)
        told = f"{caught.value} {caught.value.hint}"
        assert caught.value.exit_code in (6, 7)
        assert workspace.database.shown in told
        assert target.shown not in told
        assert service.copy(target, step=quiet)["rows"]["keys"] == 6

    @pytest.mark.parametrize("into", ["postgresql"])
    @pytest.mark.parametrize("kind", sorted(KINDS), indirect=True)
    def test_of_the_target(self, in_parts: Workspace, target: Database, postgres_url: str) -> None:
        """Between two parts of a table, while the source is read."""
        workspace = in_parts

        def disturbed(what: str, _rows: int) -> None:
            if what == "keys":
                disturb(postgres_url, target)

        service = MoveService(workspace)
        with pytest.raises(KeyctlError) as caught:
            service.copy(target, step=disturbed)
        told = f"{caught.value} {caught.value.hint}"
        assert caught.value.exit_code == 6
        assert target.shown in told
        assert workspace.database.shown not in told
        assert service.copy(target, step=quiet)["rows"]["keys"] == 6

    @pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
    @pytest.mark.parametrize("into", ["postgresql"])
    def test_before_the_first_part(self, world: World, target: Database) -> None:
        """A table of the target that somebody else has locked does not tell its last row."""
        issued(world.workspace, key_alias="a")
        url = target.address.url
        hurried = Database(
            url.render_as_string(hide_password=False), patience=timedelta(milliseconds=500)
        )
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain) as other:

            def lock(what: str, _rows: int) -> None:
                if what == "teams":
                    other.execute("LOCK TABLE keys")

            with pytest.raises(BusyError) as caught:
                MoveService(world.workspace).copy(hurried, step=lock)
        hurried.engine.dispose()
        assert target.shown in str(caught.value)

    @pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
    def test_of_who_would_end_the_reading(self, world: World, monkeypatch: Any) -> None:
        """A server that takes no request to cancel is read to its end, and can be asked again."""
        monkeypatch.setattr(passing, "ROWS", 1)
        issued(world.workspace, key_alias="a")
        issued(world.workspace, key_alias="b")

        def refused(_self: Any) -> None:
            raise psycopg.OperationalError("too many connections")

        monkeypatch.setattr(psycopg.Connection, "cancel", refused)
        (keys,) = (table for table in moving.TABLES if table.name == "keys")
        with world.workspace.database.read() as connection:
            with closing(passing.written(connection, keys)) as parts:
                next(parts)
            assert connection.execute(text("SELECT count(*) FROM keys")).scalar_one() == 2


class TestWhatIsRefused:
    def test_a_target_that_holds_something(self, world: World, target: Database) -> None:
        """Nothing is closed for it."""
        target.upgrade()
        World(replace(world.workspace, database=target))
        with pytest.raises(ConflictError, match="not empty"):
            MoveService(world.workspace).copy(target, step=quiet)
        assert world.workspace.database.revision() == HEAD

    def test_the_database_itself(self, world: World) -> None:
        with pytest.raises(UsageError, match="itself"):
            MoveService(world.workspace).copy(world.workspace.database, step=quiet)

    def test_a_chain_that_does_not_hold(self, world: World, target: Database) -> None:
        """It is found out before anything is closed."""
        with world.workspace.database.write() as connection:
            connection.execute(text("UPDATE audit_events SET actor = 'nobody' WHERE seq = 2"))
        with pytest.raises(CorruptedError, match="chain is broken"):
            MoveService(world.workspace).copy(target, step=quiet)
        assert world.workspace.database.revision() == HEAD


class TestAbort:
    def test_opens_the_source_again(self, world: World, target: Database) -> None:
        """Also after a copy that is complete; it is on record."""
        service = MoveService(world.workspace)
        with pytest.raises(ConflictError, match="not being moved"):
            service.abort()
        service.copy(target, step=quiet)
        assert service.abort()["state"] == "open"
        issued(world.workspace, key_alias="later")
        with world.workspace.database.read() as connection:
            (event, *_) = audit.find_events(
                connection, Conditions(actions={"database_move_aborted"}), limit=1
            )
        assert event["object_type"] == "database"


class TestTheOldDatabase:
    def test_says_so_to_who_reads_it(self, cli: Cli) -> None:
        """On stderr, also with -q, beside an answer that is whole; status has a line and a word for it."""
        key = cli.key("--alias", "a")
        new = {"KEYCTL_TARGET_URL": f"sqlite:///{cli.home}/new.db"}
        first = cli("db", "copy", environment=new, check=True)

        told = [
            cli("list", "-q"),
            cli("verify", "-", "-q", input=key),
            cli("info", "a", "-o", "json"),
            cli("status", "-q"),
        ]

        moved = "warning: the database was moved: all of it is in another one"
        for result in told:
            assert result.exit_code == 0
            assert result.stderr.startswith(moved), result
        assert cli("status", "-o", "json").json["database"]["state"] == "moved"
        assert "moved: all of it is in another one, and closed to writers" in told[-1].stdout
        assert moved not in first.stderr
        there = {"KEYCTL_DATABASE_URL": new["KEYCTL_TARGET_URL"]}
        assert cli("list", environment=there, check=True).stderr == ""
        assert cli("status", "-o", "json", environment=there).json["database"]["state"] == "current"
        refused = cli("block", "a")
        assert (refused.exit_code, refused.stderr.count("was moved")) == (6, 1)

    def test_a_copy_ends_with_what_to_type(self, cli: Cli) -> None:
        """And a second run says that it copied nothing."""
        cli.key("--alias", "a")
        url = f"sqlite:///{cli.home}/new.db"
        (cli.home / "new url").write_text(url, "utf-8")
        first = cli("db", "copy", environment={"KEYCTL_TARGET_URL": url}, check=True)
        again = cli("db", "copy", environment={"KEYCTL_TARGET_URL_FILE": "new url"}, check=True)
        answer = cli("db", "copy", "-o", "json", environment={"KEYCTL_TARGET_URL": url})

        assert f"now name the new database: export KEYCTL_DATABASE_URL={url}, or" in first.stderr
        assert "nothing was copied now" not in first.stderr
        assert "it was moved before; nothing was copied now" in again.stderr
        assert f"export KEYCTL_DATABASE_URL_FILE='{cli.home}/new url', or" in again.stderr
        assert (answer.json["state"], answer.json["copied"]) == ("moved", False)


def test_a_digest_tells_rows_apart_and_not_their_order() -> None:
    """Two tables are equal when they hold the same rows, in whatever order they are read."""
    first, second = (1, "a", None), (1, "b", True)
    assert moving.Contents().with_rows([first]) != moving.Contents().with_rows([second])
    assert moving.Contents().with_rows([first, second]) == moving.Contents().with_rows(
        [second, first]
    )
