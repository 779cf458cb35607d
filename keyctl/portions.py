"""Cut what is many into portions that a statement or a transaction can take."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in their order, *size* at a time and at the end what is left of them."""
    left = iter(items)
    while portion := list(islice(left, size)):
        yield portion
