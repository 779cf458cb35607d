"""PostgreSQL as people run it: behind a transaction pooler, with a hot standby, through a failover."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from harness import KEYCTL, Cli
from servers import (
    ANOTHER_ACCOUNT,
    FOR_ANOTHER_ACCOUNT,
    Postgres,
    free_port,
    pgbouncer,
    postgres,
    standby_of,
    until,
)

from keyctl.errors import UnavailableError
from keyctl.gateway import Verifier

pytestmark = pytest.mark.slow
LOOPS = int(os.environ.get("KEYCTL_FAILOVER_LOOPS", "8"))
ROUNDS = 3
REPLICATING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(name="server_cli")
def _server_cli(server: Postgres, tmp_path: Path) -> Cli:
    name = f"k{time.monotonic_ns()}"
    server.sql(f"CREATE DATABASE {name}")
    cli = Cli(tmp_path / "home", server.url(name))
    cli("db", "upgrade", check=True)
    return cli


class TestATransactionPooler:
    def test_serves_commands_and_verifiers_and_others_are_left_alone(
        self, server: Postgres, server_cli: Cli
    ) -> None:
        """With one server connection for all, no setting of keyctl's outlives its transaction."""
        with pgbouncer(server) as port:
            name = str(server_cli.database_url).rpartition("/")[2]
            url = f"postgresql://postgres@127.0.0.1:{port}/{name}?pgbouncer=true&connection_limit=1"
            cli = Cli(server_cli.home, url)
            key = cli.key("--alias", "pooled")
            cli("rotate", "pooled", check=True)
            cli("audit", "verify", check=True)
            with Verifier(url, database_timeout=1.0) as verifier:
                assert verifier.verify(key).valid
                with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/{name}") as other:
                    shown = other.execute(
                        "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
                        " current_setting('search_path'), pg_sleep(1.5)"
                    ).fetchone()
                assert shown is not None
                assert shown[:3] == ("0", "0", '"$user", public')
                assert verifier.verify(key).valid


class TestAHotStandby:
    def test_is_read_and_not_written(self, server: Postgres, server_cli: Cli) -> None:
        """Reading works there; writing is exit 6 and names the primary."""
        key = server_cli.key("--alias", "early")
        limited = server_cli.key("--max-budget", "1000000")
        with standby_of(server) as standby:
            name = str(server_cli.database_url).rpartition("/")[2]
            cli = Cli(server_cli.home, standby.url(name))
            assert cli.verdict(key)["valid"]
            listed = cli("list", "--alias", "early", "-o", "json").json["keys"]
            assert [item["key_alias"] for item in listed] == ["early"]
            cli("audit", "verify", check=True)
            for command in (
                ("generate",),
                ("rotate", "early"),
                ("rotate", "--due"),
                ("update", "early", "--max-budget", "1"),
                ("delete", "early", "--yes"),
                ("events", "deliver"),
                ("db", "upgrade"),
            ):
                done = cli(*command, "-o", "json")
                if command == ("db", "upgrade"):  # nothing to do
                    assert done.exit_code == 0
                    continue
                assert (command, done.exit_code) == (command, 6)
                assert "use the primary" in done.error["hint"]
            with Verifier(standby.url(name)) as verifier:
                assert verifier.verify(key).valid
                with pytest.raises(UnavailableError, match="standby"):
                    verifier.verify(limited)


@FOR_ANOTHER_ACCOUNT
class TestAnAccountWithoutAnEntry:
    def test_works_with_an_empty_environment(self, server_cli: Cli) -> None:
        """`env -i`, no HOME, a uid that passwd does not know: what runs in many containers."""
        environment = {"KEYCTL_DATABASE_URL": str(server_cli.database_url)}
        said = ""
        for command in (
            ("generate", "--alias", "a"),
            ("rotate", "a"),
            ("list",),
            ("db", "check"),
            ("audit", "list", "-o", "json"),
        ):
            done = subprocess.run(
                [*ANOTHER_ACCOUNT, *KEYCTL, *command],
                env=environment,
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert (command, done.returncode) == (command, 0), done
            said = done.stdout
        assert '"actor": "local:12345@' in said


class TestFailovers:
    def test_under_load_lose_nothing_that_was_confirmed(self, tmp_path: Path) -> None:
        """Three rounds: what ended with exit 0 exists and is valid, and so is what every sink holds.

        The URL names all servers; the standby is synchronous, so that a commit is on both.
        """
        ports = [free_port() for _ in range(ROUNDS + 1)]
        url = f"postgresql://postgres@{','.join(f'127.0.0.1:{port}' for port in ports)}/postgres"
        cli = Cli(tmp_path / "home", url)
        folder = tmp_path / "keys"
        folder.mkdir(mode=0o700)
        cli.configure(f'bcrypt_cost = 4\n[sinks.f]\ntype = "file"\npath = "{folder}/{{alias}}"\n')
        with ExitStack() as stack:
            primary = stack.enter_context(postgres(ports[0]))
            cli("db", "upgrade", check=True)
            for number in range(5):
                cli(
                    *("generate", "--alias", f"k{number}", "--deliver", "f"),
                    *("--auto-rotate", "--rotation-interval", "1s"),
                    check=True,
                )
            load = Load(cli)
            for port in ports[1:]:
                standby = stack.enter_context(standby_of(primary, synchronous=True, port=port))
                until(lambda at=primary: at.sql(REPLICATING) == "1")  # type: ignore[misc]
                load.goes_on(4)
                primary.stop("immediate")
                standby.promote()
                # What the base backup brought along would wait for a standby that is not there yet.
                standby.sql("ALTER SYSTEM RESET synchronous_standby_names")
                standby.sql("SELECT pg_reload_conf()")
                load.goes_on(4)
                primary = standby
            load.stop()
            cli("rotate", "--due")
            assert all(cli.verdict(key)["valid"] for _, key in load.made)
            for number in range(5):
                assert cli.verdict((folder / f"k{number}").read_text().strip())["valid"]
            cli("audit", "verify", "--state", check=True)
        moments = [moment for moment, _ in load.made]
        pause = max(after - before for before, after in pairwise(moments))
        print(f"{len(moments)} keys, longest pause {pause:.1f} s")  # noqa: T201


class Load:
    """Loops of generate, one of rotate --due, and a verifier that asks for the newest key."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.made: list[tuple[float, str]] = []
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._generate) for _ in range(LOOPS)),
            threading.Thread(target=self._rotate),
            threading.Thread(target=self._verify),
        ]
        for thread in self._threads:
            thread.start()

    def goes_on(self, count: int) -> None:
        """Wait until so many keys more were made."""
        before = len(self.made)
        until(lambda: len(self.made) >= before + count, seconds=180)

    def stop(self) -> None:
        """End all loops; the verifier has refused no key that works."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert self.refused == []

    def _generate(self) -> None:
        while not self._stop.is_set():
            done = self.cli("generate")
            if done.exit_code == 0:
                self.made.append((time.monotonic(), done.stdout.strip()))

    def _rotate(self) -> None:
        while not self._stop.is_set():
            self.cli("rotate", "--due", "--grace", "1h")

    def _verify(self) -> None:
        with Verifier(str(self.cli.database_url)) as verifier:
            while not self._stop.wait(0.05):
                if not self.made:
                    continue
                _, key = self.made[0]
                with suppress(UnavailableError):
                    if not (verdict := verifier.verify(key)).valid:
                        self.refused.append(str(verdict.reason))
