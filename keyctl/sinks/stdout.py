"""Write the key string to file descriptor 1, for stdout and for a terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import timedelta
from typing import Final

from keyctl.errors import DeliveryError
from keyctl.sinks.base import NotTakenError, Parcel, Target

STDOUT: Final = 1
STDERR: Final = 2


class StdoutSink:
    """Writes what *render* makes of the parcel to stdout, all of it, past every buffer.

    Past the buffers, because Python flushes them at exit, long after the key would have been
    confirmed, and what fails there changes nothing any more.
    """

    timeout = timedelta(0)
    shows_answer = True

    def __init__(self, name: str, render: Callable[[Parcel], bytes], *, is_open: bool) -> None:
        self.name = name
        self._render = render
        self._is_open = is_open

    def check(self, target: Target) -> None:
        """Refuse a closed stdout."""
        if not self._is_open:
            raise DeliveryError(
                "stdout is closed, and it should take the key",
                hint="redirect it, or name a file with --out-file",
            )

    def deliver(self, parcel: Parcel) -> None:
        """Write the bytes; a pipe that accepted them has taken them."""
        written(self._render(parcel))


@contextmanager
def stdout_reserved() -> Iterator[None]:
    """Send everything that other code prints to stderr: scripts read the key from stdout.

    A process that it forks ends with the block, and does not carry out the command once more.
    """
    process, stream = os.getpid(), sys.stdout
    stream.flush()
    aside = os.dup(STDOUT)
    try:
        os.dup2(STDERR, STDOUT)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if os.getpid() != process:
            os._exit(1)
        with suppress(OSError, ValueError):
            stream.flush()
        os.dup2(aside, STDOUT)
        os.close(aside)


def written(data: bytes) -> None:
    """Write all of *data* to stdout.

    Raises:
        NotTakenError: It failed.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(STDOUT, rest) :]
    except OSError as error:
        raise NotTakenError(f"stdout: {error.strerror}") from error
