"""Put events that leave the program into the outbox, in the transaction of the change itself."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import actions, jsontext, keystring, views
from keyctl.config.settings import Settings
from keyctl.config.sinks import STORES
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.db.queries.audit import Event, Head
from keyctl.records import Key, User

# What a row's `hook` says: as in the configuration ``hooks.NAME``, ``smtp`` for what goes to owners,
# or ``sinks.NAME`` for a secret manager that is to remove what it holds of a key.
INVITATION: Final = "smtp"
_TO_OWNERS: Final = ("key_generated", "key_rotated")
_ENDS: Final = ("key_deleted", "key_archived")


def post(
    connection: Connection,
    settings: Settings,
    happened: Iterable[Event],
    heads: Sequence[Head],
    *,
    now: datetime,
) -> list[str]:
    """Write a row for each event and each hook that wants it; return the events' ids.

    The ids are new; the audit event's number is in the payload.
    """
    stores = [name for name, sink in settings.sinks.items() if isinstance(sink, STORES)]
    if not (settings.hooks or settings.smtp or stores):
        return []
    removals = _removals(connection, stores, happened)
    wanted = [
        (event, head, hooks)
        for event, head in zip(happened, heads, strict=True)
        if (hooks := [*_hooks_for(settings, event), *removals.get(event.object_id, ())])
    ]
    if not wanted:
        return []
    keys = _keys(connection, [event for event, _, _ in wanted])
    rows: list[dict[str, Any]] = []
    for event, head, hooks in wanted:
        event_id = f"evt_{keystring.random_text(22)}"
        key = keys.get(event.object_id) if event.object_type == "key" else None
        data = _data(event, head, key, now=now)
        if event.action == "key_rotated":
            data["sink"] = queries.sink_of_last_rotation(connection, event.object_id)
        for hook in hooks:
            own = data
            if hook == INVITATION:
                address = _owner(connection, key)
                if address is None:
                    continue
                own = {**data, "to": address}
            body = {"type": event.action, "timestamp": jsontext.instant(now), "data": own}
            rows.append(
                {
                    "event_id": event_id,
                    "hook": hook,
                    "event": event.action,
                    "seq": head.seq,
                    "payload": jsontext.dumps(body),
                    "created_at": now,
                    "next_at": now,
                }
            )
    if rows:
        queries.insert_outgoing(connection, rows)
    return list(dict.fromkeys(row["event_id"] for row in rows))


def _hooks_for(settings: Settings, event: Event) -> list[str]:
    found = [
        f"hooks.{name}"
        for name, hook in settings.hooks.items()
        if actions.is_wanted(event.action, hook.events)
    ]
    if settings.smtp is not None and event.action in _TO_OWNERS:
        found.append(INVITATION)
    return found


def _removals(
    connection: Connection, stores: Sequence[str], happened: Iterable[Event]
) -> dict[str, list[str]]:
    """Return the secret managers that may hold something of each key that ends.

    Not the key's own sink alone: rotations may have gone to `default_sink`, or to a sink that was
    named for one of them.
    """
    if not stores:
        return {}
    ended = {event.object_id: event.before for event in happened if event.action in _ENDS}
    if not ended:
        return {}
    rotated = queries.sinks_of_rotations(connection, sorted(ended))
    return {
        key_id: [
            f"sinks.{name}"
            for name in stores
            if name == (before or {}).get("sink") or name in rotated.get(key_id, ())
        ]
        for key_id, before in ended.items()
    }


def _keys(connection: Connection, happened: Sequence[Event]) -> dict[str, Key]:
    """Return the keys that the events are about, as the transaction leaves them."""
    ids = sorted({event.object_id for event in happened if event.object_type == "key"})
    return {key.id: key for key in queries.find_keys(connection, ids)}


def _owner(connection: Connection, key: Key | None) -> str | None:
    """Return the address of the owner who is to be told, None if nobody is."""
    if key is None or not key.send_invite_email or key.user_id is None:
        return None
    user = directory.find(connection, User, key.user_id)
    return None if user is None else user.email


def _data(event: Event, head: Head, key: Key | None, *, now: datetime) -> dict[str, Any]:
    """Return what a hook is told: who did what to which object, what changed, and the key as it is."""
    data: dict[str, Any] = {
        "object_type": event.object_type,
        "object_id": event.object_id,
        "actor": event.actor,
        "changed_by": event.changed_by,
        "reason": event.reason,
        "seq": head.seq,
        # Of what is new there is no before: it is told whole, as the key.
        "changes": {} if event.before is None else dict(_changes(event.before, event.after or {})),
    }
    if event.action in actions.REMINDERS:
        data["reminder"] = event.after
    if key is not None:
        secret_id = (event.after or {}).get("secret_id")
        data["key"] = views.key_view(key, now=now, public_id=secret_id)
    return data


def _changes(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in after:
        if before.get(name) != after[name]:
            yield name, {"before": before.get(name), "after": after[name]}
