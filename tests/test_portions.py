"""What is many is cut into portions: nothing is left out, nothing comes twice."""

from collections.abc import Iterator

import pytest

from keyctl.portions import portions


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [[0]]), (3, [[0, 1, 2]]), (4, [[0, 1, 2], [3]]), (6, [[0, 1, 2], [3, 4, 5]])],
)
def test_each_has_its_size_but_the_last(count: int, expected: list[list[int]]) -> None:
    """In the order of what is given; of nothing there is none."""
    assert list(portions(range(count), 3)) == expected


def test_no_more_is_taken_than_asked_for() -> None:
    """A stream is read while its portions are worked on."""
    taken = []

    def stream() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    assert next(portions(stream(), 3)) == [0, 1, 2]
    assert taken == [0, 1, 2]
