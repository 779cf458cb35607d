"""Run keyctl in processes that begin with everything imported: a server forks one for each run.

What a test sees is a process: its own descriptors, environment, folder, umask and signals.  Only
the second of imports is paid once and not at every run.  What is about imports, the interpreter's
own start or the installed program starts Python anew (`Cli.start`, `subprocess`).

    python forkserver.py SOCKET
"""

import json
import os
import pkgutil
import select
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

# Programs, and what runs inside LiteLLM only.
LEFT_OUT = ("keyctl.__main__", "keyctl.gateway.litellm", "keyctl._alembic")
# Imported late by keyctl.
LATE = (
    *("alembic.command", "psycopg", "rich.live", "sqlalchemy.dialects.postgresql.psycopg"),
    *("boto3.session", "hvac", "kubernetes.client", "kubernetes.config"),
)
# A program of this text asks a server for its run: `keyctl` in a shell, at a tenth of its price.
PROGRAM = """\
#!{python} -IS
import json, os, socket, sys
channel = socket.socket(fileno={channel})
told, telling = socket.socketpair()
os.umask(mask := os.umask(0))
order = {{"program": ["keyctl"], "arguments": sys.argv[1:], "folder": os.getcwd(), "umask": mask}}
with open(os.memfd_create("order"), "w") as file:
    json.dump({{**order, "environment": dict(os.environ)}}, file)
    file.flush()
    socket.send_fds(channel, [b"r"], [0, 1, 2, file.fileno(), telling.fileno()])
telling.close()
channel.detach()
status = int(told.makefile().read().split()[1])
sys.exit(status if status >= 0 else 128 - status)
"""
# Command lines that every run resembles, and how often Python has to see code to specialize it.
WARMING = ("generate -o json", "list", "team list -o json", "audit list")
WARM = 4
DESCRIPTORS = 5  # stdin, stdout, stderr, the order, and where the end is told


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: its status as `subprocess` tells it, and what it printed where."""

    status: int
    stdout: bytes
    stderr: bytes


class ForkServer:
    """The test's end of a server."""

    def __init__(self) -> None:
        from subprocess import Popen

        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )

    def program(self, path: Path) -> int:
        """Write a program that does what keyctl does; return the descriptor that it has to inherit."""
        path.write_text(PROGRAM.format(python=sys.executable, channel=self._channel.fileno()))
        path.chmod(0o755)
        return self._channel.fileno()

    def close(self) -> None:
        """End the server; what it forked lives on."""
        self._channel.close()
        self._process.wait()

    def run(
        self,
        program: Sequence[str],
        arguments: Sequence[str],
        *,
        input: bytes | None,  # noqa: A002  # subprocess's own name
        environment: Mapping[str, str],
        folder: Path,
        timeout: float,
    ) -> Ended:
        """Run a program (``keyctl``, or ``stepper`` with its own arguments) to its end."""
        order = {
            "program": list(program),
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": str(folder),
        }
        outputs = [_Reader(), _Reader()]
        told, telling = socket.socketpair()
        with tempfile.TemporaryFile() as file, told:
            file.write(json.dumps(order).encode())
            file.flush()
            source, feed = (os.open(os.devnull, os.O_RDONLY), None) if input is None else os.pipe()
            theirs = [source, *(item.end for item in outputs), file.fileno(), telling.fileno()]
            socket.send_fds(self._channel, [b"r"], theirs)
            os.close(source)
            telling.close()
            for item in outputs:
                item.start()
            if feed is not None:
                _feed(feed, input or b"")
            status = _status(told, timeout)
        return Ended(status, *(item.text() for item in outputs))


class _Reader(threading.Thread):
    """Reads a pipe until nobody can write to it any more."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._source, self.end = os.pipe()
        self._parts: list[bytes] = []

    def start(self) -> None:
        """Begin, once the other end is somebody else's."""
        os.close(self.end)
        super().start()

    def run(self) -> None:
        """Read."""
        with open(self._source, "rb", buffering=0) as source:
            while part := source.read(65536):
                self._parts.append(part)

    def text(self) -> bytes:
        """Return all that came."""
        self.join()
        return b"".join(self._parts)


def _feed(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb", buffering=0) as pipe:
        rest = memoryview(data)
        while rest:
            rest = rest[pipe.write(rest) :]


def _status(told: socket.socket, timeout: float) -> int:
    """Wait for the end of a run whose process id is told first."""
    told.settimeout(timeout)
    with told.makefile("r") as lines:
        pid = int(lines.readline())
        try:
            return int(lines.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise


@cache
def forkserver() -> ForkServer:
    """Return this process's server."""
    import atexit

    server = ForkServer()
    atexit.register(server.close)
    return server


def serve(channel: socket.socket) -> None:
    """Fork for each order that comes, until nobody can send one; returns in the new process only."""
    poll, running = select.poll(), dict[int, tuple[int, int]]()
    poll.register(channel, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            if number in running:
                poll.unregister(number)
                tell_end(number, *running.pop(number))
                continue
            data, descriptors, _, _ = socket.recv_fds(channel, 1, DESCRIPTORS)
            if not data:
                os._exit(0)
            if (pid := os.fork()) == 0:
                channel.close()
                for handle, (_, telling) in running.items():
                    os.close(handle)
                    os.close(telling)
                take(descriptors)
                return
            *others, telling = descriptors
            for other in others:
                os.close(other)
            tell(telling, pid)
            handle = os.pidfd_open(pid)
            running[handle] = pid, telling
            poll.register(handle, select.POLLIN)


def tell_end(handle: int, pid: int, telling: int) -> None:
    """Tell how a run ended."""
    _, status = os.waitpid(pid, 0)
    tell(telling, os.waitstatus_to_exitcode(status))
    os.close(telling)
    os.close(handle)


def tell(telling: int, number: int) -> None:
    """Tell a number to whoever asked for the run; they may have given up."""
    with suppress(ConnectionError):
        os.write(telling, f"{number}\n".encode())


def take(descriptors: Sequence[int]) -> None:
    """Become the process that the order describes."""
    with open(descriptors[3], "rb", closefd=False) as file:
        file.seek(0)
        order: dict[str, Any] = json.loads(file.read())
    for standard, number in enumerate(descriptors[:3]):
        os.dup2(number, standard)
    for number in descriptors:
        os.close(number)
    # As Python opens them in the locale that the harness sets, C.UTF-8.
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape")  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", errors="surrogateescape")  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # type: ignore[misc]  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1
    )
    os.chdir(order["folder"])
    if "umask" in order:
        os.umask(order["umask"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["keyctl", *order["arguments"]]
    if order["program"] != ["keyctl"]:
        import stepper

        stepper.arm(*order["program"][1:])


def prepare() -> None:
    """Import all that a run may need, so that no run needs to."""
    import keyctl

    for module in pkgutil.walk_packages(keyctl.__path__, "keyctl."):
        if not module.name.startswith(LEFT_OUT):
            import_module(module.name)
    for name in (*LATE, "stepper"):
        import_module(name)
    from keyctl.fields import Strict

    for model in _below(Strict):
        model.model_rebuild()  # they are built when first used, which is a third of a short run
    sys.path.pop(0)  # this folder is the tests', not keyctl's
    warm_up()


def warm_up() -> None:
    """Build every command and run some: what a first run builds and specializes is a fourth of it."""
    from keyctl.cli.app import COMMANDS, Commands, run

    for name in COMMANDS:
        Commands()[name]
    environment, standard = dict(os.environ), [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryDirectory() as home, open(os.devnull, "w") as nowhere:
        os.environ.clear()
        os.environ.update({"HOME": home, "KEYCTL_DATABASE_URL": f"sqlite:///{home}/keyctl.db"})
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
        for line in WARMING * WARM:
            if run(line.split(), closed=frozenset()) != 0:
                raise RuntimeError(line)
        sys.stdout.flush()
        for number, kept in enumerate(standard, start=1):
            os.dup2(kept, number)
            os.close(kept)
        os.environ.clear()
        os.environ.update(environment)


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _below(subclass)


def end_with(program: Callable[[], None]) -> NoReturn:
    """Run *program* and leave as Python does, but for taking apart all that was imported."""
    import atexit

    status = 0
    try:
        program()
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:  # noqa: BLE001  # as Python does
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    import gc

    prepare()
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
    from keyctl.entry import main

    end_with(main)
