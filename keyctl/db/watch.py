"""End connections whose server has fallen silent.

A stopped server, or a proxy that forwards nothing, still acknowledges packets: none of the driver's
time-outs ends the wait for its answer.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta


class Watch:
    """One thread, begun when it is first needed, that shuts the sockets that are past their deadline."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with nothing to watch; a forked child has no thread yet."""
        self._changed = threading.Condition()
        self._watched: dict[object, tuple[float, int]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, number: int, patience: timedelta) -> Iterator[None]:
        """Shut the socket with this file descriptor if the block lasts longer than *patience*."""
        deadline = time.monotonic() + patience.total_seconds()
        mark = object()
        with self._changed:
            if self._thread is None:
                # A daemon, and kept: no thread can be begun while the interpreter ends, which is
                # when usage is written for the last time.
                self._thread = threading.Thread(target=self._run, name="keyctl-watch", daemon=True)
                self._thread.start()
            self._watched[mark] = (deadline, number)
            self._changed.notify()
        try:
            yield
        finally:
            # Under the lock, so that the number cannot have become another socket's meanwhile.
            with self._changed:
                self._watched.pop(mark, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for mark, (deadline, number) in list(self._watched.items()):
                    if deadline <= now:
                        del self._watched[mark]
                        _shut(number)
                first = min((deadline for deadline, _ in self._watched.values()), default=None)
                self._changed.wait(None if first is None else first - now)


def _shut(number: int) -> None:
    """Shut a socket, and leave it to the driver to close it."""
    with suppress(OSError), socket.fromfd(number, socket.AF_UNIX, socket.SOCK_STREAM) as copy:
        copy.shutdown(socket.SHUT_RDWR)
