"""Where many events are in the audit chain is kept in little memory."""

import hashlib
import tracemalloc

from keyctl.db.queries.audit import Head, Heads

MANY = 5000
KNOWN = [Head(7 + number, hashlib.sha256(b"%d" % number).hexdigest()) for number in range(MANY)]


def filled() -> Heads:
    """Return where events are that begin at the seventh."""
    heads = Heads(7)
    for head in KNOWN:
        heads.add(head)
    return heads


def test_each_comes_back() -> None:
    """By its place, from either end, in portions, and all of them in their order."""
    heads = filled()

    assert len(heads) == MANY
    assert (heads[0], heads[10], heads[-1]) == (KNOWN[0], KNOWN[10], KNOWN[-1])
    assert heads[20:30] == KNOWN[20:30]
    assert list(heads) == KNOWN
    assert not Heads(1)


def test_they_take_little_memory() -> None:
    """A list of them would take two hundred bytes each."""
    tracemalloc.start()
    heads = filled()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held / len(heads) < 50
