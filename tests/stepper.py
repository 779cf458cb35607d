"""Run keyctl until a named step, and end there as a power cut would: SIGKILL, nothing cleaned up.

    python stepper.py STEP [SIGNAL] -- ARGUMENTS…

The product is not changed for it: the functions at its seams are wrapped here, from outside.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.default import DefaultDialect

import keyctl.services.delivery.protocol
import keyctl.services.import_litellm.service
from keyctl.db import queries
from keyctl.entry import main
from keyctl.hooks.webhook import Webhook
from keyctl.services.delivery.protocol import Delivery
from keyctl.sinks.command import CommandSink
from keyctl.sinks.file import FileSink
from keyctl.sinks.stdout import StdoutSink

SINKS = (StdoutSink, FileSink, CommandSink)
MODULES = (keyctl.services.delivery.protocol, keyctl.services.import_litellm.service)


NUMBER = signal.SIGKILL
LEFT = 1


def is_time() -> bool:
    """Count one occurrence of the step, and tell whether it is the one to die at."""
    global LEFT  # noqa: PLW0603  # a process dies once
    LEFT -= 1
    return LEFT == 0


def die() -> None:
    """End like a power cut, when the step has come as often as was asked for."""
    if is_time():
        os.kill(os.getpid(), NUMBER)


def before(owner: Any, name: str) -> None:
    """Die when the function is called."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        die()
        return original(*args, **options)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str) -> None:
    """Die when the function has returned."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        die()
        return result

    setattr(owner, name, wrapped)


def calls_of(*names: str) -> list[str]:
    """Return a list that grows with each call of one of these queries."""
    calls: list[str] = []
    for name in names:
        noted(name, calls)
    return calls


def noted(name: str, calls: list[str]) -> None:
    """Add to *calls* whenever this query is called."""
    original: Callable[..., Any] = getattr(queries, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return original(*args, **options)

    setattr(queries, name, wrapped)


def before_commit(*names: str) -> None:
    """Die in the first transaction that calls such a query, when all is written but not committed."""
    calls = calls_of(*names)

    @event.listens_for(Engine, "commit")
    def _(_connection: Connection) -> None:
        if calls:
            die()


def half_delivered() -> None:
    """Die when half of the bytes are on stdout, the file is not in place, or the command runs."""
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if descriptor == 1:
            first = write(descriptor, data[: len(data) // 2])
            die()
            return first
        return write(descriptor, data)

    os.write = half  # type: ignore[assignment]
    before(FileSink, "_put_in_place")
    before(subprocess.Popen, "wait")


def child_killed_too() -> None:
    """Die together with the command that has the key."""

    def wait(process: "subprocess.Popen[bytes]", timeout: float | None = None) -> int:
        if is_time():
            os.killpg(process.pid, signal.SIGKILL)
            os.kill(os.getpid(), NUMBER)
        return original(process, timeout)

    original = subprocess.Popen.wait
    subprocess.Popen.wait = wait  # type: ignore[assignment]


def before_stage() -> None:
    """Die when nothing is written yet."""
    before(Delivery, "stage")


def staged() -> None:
    """Die when the key is stored and nothing of it has left the process."""
    for sink in SINKS:
        before(sink, "deliver")


def delivered() -> None:
    """Die when the sink has the whole key and nothing is confirmed."""
    for sink in SINKS:
        after(sink, "deliver")


def confirmed() -> None:
    """Die when the confirmation is committed, and not read back yet."""
    for module in MODULES:
        before(module, "check_written")


def checked() -> None:
    """Die when all is done but for saying so."""
    for module in MODULES:
        after(module, "check_written")


STEPS: dict[str, Callable[[], None]] = {
    "before_stage": before_stage,
    "stage_uncommitted": lambda: before_commit("insert_secret"),
    "staged": staged,
    "half_delivered": half_delivered,
    "delivered": delivered,
    "confirm_uncommitted": lambda: before_commit("release_claim", "release_claims"),
    "confirmed": confirmed,
    "checked": checked,
}


def answer_lost() -> None:
    """Commit the confirm, and lose the connection before its answer arrives."""
    calls = calls_of("release_claim", "release_claims")
    original: Callable[..., None] = DefaultDialect.do_commit
    lost: list[str] = []

    def do_commit(dialect: Any, connection: Any) -> None:
        original(dialect, connection)
        if calls and not lost:
            lost.append("the first answer")
            error = dialect.loaded_dbapi.OperationalError("the connection was lost")
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]


WITH_A_COMMAND = {**STEPS, "child_killed_too": child_killed_too}
WITH_A_WEBHOOK: dict[str, Callable[[], None]] = {
    "sending": lambda: before(Webhook, "send"),
    "sent": lambda: after(Webhook, "send"),
}


def any_step() -> None:
    """Die before or after a commit, a delivery, a name that a file gets, a command's end, or the reading back."""
    commit: Callable[..., None] = DefaultDialect.do_commit

    def do_commit(dialect: Any, connection: Any) -> None:
        die()
        commit(dialect, connection)
        die()

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
    for sink in (FileSink, CommandSink):
        before(sink, "deliver")
        after(sink, "deliver")
    for name in ("link", "rename"):
        before(os, name)
    before(subprocess.Popen, "wait")
    for module in MODULES:
        before(module, "check_written")


def arm(step: str, signal_name: str = "SIGKILL") -> None:
    """Let this process get the signal when it is at the step; `step:N` is the Nth time that it is there."""
    global NUMBER, LEFT  # noqa: PLW0603  # a process dies once
    NUMBER = getattr(signal, signal_name)
    name, _, times = step.partition(":")
    LEFT = int(times or 1)
    steps = {**WITH_A_COMMAND, **WITH_A_WEBHOOK, "answer_lost": answer_lost, "any": any_step}
    steps[name]()


if __name__ == "__main__":
    split = sys.argv.index("--")
    arm(*sys.argv[1:split])
    sys.argv[1:] = sys.argv[split + 1 :]
    main()
