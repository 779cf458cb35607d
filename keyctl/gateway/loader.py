"""Ask the database many questions at once."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

from keyctl.errors import UnavailableError
from keyctl.gateway.cached_key import Entry

_AT_ONCE: Final = 200


class Loader:
    """One thread that answers all questions which wait for it with one query.

    However many there are, one connection is busy; and *room* bounds how many may wait.
    """

    def __init__(
        self,
        load: Callable[[Sequence[str]], Mapping[str, Entry | UnavailableError]],
        *,
        name: str,
        room: int,
    ) -> None:
        self._load = load
        self._name = name
        self._room = room
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, Future[Entry | None]]] = deque()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def ask(self, lookup: str) -> Future[Entry | None]:
        """Return what will hold the entry with this lookup, or None if there is none.

        Raises:
            UnavailableError: Too many wait already.
        """
        answer: Future[Entry | None] = Future()
        with self._changed:
            if self._is_closed:
                raise UnavailableError("the verifier is closed", hint="verify before it is closed")
            if len(self._waiting) >= self._room:
                raise UnavailableError(
                    "too many unknown keys are being looked up", hint="try again"
                )
            self._waiting.append((lookup, answer))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Answer no more questions."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while questions := self._next():
            try:
                entries = self._load(sorted({lookup for lookup, _ in questions}))
            except Exception as error:  # noqa: BLE001  # whatever it is, who waits must hear of it
                for _, answer in questions:
                    answer.set_exception(error)
            else:
                for lookup, answer in questions:
                    entry = entries.get(lookup)
                    if isinstance(entry, UnavailableError):
                        answer.set_exception(entry)
                    else:
                        answer.set_result(entry)
        for _, answer in self._waiting:
            answer.set_exception(UnavailableError("the verifier is closed"))

    def _next(self) -> list[tuple[str, Future[Entry | None]]]:
        """Wait for questions and return as many as one query takes; none when the loader is closed."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return []
            count = min(len(self._waiting), _AT_ONCE)
            return [self._waiting.popleft() for _ in range(count)]
