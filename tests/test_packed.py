"""Very many alike objects: they take little memory, and none is changed by that."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from keyctl.db.queries.audit import Event
from keyctl.packed import Packed

MANY = 4321


def event(number: int) -> Event:
    """Return the event of a key that gets another budget."""
    row: dict[str, list[str]] = {f"column_{place}": [] for place in range(50)}
    at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=number)
    values = {"id": f"key_{number:020d}", "share": Decimal("0.10"), "at": at, **row}
    return Event(
        actor="local:test",
        changed_by=None,
        action="key_updated",
        object_type="key",
        object_id=f"key_{number:020d}",
        before={**values, "max_budget": "5"},
        after={**values, "max_budget": "6"},
    )


def filled() -> Packed[Event]:
    """Return a log of many events."""
    log = Packed[Event]()
    for number in range(MANY):
        log.append(event(number))
    return log


def test_many_come_back_as_they_were() -> None:
    """In their order, decimals and instants included, as often as they are asked for."""
    log = filled()

    assert len(log) == MANY
    assert list(log) == [event(number) for number in range(MANY)] == list(log)


def test_many_take_little_memory() -> None:
    """An event with two whole rows takes ten kilobytes; of the log, each takes a part of that."""
    filled()
    tracemalloc.start()
    log = filled()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held / len(log) < 1200  # the newest are held as they are


def test_forgets_all() -> None:
    """An import that is only tried forgets what it would have put on record."""
    log = filled()
    log.clear()

    assert list(log) == []
    assert not log
