"""Real databases built by the real migrations, and the real program in a process of its own."""

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from clock import Clock
from databases import Postgres, begin_run, empty, end_run, postgres_of_the_run
from harness import Cli
from inside import Inside
from litellm_tables import LiteLLM
from memory import in_memory_or
from migrating import RunImport

from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.db.litellm_source import opened
from keyctl.policy.facts import Caller
from keyctl.services.import_litellm.report import ImportLine, ImportOrder
from keyctl.services.import_litellm.service import ImportService
from keyctl.services.workspace import Workspace

SOAK = Path(__file__).with_name("soak")
# Whoever reads of a failure in CI's output can have it again.
hypothesis.settings.register_profile("keyctl", print_blob=True)
hypothesis.settings.load_profile("keyctl")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave kills, races, large tables and the real proxy out, unless the command line names them."""
    named = (Path(item.partition("::")[0]).absolute() for item in config.args)
    return (
        collection_path == SOAK and not any(SOAK in (path, *path.parents) for path in named)
    ) or None


def pytest_configure(config: pytest.Config) -> None:
    """Begin a run; workers join the one of the process that started them."""
    if not hasattr(config, "workerinput"):
        begin_run()
        # A shell starts what runs in its background deaf to interrupts, and so would be what is tested.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # SQLite waits for the disk at each commit, of which there are tens of thousands.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", in_memory_or(tempfile.gettempdir()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of rules that are judged without SQL, try every fifth case on PostgreSQL too."""
    seen = Counter[str]()
    left_out = []
    for item in items:
        if item.get_closest_marker("sqlite_mostly") and _kind_of(item) == "postgresql":
            name = item.nodeid.partition("[")[0]
            if seen[name] % 5:
                left_out.append(item)
            seen[name] += 1
    if left_out:
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=left_out)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run when all workers have ended."""
    if not hasattr(config, "workerinput"):
        end_run()


def _kind_of(item: pytest.Item) -> str | None:
    """Return the kind of database that a test is tried on."""
    call = getattr(item, "callspec", None)
    return None if call is None else call.params.get("kind")


@pytest.fixture(scope="session", name="postgres")
def _postgres() -> Postgres:
    """The run's PostgreSQL server."""
    return postgres_of_the_run()


@pytest.fixture(scope="session", name="postgres_url")
def _postgres_url(postgres: Postgres) -> str:
    """The URL of the server's maintenance database."""
    return postgres.url


@pytest.fixture(scope="session", name="template")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, to be copied for each test."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.engine.dispose()
    return path


@pytest.fixture(name="kind", params=["sqlite", "postgresql"])
def _kind(request: pytest.FixtureRequest) -> str:
    """Which kind of database; a test that asks for one runs on both."""
    return str(request.param)


@pytest.fixture(name="database_url")
def _database_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty, migrated database of the test's own."""
    if kind == "sqlite":
        path = tmp_path / "data" / "keyctl.db"
        path.parent.mkdir(mode=0o700)
        shutil.copy(request.getfixturevalue("template"), path)
        yield f"sqlite:///{path}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session", name="common_url")
def _common_url(postgres: Postgres) -> Iterator[str]:
    """The URL of a PostgreSQL database for tests that follow each other in it."""
    with postgres.database() as url:
        yield url


@pytest.fixture(name="emptied_url")
def _emptied_url(kind: str, request: pytest.FixtureRequest) -> str:
    """What `database_url` is, for many short tests: PostgreSQL takes longer to make a database than to empty one."""
    if kind == "sqlite":
        return str(request.getfixturevalue("database_url"))
    url: str = request.getfixturevalue("common_url")
    empty(url)
    return url


@pytest.fixture(name="clock")
def _clock() -> Clock:
    """A clock that the test moves."""
    return Clock()


@pytest.fixture(name="database")
def _database(database_url: str, clock: Clock) -> Iterator[Database]:
    """The test's database, with the test's clock."""
    database = Database(database_url, clock=clock)
    yield database
    database.engine.dispose()


@pytest.fixture(name="workspace")
def _workspace(database: Database, tmp_path: Path) -> Workspace:
    """What services work with: the local operator, cheap hashes, a moving clock."""
    return Workspace(
        database=database,
        settings=Settings(bcrypt_cost=4),
        caller=Caller(actor="local:tester@host", role="proxy_admin"),
        runs_folder=tmp_path / "runs",
    )


@pytest.fixture(name="cli")
def _cli(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Cli:
    """The installed program, on the test's database, in an environment of its own."""
    cli = Cli(tmp_path / "home", database_url)
    if request.node.get_closest_marker("in_process"):
        cli.inside = Inside(request.getfixturevalue("capfd"), {})
    return cli


@pytest.fixture(name="inside")
def _inside(cli: Cli, capfd: pytest.CaptureFixture[str]) -> Inside:
    """The program in this process, on the same database and configuration as `cli`."""
    return Inside(capfd, cli.environment)


@pytest.fixture(name="bare_cli")
def _bare_cli(tmp_path: Path) -> Cli:
    """The installed program on a fresh machine: the embedded default, nothing there yet."""
    return Cli(tmp_path / "home", None)


@pytest.fixture(name="litellm")
def _litellm(postgres: Postgres) -> Iterator[LiteLLM]:
    """LiteLLM's tables in a PostgreSQL database of their own."""
    with postgres.database(migrated=False) as url:
        source = LiteLLM(url)
        yield source
        source.engine.dispose()


@pytest.fixture(name="run")
def _run(workspace: Workspace, litellm: LiteLLM) -> RunImport:
    """Import from the test's LiteLLM and return the lines."""

    def run(workspace: Workspace = workspace, **order: Any) -> list[ImportLine]:
        with opened(litellm.url) as source:
            return list(ImportService(workspace).run(source, ImportOrder(**order)))

    return run
