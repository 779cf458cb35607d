"""Real servers as people run them: a PostgreSQL primary with a standby, and PgBouncer before one."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from memory import in_memory_or


def wanted(program: str, *more: str) -> str:
    """Return the path of an installed program; without it skip the test, but fail in CI."""
    folders = [str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin")]
    found = shutil.which(
        program, path=os.pathsep.join([*folders, *more, os.environ["PATH"], "/usr/sbin"])
    )
    if found is None:
        if "CI" in os.environ:
            pytest.fail(f"{program} is not installed: run .ci/servers")
        pytest.skip(f"{program} is not installed")
    return found


def _others_may_start() -> bool:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    begun = subprocess.run(
        [*ANOTHER_ACCOUNT, sys.executable, "-c", "import keyctl, pydantic"],
        env={"PATH": os.environ["PATH"]},
        cwd="/",
        capture_output=True,
        check=False,
        timeout=60,
    )
    return begun.returncode == 0


ANOTHER_ACCOUNT = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
# A Python below /root, as pyenv makes it, is closed to everybody else.
FOR_ANOTHER_ACCOUNT = pytest.mark.skipif(
    not _others_may_start(), reason="takes root, and a Python that other accounts may start"
)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until *condition* holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


def answers(port: int) -> bool:
    """Tell whether somebody listens on the port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Postgres:
    """One PostgreSQL server in a folder of its own, run by an account that is not root."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.bin = Path(wanted("initdb")).parent

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.run("pg_ctl", "-D", str(self.folder), "-l", f"{self.folder}.log", "-w", "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it: `fast` as an operator does, `immediate` as a power cut does."""
        self.run("pg_ctl", "-D", str(self.folder), "-m", how, "-w", "stop")

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("pg_ctl", "-D", str(self.folder), "-w", "promote")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the superuser and return what it answers."""
        return self.run("psql", "-XqAt", "-c", statement, self.url(database)).strip()

    def configure(self, **settings: str) -> None:
        """Append settings, which hold from the next start on."""
        with (self.folder / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as its account."""
        command = [str(self.bin / program), *arguments]
        if os.geteuid() == 0:
            command = [
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                *command,
            ]
        log = self.folder.with_suffix(".out")
        with log.open("a+") as out:  # a server that is started keeps it open
            begin = out.seek(0, os.SEEK_END)
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                check=False,
                cwd="/",
                timeout=120,
            )
            out.seek(begin)
            said = out.read()
        assert done.returncode == 0, (command, said)
        return said


@contextmanager
def postgres(port: int | None = None) -> Iterator[Postgres]:
    """Run a primary that can have standbys."""
    with _home() as home:
        server = Postgres(home / "primary", port or free_port())
        server.run("initdb", "-D", str(server.folder), "-U", "postgres", "-A", "trust", "-N")
        server.configure(
            listen_addresses="127.0.0.1",
            port=str(server.port),
            unix_socket_directories="",
            fsync="off",
        )
        server.start()
        try:
            yield server
        finally:
            with suppress(AssertionError):
                server.stop("immediate")


@contextmanager
def standby_of(
    primary: Postgres, *, synchronous: bool = False, port: int | None = None
) -> Iterator[Postgres]:
    """Run a streaming hot standby, with *synchronous* one that every commit waits for."""
    folder = primary.folder.parent / f"standby-{uuid4().hex[:4]}"
    server = Postgres(folder, port or free_port())
    primary.run(
        "pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-D", str(server.folder),
        "-d", f"{primary.url()}?application_name=standby",
    )  # fmt: skip
    server.configure(port=str(server.port))
    server.start()
    if synchronous:
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        primary.sql("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
        primary.sql("SELECT pg_reload_conf()")
    try:
        yield server
    finally:
        with suppress(AssertionError):
            server.stop("immediate")


@contextmanager
def pgbouncer(server: Postgres, *, pool: int = 1) -> Iterator[int]:
    """Run PgBouncer in transaction mode before *server* and yield its port."""
    program, port = wanted("pgbouncer"), free_port()
    folder = server.folder.parent
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {folder}/users.txt\npool_mode = transaction\ndefault_pool_size = {pool}\n"
        "max_client_conn = 100\n"
    )
    for name in ("users.txt", "pgbouncer.ini"):
        (folder / name).chmod(0o644)
    account = ["-u", "postgres"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [program, *account, str(folder / "pgbouncer.ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: answers(port))
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(in_memory_or("/tmp")) / f"keyctl-servers-{uuid4().hex[:8]}"  # noqa: S108  # not below root's own
    home.mkdir(mode=0o755)
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(home, account.pw_uid, account.pw_gid)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a folder that other accounts can reach; pytest closes its own to them again and again."""
    folder = Path("/tmp") / f"keyctl-open-{uuid4().hex[:8]}"  # noqa: S108  # see above
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
