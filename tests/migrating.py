"""What tests of the import ask: what became of the rows, and what is stored."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from litellm_tables import LiteLLM, digest
from sqlalchemy import select

from keyctl.db import queries
from keyctl.db.tables import audit_events, keys, secrets
from keyctl.records import Key
from keyctl.services.import_litellm.report import ImportLine
from keyctl.services.workspace import Workspace

OLD = "sk-1234567890abcdefghijkl"
OLDER = "sk-abcdefghijkl1234567890"

RunImport = Callable[..., list[ImportLine]]


def results(lines: Sequence[ImportLine]) -> Counter[tuple[str, str]]:
    """Return how many rows of each kind came to what."""
    return Counter((line.object_type, line.result) for line in lines)


def stored(workspace: Workspace, text: str) -> Key:
    """Return the key with this key string."""
    with workspace.database.read() as connection:
        found = queries.find_presented(connection, digest(text)[:32])
    assert found is not None
    return found.key


def events(workspace: Workspace) -> list[Any]:
    """Return all audit events."""
    with workspace.database.read() as connection:
        return list(connection.execute(select(audit_events).order_by(audit_events.c.seq)))


def count(workspace: Workspace) -> int:
    """Return how many keys, secrets and events there are."""
    with workspace.database.read() as connection:
        return sum(
            len(connection.execute(select(table)).all()) for table in (keys, secrets, audit_events)
        )


def environment(litellm: LiteLLM) -> dict[str, str]:
    """Return the variable that names the source."""
    return {"KEYCTL_SOURCE_URL": litellm.url}
