"""Compare digests with stored hashes, in few threads, so that guesses cannot starve good keys."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

from cachetools import LRUCache

from keyctl.errors import UnavailableError

_QUEUE: Final = 1000
_SUSPECT_QUEUE: Final = 64
_PER_LOOKUP: Final = 4
_SUSPECTS: Final = 10_000


class Matcher(Protocol):
    """What tells whether a stored hash was made from a digest."""

    def __call__(self, digest: str, *, hashed: str) -> bool:
        """Tell whether *hashed* was made from the key string with this SHA-256 *digest* in hex."""


class Checks:
    """Two lanes of bcrypt.

    A lookup has one right string.  So whatever comes for a lookup that is being checked, or that
    was last guessed wrong, is probably a guess, and goes through a lane of one thread: who knows
    public ids can make others wait neither there nor for memory.
    """

    def __init__(self, matches: Matcher, *, workers: int) -> None:
        self._matches = matches
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._suspects: LRUCache[str, None] = LRUCache(_SUSPECTS)
        self._lane = _Lane("keyctl-bcrypt", threads=workers, queue=_QUEUE)
        self._suspect_lane = _Lane("keyctl-bcrypt-suspect", threads=1, queue=_SUSPECT_QUEUE)

    def submit(self, lookup: str, digest: str, *, hashed: str) -> Future[bool]:
        """Return what will tell whether the string with this *digest* is the one of the *lookup*.

        Raises:
            UnavailableError: Too many are being checked.
        """
        with self._lock:
            is_suspect = lookup in self._suspects or self._pending[lookup] > 0
            if self._pending[lookup] >= _PER_LOOKUP:
                raise UnavailableError(
                    "too many strings with this key's id are being checked", hint="try again"
                )
            lane = self._suspect_lane if is_suspect else self._lane
            future = lane.submit(lambda: self._matches(digest, hashed=hashed))
            self._pending[lookup] += 1
        future.add_done_callback(lambda done: self._note(lookup, done))
        return future

    def close(self) -> None:
        """Check no more."""
        self._lane.close()
        self._suspect_lane.close()

    def _note(self, lookup: str, done: Future[bool]) -> None:
        with self._lock:
            self._pending[lookup] -= 1
            if self._pending[lookup] <= 0:
                del self._pending[lookup]
            if done.cancelled() or done.exception() is not None:
                return
            if done.result():
                self._suspects.pop(lookup, None)
            else:
                self._suspects[lookup] = None


class _Lane:
    """Some threads with a queue of bounded length: what does not fit is refused at once."""

    def __init__(self, name: str, *, threads: int, queue: int) -> None:
        self._room = threading.BoundedSemaphore(threads + queue)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def submit(self, work: Callable[[], bool]) -> Future[bool]:
        if not self._room.acquire(blocking=False):
            raise UnavailableError("too many unknown keys are being checked", hint="try again")
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            self._room.release()
            raise UnavailableError("the verifier is closed") from None
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
