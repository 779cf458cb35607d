"""Hand a key string to a command: an argument list, never a shell."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from keyctl.errors import DeliveryError, UsageError
from keyctl.sinks.base import Format, NotTakenError, Parcel, Target, UnknownError, rendered
from keyctl.sinks.templates import expand, first_placeholder, is_program

_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_PIPE: Final = 64 * 1024
# What was started and has not been seen to end.  For the whole process, because whoever waits for
# one may be a thread that was given up.
_running: set[subprocess.Popen[bytes]] = set()


class CommandSink:
    """Runs a command with the key on its standard input; only exit 0 within the time-out is *taken*."""

    shows_answer = False

    def __init__(
        self, name: str, argv: Sequence[str], *, timeout: timedelta, form: Format, env_var: str
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._templates = argv
        self._argv: list[str] = []
        self._form = form
        self._env_var = env_var

    def check(self, target: Target) -> None:
        """Fill in the arguments and look for the program.

        Raises:
            UsageError: A template names what this key does not have, or becomes an option.
            DeliveryError: There is no such program.
        """
        self._argv = [self._argument(part, target) for part in self._templates]
        if fault := fault_of_program(self._argv[0]):
            what, hint = fault
            raise DeliveryError(f"sink {self.name}: {what}", hint=hint)

    def deliver(self, parcel: Parcel) -> None:
        """Run the command with the key on its standard input."""
        hand_over(
            f"sink {self.name}",
            self._argv,
            rendered(parcel, self._form, env_var=self._env_var),
            timeout=self.timeout,
            lock=parcel.lock,
            environment=pruned_environment(),
        )

    def _argument(self, template: str, target: Target) -> str:
        argument = expand(template, target)
        if argument.startswith("-") and not template.startswith("-"):
            # Of the rest of the argument nothing is shown: a token may stand there.
            name = first_placeholder(template)
            raise UsageError(
                f"sink {self.name}: {name} of this key begins with '-', and would be an option of"
                " its command",
                hint=f"let something stand before {name} in argv, such as --name={name}",
            )
        return argument


def pruned_environment() -> dict[str, str]:
    """Return what a command is given of the environment: nothing that could be a credential."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def fault_of_program(program: str) -> tuple[str, str] | None:
    """Return what is wrong with the first text of an argv and what to do about it, None if it can be run."""
    if shutil.which(program) is not None:
        return None
    if is_program(program):
        return f"there is no program {program!r}", "check argv in the configuration, and PATH"
    return (
        "what stands first in argv is no program",
        "write the program and each of its arguments as a string of its own",
    )


def hand_over(
    name: str,
    argv: Sequence[str],
    data: bytes,
    *,
    timeout: timedelta,
    lock: int | None,
    environment: Mapping[str, str],
    success: int = 0,
) -> None:
    """Run a program with *data* on its standard input; what it prints is not shown: it may be the key.

    The pipe is filled and its write end closed before the program starts: a run that is killed
    can never leave it with half a key, or an empty one.

    Raises:
        NotTakenError: It could not be started.
        UnknownError: It took longer than *timeout* and was killed, or ended otherwise than with
            the status *success*.
    """
    try:
        reader = _filled_pipe(data)
        try:
            process = subprocess.Popen(  # noqa: S603  # an argument list from the configuration
                argv,
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                # A group of its own, so that at the time-out all of it can be ended.
                start_new_session=True,
                # The claim lives until the program is dead too.
                pass_fds=() if lock is None else (lock,),
            )
        finally:
            os.close(reader)
    except OSError as error:
        raise NotTakenError(f"{name}: {error.strerror}") from error
    _running.add(process)
    try:
        status = process.wait(timeout.total_seconds())
    except subprocess.TimeoutExpired:
        _end(process)
        raise UnknownError(f"{name} took longer than {timeout.total_seconds():g} s") from None
    except BaseException:
        _end(process)
        raise
    finally:
        _running.discard(process)
    if status != success:
        how = f"with status {status}" if status else "without returning"
        raise UnknownError(f"{name} ended {how}")


def end_all() -> None:
    """End every program that `hand_over` waits for, in whichever thread, with its group."""
    for process in list(_running):
        _end(process)


def _filled_pipe(data: bytes) -> int:
    """Return the read end of a closed pipe that holds *data*."""
    reader, writer = os.pipe()
    try:
        if len(data) > _PIPE:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, len(data))
        # What does not fit is an error at once, and no wait for a reader that is not there yet.
        os.set_blocking(writer, False)
        sent = os.write(writer, data)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    if sent != len(data):
        os.close(reader)
        raise OSError(errno.EMSGSIZE, "the answer is too large for a pipe")
    return reader


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
