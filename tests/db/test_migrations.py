"""The schema: built by migrations that agree with the tables, changed wholly or not at all."""

import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from harness import Cli, Result
from schema_steps import downgrade
from sqlalchemy import (
    CheckConstraint,
    Connection,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    Table,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError

import keyctl
from keyctl.db import migrate, queries, tables
from keyctl.db.database import Database
from keyctl.db.schema import HEAD, current_revision, refuse_foreign
from keyctl.records import Claim, Key, Organization, Record, Secret, Team, User

MAJOR, _, NUMBER = HEAD.partition("_")
NEXT = f"{MAJOR}_{int(NUMBER) + 1:04d}"

ADDS_A_COLUMN = """
    op.add_column("teams", sa.Column("motto", sa.Text()))
"""
FAILS_HALFWAY = """
    op.create_table("half", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("teams", sa.Column("motto", sa.Text()))
    op.execute("INSERT INTO teams (id) VALUES ('nobody')")
"""
REBUILDS_KEYS = """
    with op.batch_alter_table("keys", recreate="auto") as batch:
        batch.create_check_constraint("tpd_is_small", "tpd_limit < 1000000")
        batch.alter_column("duration", type_=sa.String(32))
"""


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    """A copy of the folder with alembic.ini and migrations/, to add migrations to."""
    return copy_of_home(tmp_path / "alembic")


@pytest.fixture(name="empty_url")
def _empty_url(database_url: str, kind: str) -> str:
    """The URL of a database in which keyctl was never installed; the SQLite file is not there."""
    if kind == "sqlite":
        shutil.rmtree(Path(database_url.removeprefix("sqlite:///")).parent)
        return database_url
    with opened(database_url) as database, database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return database_url


@pytest.fixture(name="next_cli")
def _next_cli(cli: Cli, tmp_path: Path) -> Iterator[Cli]:
    """The same environment with the keyctl of tomorrow: one more migration, and a HEAD that says so."""
    program = tmp_path / "tomorrow"
    shutil.copytree(
        Path(keyctl.__file__).parent,
        program / "keyctl",
        ignore=shutil.ignore_patterns("_alembic", "__pycache__"),
    )
    add_migration(copy_of_home(program), ADDS_A_COLUMN)
    schema = program / "keyctl" / "db" / "schema.py"
    schema.write_text(schema.read_text("utf-8").replace(f'"{HEAD}"', f'"{NEXT}"'), "utf-8")
    tomorrow = Cli(cli.home, cli.database_url, fresh=True)
    tomorrow.environment["PYTHONPATH"] = str(program)
    yield tomorrow
    shutil.rmtree(program)


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """A database whose connections are closed afterwards."""
    database = Database(url)
    try:
        yield database
    finally:
        database.engine.dispose()


def copy_of_home(folder: Path) -> Path:
    """Copy alembic.ini and migrations/ into *folder* and return it."""
    source = migrate.alembic_home()
    folder.mkdir(exist_ok=True)
    shutil.copy(source / "alembic.ini", folder)
    shutil.copytree(
        source / "migrations",
        folder / "migrations",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return folder


def add_migration(home: Path, body: str) -> None:
    """Add the migration after HEAD, which does what *body* says."""
    (home / "migrations" / "versions" / f"{NEXT}_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n\n"
        f"revision = {NEXT!r}\ndown_revision = {HEAD!r}\n\n\ndef upgrade() -> None:\n{body}"
    )


def differences(connection: Connection) -> list[Any]:
    """Return what alembic would change to make the schema what the tables say."""
    options = {"compare_type": True, "compare_server_default": True}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, tables.metadata))


def picture(connection: Connection) -> dict[str, Any]:
    """Return the schema as the database reports it."""
    inspector = inspect(connection)
    return {
        name: (
            [(column["name"], str(column["type"])) for column in inspector.get_columns(name)],
            sorted(str(index["name"]) for index in inspector.get_indexes(name)),
        )
        for name in sorted(inspector.get_table_names())
    }


def revision_of(cli: Cli) -> tuple[str, str]:
    """Return the schema's revision as `db status` says, and what it thinks of it."""
    status = cli("db", "status", "-o", "json", check=True).json
    return status["revision"], status["state"]


def mode(path: Path) -> int:
    """Return the permissions of *path*."""
    return stat.S_IMODE(path.stat().st_mode)


class TestTheTablesAndTheMigrations:
    def test_agree(self, database: Database) -> None:
        """Alembic finds nothing to change."""
        with database.engine.connect() as connection:
            assert differences(connection) == []

    def test_agree_on_check_constraints(self, database: Database) -> None:
        """Alembic does not compare these: each is there under its name."""
        wanted = {
            (table.name, item.name)
            for table in tables.metadata.tables.values()
            for item in table.constraints
            if isinstance(item, CheckConstraint)
        }

        with database.engine.connect() as connection:
            inspector = inspect(connection)
            found = {
                (name, item["name"])
                for name in tables.metadata.tables
                for item in inspector.get_check_constraints(name)
            }

        assert found == wanted

    def test_end_at_the_same_revision(self) -> None:
        """HEAD, which is compared without Alembic, is the newest migration, and the only one on top."""
        scripts = ScriptDirectory(str(migrate.alembic_home() / "migrations"))

        assert scripts.get_heads() == [HEAD]

    def test_every_revision_sorts(self) -> None:
        """Revisions are MAJOR_NUMBER, so that newer and older can be told as text."""
        scripts = ScriptDirectory(str(migrate.alembic_home() / "migrations"))
        names = [script.revision for script in scripts.walk_revisions()]

        assert all(re.fullmatch(r"[0-9]_[0-9]{4}", name) for name in names)
        assert names == sorted(names, reverse=True)

    def test_go_down_and_up_again(self, database: Database) -> None:
        """Every migration can be undone, down to nothing, and done again."""
        downgrade(database, "base")
        with database.engine.connect() as connection:
            left = inspect(connection).get_table_names()

        database.upgrade()

        assert left == ["alembic_version"]
        with database.engine.connect() as connection:
            assert differences(connection) == []

    @pytest.mark.parametrize(
        ("record", "table"),
        [
            (Organization, tables.organizations),
            (User, tables.users),
            (Team, tables.teams),
            (Key, tables.keys),
            (Secret, tables.secrets),
            (Claim, tables.claims),
            (queries.RequestId, tables.request_ids),
        ],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_records_have_the_columns(self, record: type[Record], table: Table) -> None:
        """A record's fields are its table's columns, no more and no less."""
        assert {item.name for item in fields(record)} == set(table.columns.keys())

    def test_every_constraint_is_named_in_the_tables(self) -> None:
        """A constraint without a name cannot be altered on SQLite."""
        nameless = [
            (table.name, item)
            for table in tables.metadata.tables.values()
            for item in table.constraints
            if isinstance(item, (CheckConstraint, ForeignKeyConstraint, PrimaryKeyConstraint))
            and item.name is None
        ]

        assert nameless == []

    def test_every_constraint_is_named_in_the_database(self, database: Database) -> None:
        """What the migrations made has names too."""
        with database.engine.connect() as connection:
            inspector = inspect(connection)
            names = {
                (table, kind, item.get("name"))
                for table in tables.metadata.tables
                for kind, items in (
                    ("primary key", [inspector.get_pk_constraint(table)]),
                    ("foreign key", inspector.get_foreign_keys(table)),
                    ("unique", inspector.get_unique_constraints(table)),
                    ("check", inspector.get_check_constraints(table)),
                )
                for item in items
            }

        assert [item for item in names if not item[2]] == []


class TestAMigrationThatFails:
    def test_leaves_the_schema_as_it_was(self, database: Database, home: Path) -> None:
        """Neither a table nor a column nor the version is left of it."""
        add_migration(home, FAILS_HALFWAY)
        with database.engine.connect() as connection:
            before = picture(connection)

        with pytest.raises(DBAPIError):
            migrate.upgrade(database.engine, home=home)

        with database.engine.connect() as connection:
            assert (picture(connection), current_revision(connection)) == (before, HEAD)
            assert differences(connection) == []

    def test_leaves_a_new_database_empty(
        self, empty_url: str, home: Path, kind: str, tmp_path: Path
    ) -> None:
        """A first installation that fails installs nothing."""
        add_migration(home, FAILS_HALFWAY)
        url = f"sqlite:///{tmp_path / 'new.db'}" if kind == "sqlite" else empty_url

        with opened(url) as database:
            with pytest.raises(DBAPIError):
                migrate.upgrade(database.engine, home=home)

            with database.engine.connect() as connection:
                assert inspect(connection).get_table_names() == []


class TestRebuildingATable:
    def test_keeps_its_children(self, cli: Cli, database: Database, home: Path, kind: str) -> None:
        """SQLite alters `keys` by dropping it; the secrets that refer to it stay, and authenticate."""
        key = cli.key("--alias", "ci")
        add_migration(home, REBUILDS_KEYS)

        migrate.upgrade(database.engine, home=home)

        with database.engine.connect() as connection:
            children = connection.execute(text("SELECT count(*) FROM secrets")).scalar()
            dangling = (
                connection.execute(text("PRAGMA foreign_key_check")).all()
                if kind == "sqlite"
                else []
            )
        assert (children, dangling) == (1, [])
        assert cli.verdict(key)["valid"]

    def test_leaves_foreign_keys_on(self, database: Database, home: Path) -> None:
        """Afterwards a child without a parent is refused as before."""
        add_migration(home, REBUILDS_KEYS)
        migrate.upgrade(database.engine, home=home)
        orphan = text(
            "INSERT INTO team_members (team_id, user_id, role, created_at)"
            " VALUES ('no', 'no', 'user', '2030-01-01')"
        )

        with (
            pytest.raises(DBAPIError, match=r"(?i)foreign key"),
            database.engine.begin() as connection,
        ):
            connection.execute(orphan)


class TestAnOlderSchema:
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_is_copied_and_migrated_by_the_first_write_on_sqlite(
        self, cli: Cli, next_cli: Cli
    ) -> None:
        """The copy is NAME.bak-REVISION with mode 0600, and holds what was there."""
        key = cli.key("--alias", "ci")
        path = Path(str(cli.database_url).removeprefix("sqlite:///"))
        copy = path.with_name(f"{path.name}.bak-{HEAD}")

        next_cli("team", "create", "web", check=True)

        with closing(sqlite3.connect(copy)) as connection:
            version = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            aliases = connection.execute("SELECT key_alias FROM keys").fetchall()
        assert (mode(copy), version, aliases) == (0o600, [(HEAD,)], [("ci",)])
        assert revision_of(next_cli) == (NEXT, "current")
        assert next_cli.verdict(key)["valid"]

    def test_is_not_migrated_by_a_reader(self, cli: Cli, next_cli: Cli) -> None:
        """Reading commands change no schema: they say what to run."""
        cli.key("--alias", "ci")

        result = next_cli("list")

        assert (result.exit_code, result.stdout) == (6, "")
        assert "hint: run: keyctl db upgrade" in result.stderr
        assert revision_of(cli) == (HEAD, "current")

    @pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
    def test_is_only_changed_by_db_upgrade_on_postgresql(self, cli: Cli, next_cli: Cli) -> None:
        """A writing command is exit 6 and names the command; after that it works."""

        refused = next_cli("team", "create", "web")
        before = revision_of(cli)
        upgraded = next_cli("db", "upgrade", "-o", "json", check=True).json
        accepted = next_cli("team", "create", "web")

        assert (refused.exit_code, refused.stdout) == (6, "")
        assert "hint: run: keyctl db upgrade" in refused.stderr
        assert before == (HEAD, "current")
        assert (upgraded["before"], upgraded["after"]) == (HEAD, NEXT)
        assert accepted.exit_code == 0


class TestANewerSchema:
    def test_can_be_read_but_not_written(self, cli: Cli, next_cli: Cli) -> None:
        """Today's keyctl verifies keys in tomorrow's schema, and changes nothing there."""
        key = cli.key("--alias", "ci")
        next_cli("db", "upgrade", check=True)

        verdict, refused = cli.verdict(key), cli("team", "create", "web")
        back = cli("db", "upgrade")

        assert verdict["valid"]
        assert (refused.exit_code, refused.stdout) == (6, "")
        assert "newer than this keyctl" in refused.stderr
        assert back.exit_code == 6
        assert revision_of(cli) == (NEXT, "newer")


class TestNoSchema:
    @pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
    def test_is_refused_on_postgresql(self, cli: Cli, empty_url: str) -> None:
        """A writing command on an empty server is exit 6 with the command to run, and makes nothing."""

        results = [cli("generate"), cli("team", "create", "web"), cli("list")]

        for result in results:
            assert (result.exit_code, result.stdout) == (6, "")
            assert "hint: run: keyctl db upgrade" in result.stderr
        with opened(empty_url) as database:
            assert database.revision() is None

    def test_is_created_by_racing_upgrades(self, cli: Cli, empty_url: str) -> None:
        """Six at once: each ends well, and the schema is there once."""
        results = cli.race([("db", "upgrade")] * 6)

        assert [result.exit_code for result in results] == [0] * 6, results
        with opened(empty_url) as database, database.engine.connect() as connection:
            assert differences(connection) == []

    def test_that_another_upgrade_has_made_meanwhile_is_keyctl_s_own(
        self, database: Database
    ) -> None:
        """Of two that saw none the slower one finds tables, which are no other application's."""
        with database.engine.connect() as connection:
            refuse_foreign(connection, database.shown)

    def test_is_created_by_the_first_write_on_sqlite(self, bare_cli: Cli) -> None:
        """The file is 0600 in a folder 0700, whatever the umask, in WAL mode; so are its companions."""
        folder = bare_cli.home / ".local" / "share" / "keyctl"

        before = bare_cli("list")
        made = created_with_umask(bare_cli, 0o000)

        assert (before.exit_code, before.stdout) == (6, "")
        assert made.exit_code == 0
        path = folder / "keyctl.db"
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("SELECT count(*) FROM keys").fetchone() == (1,)
            modes = {item.name: mode(item) for item in folder.iterdir() if item.is_file()}
        assert mode(folder) == 0o700
        assert set(modes) >= {"keyctl.db", "keyctl.db-wal"}
        assert set(modes.values()) == {0o600}


def created_with_umask(cli: Cli, umask: int) -> Result:
    """Generate a key under a *umask*."""
    before = os.umask(umask)
    try:
        return cli("generate")
    finally:
        os.umask(before)


def test_the_keyctl_of_tomorrow_is_another_program(next_cli: Cli) -> None:
    """The tests above would show nothing if the copy were not the one that runs."""
    shown = next_cli("db", "status", "-o", "json", check=True).json

    assert shown["wanted"] == NEXT
