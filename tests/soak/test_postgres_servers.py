"""PostgreSQL as people run it: behind a transaction pooler, with a hot standby, through a failover."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from harness import KEYCTL, Cli
from servers import Postgres, pgbouncer, postgres, standby_of, until

from keyctl.gateway import Verifier

pytestmark = pytest.mark.slow


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
        with standby_of(server) as standby:
            name = str(server_cli.database_url).rpartition("/")[2]
            cli = Cli(server_cli.home, standby.url(name))
            assert cli.verdict(key)["valid"]
            assert [item["key_alias"] for item in cli("list", "-o", "json").json["keys"]] == [
                "early"
            ]
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


@pytest.mark.skipif(os.geteuid() != 0, reason="another account's process is root's to begin")
class TestAnAccountWithoutAnEntry:
    def test_works_with_an_empty_environment(self, server_cli: Cli) -> None:
        """`env -i`, no HOME, a uid that passwd does not know: what runs in many containers."""
        environment = {"KEYCTL_DATABASE_URL": str(server_cli.database_url)}
        account = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        said = ""
        for command in (
            ("generate", "--alias", "a"),
            ("rotate", "a"),
            ("list",),
            ("db", "check"),
            ("audit", "list", "-o", "json"),
        ):
            done = subprocess.run(
                [*account, *KEYCTL, *command],
                env=environment,
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert (command, done.returncode) == (command, 0), done
            said = done.stdout
        assert '"actor": "local:12345@' in said


class TestAFailover:
    def test_is_followed_by_a_url_with_both_servers(self, tmp_path: Path) -> None:
        """What was confirmed with exit 0 exists on the new primary, under the same URL."""
        with postgres() as first, standby_of(first, synchronous=True) as second:
            url = f"postgresql://postgres@127.0.0.1:{first.port},127.0.0.1:{second.port}/postgres"
            cli = Cli(tmp_path / "home", url)
            cli("db", "upgrade", check=True)
            until(lambda: first.sql("SELECT count(*) FROM pg_stat_replication") == "1")
            made: list[tuple[float, str]] = []
            stop = threading.Event()

            def loop() -> None:
                while not stop.is_set():
                    done = cli("generate", "--team", "web")
                    if done.exit_code == 0:
                        made.append((time.monotonic(), done.stdout.strip()))

            cli("team", "create", "web", check=True)
            loops = [threading.Thread(target=loop) for _ in range(2)]
            for thread in loops:
                thread.start()
            until(lambda: len(made) >= 4)
            first.stop("immediate")
            second.promote()
            second.sql("ALTER SYSTEM RESET synchronous_standby_names")
            second.sql("SELECT pg_reload_conf()")
            before = len(made)
            until(lambda: len(made) >= before + 4)
            stop.set()
            for thread in loops:
                thread.join()
            assert all(cli.verdict(key)["valid"] for _, key in made)
            cli("audit", "verify", check=True)
            moments = [moment for moment, _ in made]
            pause = max(b - a for a, b in pairwise(moments))
            print(f"{len(made)} keys, longest pause {pause:.1f} s")  # noqa: T201
