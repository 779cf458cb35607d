"""The sink that hands a key string to a command: an argument list, never a shell."""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from keyctl.errors import DeliveryError
from keyctl.sinks.base import Format, NotTakenError, Parcel, Target, UnknownError, rendered
from keyctl.sinks.templates import expand

_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_PIPE: Final = 64 * 1024
_PIPE_MAX: Final = 1024 * 1024


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
            UsageError: A template names what this key does not have.
            DeliveryError: There is no such program.
        """
        self._argv = [expand(part, target) for part in self._templates]
        if shutil.which(self._argv[0]) is None:
            raise DeliveryError(
                f"sink {self.name}: there is no program {self._argv[0]!r}",
                hint="check argv in the configuration, and PATH",
            )

    def deliver(self, parcel: Parcel) -> None:
        """Run the command; what it prints is not shown, because it may print the key.

        The pipe is filled and its write end closed before the command starts: a run that is
        killed can never leave it with half a key, or an empty one.
        """
        reader = _filled_pipe(rendered(parcel, self._form, env_var=self._env_var))
        try:
            process = subprocess.Popen(  # noqa: S603  # an argument list from the configuration
                self._argv,
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                # A group of its own, so that at the time-out all of it can be ended.
                start_new_session=True,
                # The claim lives until the command is dead too.
                pass_fds=() if parcel.lock is None else (parcel.lock,),
            )
        except OSError as error:
            raise NotTakenError(f"sink {self.name}: {error.strerror}") from error
        finally:
            os.close(reader)
        try:
            status = process.wait(self.timeout.total_seconds())
        except subprocess.TimeoutExpired:
            _end(process)
            raise UnknownError(f"sink {self.name} took longer than {self.timeout}") from None
        except BaseException:
            _end(process)
            raise
        if status != 0:
            raise UnknownError(f"sink {self.name} ended with status {status}")


def _filled_pipe(data: bytes) -> int:
    """Return the read end of a closed pipe that holds *data*."""
    if len(data) > _PIPE_MAX:
        raise NotTakenError("the answer is too large for a pipe")
    reader, writer = os.pipe()
    try:
        if len(data) > _PIPE:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_MAX)
        os.write(writer, data)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return reader


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
