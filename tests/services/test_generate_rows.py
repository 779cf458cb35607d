"""Lists of very many new keys: what was judged of them is not held whole."""

import tracemalloc

import pytest

from keyctl.services.issue.generate_rows import RowsService, read_rows
from keyctl.services.workspace import Workspace

ROWS = 1000


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_row_is_held_without_its_request_and_its_verdict(workspace: Workspace) -> None:
    """Both take several kilobytes, and a list may have a hundred thousand rows."""
    bodies = [(f"keys.csv:{number}", {"key_alias": f"key-{number}"}) for number in range(ROWS)]
    service = RowsService(workspace)
    service.judge(read_rows(bodies[:1]))  # what is made once

    tracemalloc.start()
    judged = service.judge(read_rows(bodies))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [row.violations for row in judged] == [()] * ROWS
    assert held / ROWS < 2000
