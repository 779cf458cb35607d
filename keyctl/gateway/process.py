"""Give a forked process connections and threads of its own, and write usage when a process ends."""

import atexit
import logging
import os
from typing import Protocol

from keyctl.errors import UnavailableError

log = logging.getLogger("keyctl.gateway")


class Living(Protocol):
    """What holds connections, threads and usage that is not written yet."""

    def close(self) -> None:
        """Write what is recorded, and stop."""

    def begin_in_child(self) -> None:
        """Begin anew in a child process."""


# Not weakly: what a verifier that nobody refers to any more has recorded is to be written too.
_living: set[Living] = set()


def register(living: Living) -> None:
    """Close *living* when Python exits, and let it begin anew in every forked child."""
    _living.add(living)


def unregister(living: Living) -> None:
    """Leave *living*, which is closed, alone."""
    _living.discard(living)


def _begin_in_child() -> None:
    for living in list(_living):
        living.begin_in_child()


def _close() -> None:
    for living in list(_living):
        try:
            living.close()
        except UnavailableError as error:
            log.error("%s; it is lost", error)  # noqa: TRY400  # no bug, so no traceback


os.register_at_fork(after_in_child=_begin_in_child)
atexit.register(_close)
