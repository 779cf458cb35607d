"""The program as a script runs it: in a process of its own, with an environment of its own.

Most runs are forked from a process that has imported everything (forkserver.py), which costs a
twentieth.  What an interpreter settles as it starts (its own environment variables, the umask) is
left to a new one.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forkserver import forkserver

from keyctl.db.database import Database
from keyctl.db.queries import secrets_of

KEYCTL = (sys.executable, "-m", "keyctl")
STEPPER = (sys.executable, str(Path(__file__).with_name("stepper.py")))
TIMEOUT = 120
# By it `coverage` measures new processes too.
MEASURED = ("COVERAGE_PROCESS_CONFIG",)
# What Python reads from the environment as it starts, and never again.
AT_START = frozenset(
    ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS", "TZ")
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left: its status and what it printed where."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Return what stdout holds as JSON."""
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        """Return the error object that stderr ends with."""
        return json.loads(self.stderr.strip().splitlines()[-1])["error"]


class Cli:
    """Runs keyctl.  `home` holds its configuration, state and, without a URL, its data.

    *fresh* runs start a new Python each, which imports keyctl anew.  `inside` runs them in the test's
    own process, where a process of their own is not the point.
    """

    inside: "Callable[..., Result] | None" = None

    def __init__(self, home: Path, database_url: str | None, *, fresh: bool = False) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home = home
        self.config = home / "config.toml"
        self.configure("bcrypt_cost = 4\n")
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "KEYCTL_CONFIG": str(self.config),
            **{name: os.environ[name] for name in MEASURED if name in os.environ},
            **({"KEYCTL_DATABASE_URL": database_url} if database_url else {}),
        }
        self.database_url = database_url
        self._fresh = fresh

    def configure(self, text: str) -> None:
        """Write the configuration file; keep `bcrypt_cost = 4` in it for speed."""
        self.config.write_text(text)
        self.config.chmod(0o600)

    def __call__(
        self,
        *arguments: str,
        input: str | bytes | None = None,  # noqa: A002  # subprocess's own name
        environment: Mapping[str, str] | None = None,
        check: bool = False,
        **options: Any,
    ) -> Result:
        """Run a command line to its end; *check* makes a failure an error."""
        data = input.encode() if isinstance(input, str) else input
        if self._fresh or options or AT_START.intersection(environment or {}):
            done = subprocess.run(
                [*KEYCTL, *arguments],
                input=data,
                stdin=subprocess.DEVNULL if data is None else None,
                capture_output=True,
                timeout=TIMEOUT,
                env={**self.environment, **(environment or {})},
                cwd=self.home,
                check=False,
                **options,
            )
            result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        elif self.inside and self._may_be_inside(environment or {}):
            values = {**self.environment, **(environment or {})}
            result = self.inside(*arguments, input=data, environment=values, folder=self.home)
        else:
            result = self._forked(["keyctl"], arguments, data, environment or {})
        if check and result.exit_code != 0:
            raise AssertionError((arguments, result))
        return result

    def _may_be_inside(self, environment: Mapping[str, str]) -> bool:
        """Tell whether a run leaves nothing in this process: no module of a test's own, no second thread."""
        is_alone = threading.current_thread() is threading.main_thread()
        return is_alone and "PYTHONPATH" not in {**self.environment, **environment}

    def shell(self, line: str) -> Result:
        """Run a line of bash, which may redirect and pipe; `$KEYCTL` in it is the program."""
        done = subprocess.run(
            ["bash", "-c", line],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            env={**self.environment, "KEYCTL": " ".join(KEYCTL)},
            cwd=self.home,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a command line and return its process."""
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        }
        return subprocess.Popen(
            [*KEYCTL, *arguments],
            env={**self.environment, **(environment or {})},
            cwd=self.home,
            **options,
        )

    def killed(self, step: str, *arguments: str) -> str:
        """Run a command line until it is killed at *step* of stepper.py; return its stdout."""
        result = self.stepped(step, "SIGKILL", *arguments)
        assert result.exit_code == -signal.SIGKILL, (step, arguments, result)
        return result.stdout

    def stepped(self, step: str, signal_name: str, *arguments: str) -> Result:
        """Run a command line that gets a signal at *step* of stepper.py."""
        return self._forked(["stepper", step, signal_name], arguments, None, {})

    def _forked(
        self,
        program: Sequence[str],
        arguments: Sequence[str],
        data: bytes | None,
        environment: Mapping[str, str],
    ) -> Result:
        ended = forkserver().run(
            program,
            arguments,
            input=data,
            environment={**self.environment, **environment},
            folder=self.home,
            timeout=TIMEOUT,
        )
        return Result(ended.status, ended.stdout.decode(), ended.stderr.decode())

    def race(self, commands: Sequence[Sequence[str]]) -> list[Result]:
        """Run all *commands* at once and return what each left."""
        with ThreadPoolExecutor(len(commands)) as pool:
            return list(pool.map(lambda command: self(*command), commands))

    def key(self, *arguments: str) -> str:
        """Generate a key and return its key string."""
        return self("generate", *arguments, check=True).stdout.strip()

    def verdict(self, key: str) -> Any:
        """Return what verify says of *key*."""
        return self("verify", "-", "-o", "json", input=key).json

    def execute(self, statement: str) -> None:
        """Change the database behind keyctl's back, as only a test may."""
        database = Database(str(self.database_url))
        with database.engine.begin() as connection:
            connection.exec_driver_sql(statement)
        database.engine.dispose()

    def secrets(self) -> dict[str, dict[str, str]]:
        """Return the states of all secrets by id, by key."""
        database = Database(str(self.database_url))
        with database.read() as connection:
            key_ids = connection.exec_driver_sql("SELECT id FROM keys").scalars().all()
            found = {
                key_id: {secret.id: secret.state for secret in secrets_of(connection, key_id)}
                for key_id in key_ids
            }
        database.engine.dispose()
        return found
