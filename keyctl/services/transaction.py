"""Write in one transaction, with the audit events that commit with it or not at all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import money
from keyctl.db import queries, written
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Event, Head
from keyctl.packed import Packed
from keyctl.policy.facts import Caller
from keyctl.purses import PurseName, Terms
from keyctl.records import Key, Record, Secret
from keyctl.services import access_groups, acting, outbox
from keyctl.services.workspace import Workspace

_SWEEP: Final = 100
_MONEY: Final = ("max_budget", "soft_budget", "spend")


@dataclass(slots=True)
class Unit:
    """What a service method writes with: a connection, the time, and a list of events.

    `heads` tells, after the block, where each event is in the chain.  `timed_anew` are budgets with
    a meter whose period gets another length; it is written last, because gateways lock meters last.
    """

    connection: Connection
    now: datetime
    caller: Caller
    events: Packed[Event] = field(default_factory=Packed)
    heads: Sequence[Head] = ()
    timed_anew: dict[PurseName, Terms | None] = field(default_factory=dict)

    def record(
        self,
        action: str,
        object_type: str,
        object_id: str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
        reason: str | None = None,
        secrets: list[dict[str, Any]] | None = None,
    ) -> None:
        """Note an event; it is written right before the commit.

        *secrets* is what became of a key's secrets until here, for who writes very many keys.
        """
        self.events.append(
            Event(
                actor=self.caller.actor,
                changed_by=self.caller.changed_by,
                action=action,
                object_type=object_type,
                object_id=object_id,
                before=before,
                after=after,
                reason=reason,
                secrets=secrets,
            )
        )


@contextmanager
def writing(workspace: Workspace, *, to_finish: bool = False) -> Iterator[Unit]:
    """Run the block in one transaction that ends with its audit events.

    The caller is read again first: what it lost since the command began it has lost.  Only what
    takes back, ends or puts on record *to_finish* what was begun is written whoever the caller is.

    Events that hooks want are put into the outbox with them.  The first one of a process also
    archives what crashed runs left pending past its deadline, and records the graces that ended.

    Raises:
        CallerDeniedError: The caller's key does not authenticate or administer any more.
    """
    database = workspace.database
    _write_groups(workspace)
    with database.write() as connection:
        written.forget(connection)
        now, caller = database.began_at(connection), workspace.caller
        if not to_finish:
            caller = acting.current(connection, caller, workspace.settings, now=now)
        unit = Unit(connection, now, caller)
        posted: list[str] = []
        yield unit
        if unit.timed_anew:
            _time_anew(unit, rollover=workspace.settings.budget_rollover)
        # Last, and skipping locked rows: so it can wait for nobody and nobody for it.
        if not database.is_swept:
            for key in queries.pending_keys(connection, dead_at=unit.now, limit=_SWEEP):
                archive_pending(unit, key, reason="its run died before the key was confirmed")
            for secret in queries.secrets_past_grace(connection, now=unit.now, limit=_SWEEP):
                _end_grace(unit, secret)
        told = _with_secrets(unit, written.take(connection))
        if unit.events:
            unit.heads = audit.append(connection, told, at=unit.now)
            posted = outbox.post(
                connection, workspace.settings, unit.events, unit.heads, now=unit.now
            )
    # After the commit: what was rolled back is not sent.
    workspace.outgoing.extend(posted)
    database.is_swept = True


def _write_groups(workspace: Workspace) -> None:
    """Write the configuration's groups of models in a transaction of their own, once a process."""
    database = workspace.database
    if not workspace.settings.access_groups or database.has_groups:
        return
    with database.write() as connection:
        unit = Unit(connection, database.began_at(connection), workspace.caller)
        access_groups.write_configured(unit, workspace.settings)
        if unit.events:
            audit.append(connection, unit.events, at=unit.now)
    database.has_groups = True


def _time_anew(unit: Unit, *, rollover: bool) -> None:
    known, _ = queries.find_meters(unit.connection, unit.timed_anew)
    terms = {name: unit.timed_anew[name] for name in known}
    queries.lock_purses(unit.connection, terms, now=unit.now, rollover=rollover)


def _with_secrets(unit: Unit, secrets: Mapping[str, list[dict[str, Any]]]) -> Iterator[Event]:
    """Return the unit's events, the last of each key with what became of the key's secrets.

    Only in the chain: hooks are told of the key and not of its secrets.
    """
    if not secrets:
        return iter(unit.events)
    last = {
        event.object_id: number
        for number, event in enumerate(unit.events)
        if event.object_id in secrets
        and event.object_type == "key"
        and not event.action.endswith("_denied")
    }
    for key_id in secrets.keys() - last.keys():
        last[key_id] = len(unit.events)
        unit.record("secret_changed", "key", key_id)
    changed = {last[key_id]: secrets[key_id] for key_id in secrets}
    return (
        replace(event, secrets=_latest(event.secrets, changed[number]))
        if number in changed
        else event
        for number, event in enumerate(unit.events)
    )


def _latest(
    before: list[dict[str, Any]] | None, after: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return what became of a key's secrets, one written twice as it was left."""
    found: dict[str, dict[str, Any]] = {}
    for item in [*(before or ()), *after]:
        found[item["id"]] = {**found.get(item["id"], {}), **item}
    return list(found.values())


def _end_grace(unit: Unit, secret: Secret) -> None:
    """Record that a secret has ended: it stopped authenticating at its `not_after`, by itself."""
    queries.update_secret(unit.connection, secret.id, state="revoked")
    told = {"secret_id": secret.id, "not_after": secret.not_after}
    unit.record(
        "grace_ended",
        "key",
        secret.key_id,
        before={**told, "state": "retiring"},
        after={**told, "state": "revoked"},
    )


def archive_pending(unit: Unit, key: Key, *, reason: str) -> None:
    """Revoke and archive a key that nobody depends on yet, freeing its alias and request id."""
    for secret in queries.secrets_of(unit.connection, key.id):
        if secret.supplied:
            # Nobody has used it: the same string may be supplied again.
            queries.delete_secret(unit.connection, secret.id)
    archive(unit, key, action="key_archived", reason=reason)
    queries.forget_request_ids(unit.connection, key.id)


def archive(unit: Unit, key: Key, *, action: str, reason: str | None = None) -> Key:
    """Revoke a key's secrets for good and keep its record; ends any claim on it."""
    gone = replace(key, deleted_at=unit.now, updated_at=unit.now, updated_by=unit.caller.actor)
    queries.revoke_secrets(unit.connection, key.id)
    queries.delete_claim(unit.connection, key.id)
    queries.update_key(
        unit.connection,
        key.id,
        deleted_at=gone.deleted_at,
        updated_at=gone.updated_at,
        updated_by=gone.updated_by,
    )
    unit.record(action, "key", key.id, before=row_of(key), after=row_of(gone), reason=reason)
    return gone


def archive_many(unit: Unit, keys: Sequence[Key], *, action: str, reason: str | None) -> None:
    """Do what `archive` does to some keys of very many, with a statement for all of them.

    What became of their secrets goes into the events at once: it is not held until the commit.
    """
    ids = [key.id for key in keys]
    ended = {"deleted_at": unit.now, "updated_at": unit.now, "updated_by": unit.caller.actor}
    queries.revoke_secrets(unit.connection, *ids)
    queries.delete_claim(unit.connection, *ids)
    queries.update_keys(unit.connection, dict.fromkeys(ids, ended))
    secrets = written.take(unit.connection, ids)
    for key in keys:
        unit.record(
            action,
            "key",
            key.id,
            before=row_of(key),
            after={**row_of(key), **ended},
            reason=reason,
            secrets=secrets.get(key.id),
        )


def row_of(record: Record) -> dict[str, Any]:
    """Return the persisted row for the audit trail, money as text in dollars."""
    return told_columns(record.columns())


def told_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return column values as the audit trail tells them: money as text in dollars."""
    return {
        name: str(money.dollars(value)) if name in _MONEY and value is not None else value
        for name, value in columns.items()
    }


def anchor(head: Head) -> dict[str, Any]:
    """Return where in the audit chain a change is, for CI logs to keep."""
    return {"seq": head.seq, "head": head.hash}
