"""Decide whether a file that holds key strings may be replaced without losing anything."""

from keyctl import lifecycle
from keyctl.db import queries
from keyctl.services.workspace import Workspace
from keyctl.sinks.file import Replaceable


def replaceable(workspace: Workspace) -> Replaceable:
    """Return the question that a file sink asks about what it found."""

    def ask(public_ids: set[str], key_id: str | None) -> bool:
        """Tell whether each secret is one of the same key, or does not authenticate any more."""
        database = workspace.database
        if database.path is not None and not database.path.exists():
            return False
        with database.read() as connection:
            now = database.now(connection)
            for public_id in public_ids:
                found = queries.find_presented(connection, public_id)
                if found is None and queries.find_secret_by_lookup(connection, public_id):
                    continue  # it ended long ago
                if found is None:
                    return False  # somebody else's, as far as this database knows
                if found.key.id == key_id:
                    continue
                dead = found.key.deleted_at is not None or lifecycle.is_past(
                    found.key.expires, now=now
                )
                if not dead and lifecycle.authenticates(found.secret, now=now):
                    return False
        return True

    return ask
