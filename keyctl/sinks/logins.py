"""Keep the logins of one run at secret managers, and end them with the run."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, how long it may be used, and how it is ended if this program logged in for it."""

    text: str = field(repr=False, kw_only=False)
    seconds: float = 0
    revoke: Callable[[str], None] | None = None


class Tokens:
    """The logins of one run, one for each sink.  They end with the run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Token, float]] = {}
        self._checked: set[str] = set()

    def of(self, name: str, login: Callable[[], Token]) -> str:
        """Return the token of this sink, by *login* where there is none that is good still."""
        with self._lock:
            known = self._known.get(name)
            if known is not None and time.monotonic() < known[1]:
                return known[0].text
            if known is not None:
                _end(known[0])
            token = login()
            if token.revoke is not None:
                # Three quarters of its life: enough is left for what begins now.
                good_until = time.monotonic() + token.seconds * 0.75
                self._known[name] = token, good_until
            return token.text

    def check_once(self, name: str, check: Callable[[], None]) -> None:
        """Run a *check* of the sink, once in a run."""
        if name not in self._checked:
            check()
            self._checked.add(name)

    def end(self) -> None:
        """End every login."""
        with self._lock:
            for token, _ in self._known.values():
                _end(token)
            self._known.clear()


def _end(token: Token) -> None:
    if token.revoke is not None:
        token.revoke(token.text)
