"""Remember what a transaction wrote into secrets, so that its audit events can say it.

By the statements themselves and not by what is read back: what somebody else changed beside them
must not get into the audit chain as keyctl's word.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection

_KEY: Final = "keyctl_written"


def forget(connection: Connection) -> None:
    """Begin anew: a connection outlives its transactions."""
    connection.info.pop(_KEY, None)


def note(connection: Connection, key_id: str, secret_id: str, values: Mapping[str, Any]) -> None:
    """Remember that these columns of a secret were set."""
    of_key = connection.info.setdefault(_KEY, {}).setdefault(key_id, {})
    of_key[secret_id] = {**of_key.get(secret_id, {}), **told(values), "id": secret_id}


def note_removal(connection: Connection, key_id: str, secret_id: str) -> None:
    """Remember that a secret that nobody had was removed."""
    of_key = connection.info.setdefault(_KEY, {}).setdefault(key_id, {})
    of_key[secret_id] = {"id": secret_id, "removed": True}


def take(
    connection: Connection, key_ids: Iterable[str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return what was written since `forget`, by key, and forget it; of *key_ids* only, if given."""
    if key_ids is None:
        found: dict[str, dict[str, Any]] = connection.info.pop(_KEY, {})
    else:
        known = connection.info.get(_KEY, {})
        found = {key_id: known.pop(key_id) for key_id in key_ids if key_id in known}
    return {key_id: list(secrets.values()) for key_id, secrets in found.items()}


def told(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of a secret as the audit trail tells them: of its hash the SHA-256 only."""
    shown = dict(values)
    if "hash" in shown:
        shown["hash"] = hashlib.sha256(str(shown["hash"]).encode()).hexdigest()
    return shown
