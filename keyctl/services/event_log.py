"""Keep the events of a transaction until its commit; where they are many, compressed."""

import pickle
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from keyctl.db.queries.audit import Event

_RECENT: Final = 1000
_FAST: Final = 1


@dataclass(slots=True)
class EventLog:
    """The events of a transaction, in their order.

    An event holds an object's whole row before and after.  The rows of many keys are alike, so
    compressed they take a hundredth of the memory.
    """

    _packed: list[bytes] = field(default_factory=list)
    _recent: list[Event] = field(default_factory=list)

    def append(self, event: Event) -> None:
        """Add an event at the end.  Its documents must not change any more."""
        if len(self._recent) == _RECENT:
            # Not as JSON: hooks are told the very values, decimals and instants among them.
            self._packed.append(zlib.compress(pickle.dumps(self._recent), _FAST))
            self._recent = []
        self._recent.append(event)

    def clear(self) -> None:
        """Forget all events."""
        self._packed.clear()
        self._recent.clear()

    def __len__(self) -> int:
        return _RECENT * len(self._packed) + len(self._recent)

    def __iter__(self) -> Iterator[Event]:
        for packed in self._packed:
            # Packed by this very object, a moment ago.
            yield from pickle.loads(zlib.decompress(packed))  # noqa: S301
        yield from self._recent
