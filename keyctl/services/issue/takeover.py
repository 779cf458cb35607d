"""Find what earlier runs left under a new key's alias, key string, request id or file, and take it over or clear it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyctl import jsontext, views
from keyctl.db import queries
from keyctl.errors import AliasTakenError, KeyTakenError, RequestIdTakenError
from keyctl.keystring import KeyString
from keyctl.policy.facts import Caller
from keyctl.records import Claim, Key
from keyctl.services.delivery.protocol import StartOver, Wait
from keyctl.services.delivery.run_lock import Run
from keyctl.services.issue.order import Order, Outcome
from keyctl.services.keys.find import may_see
from keyctl.services.transaction import Unit, archive_pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is ready before the first transaction: hashing takes time and must not hold a lock."""

    order: Order
    request_id: str | None
    key_id: str
    values: dict[str, Any]
    key: KeyString
    supplied: bool
    hash: str
    fingerprint: str
    found_in_file: frozenset[str]

    @property
    def alias(self) -> str | None:
        """Return the alias that is asked for."""
        return self.values.get("key_alias") or None

    @property
    def older_request_id(self) -> str | None:
        """Return the name under which a version before `own_request_id` kept the request."""
        return None if self.order.request_id == self.request_id else self.order.request_id


def own_request_id(caller: Caller, given: str | None) -> str | None:
    """Return the name under which a caller's request id is kept: nobody else's is in its way.

    The local operator's is kept as it was given.
    """
    if given is None or caller.key is None:
        return given
    digest = hashlib.sha256(f"{caller.actor}\n{given}".encode()).hexdigest()
    return f"{caller.actor}:{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessors:
    """What stands in the way of a draft's key, as one transaction sees it."""

    connection: Connection
    draft: Draft
    caller: Caller
    run: Run
    now: datetime

    def find(self) -> Claim | Outcome | None:
        """Return the dead claim to take over, the outcome to replay, or None for a new key.

        Raises:
            ConflictError: A live key, or a living run, is in the way.
            Wait: The same request is being carried out by a living run.
            StartOver: It was carried out while we looked.
        """
        connection, draft = self.connection, self.draft
        if (known := self._known()) is not None:
            key = queries.find_key(connection, known.key_id)
            if not _came_to_nothing(key):
                return self._known_request(known, key)
        for key_id in self._in_the_way():
            claim = queries.find_claim(connection, key_id)
            if claim is not None and claim.fingerprint == draft.fingerprint:
                return claim
        return None

    def clear(self, unit: Unit) -> None:
        """Archive pending keys of dead runs that another request left under this alias or string.

        Raises:
            StartOver: They are not pending, or not dead, any more.
        """
        draft, alias, run = self.draft, self.draft.alias, self.run
        known = self._known()
        if known is not None and _came_to_nothing(queries.find_key(unit.connection, known.key_id)):
            queries.forget_request_ids(unit.connection, known.key_id)
        in_way = queries.find_key_by_alias(unit.connection, alias, lock=True) if alias else None
        others = [in_way] if in_way else []
        if draft.supplied and (
            secret := queries.find_secret_by_lookup(unit.connection, draft.key.lookup)
        ):
            owner = queries.find_key(unit.connection, secret.key_id, lock=True)
            others += [owner] if owner and owner.id not in {key.id for key in others} else []
        for key in others:
            claim = queries.find_claim(unit.connection, key.id)
            if not _is_pending(key) or (claim and run.is_alive(claim, now=unit.now)):
                raise StartOver
            if claim is None or claim.fingerprint != draft.fingerprint:
                archive_pending(unit, key, reason="another request took its place")

    def _known(self) -> queries.RequestId | None:
        """Return what is kept of this caller's request of this name."""
        draft = self.draft
        if draft.request_id is None:
            return None
        known = queries.find_request_id(self.connection, draft.request_id)
        if known is None and draft.older_request_id is not None:
            older = queries.find_request_id(self.connection, draft.older_request_id)
            # The fingerprint covers the caller: another's request is none of ours.
            known = older if older and older.fingerprint == draft.fingerprint else None
        return known

    def _in_the_way(self) -> Iterator[str]:
        """Yield pending keys of dead runs that have this alias, key string or output file.

        Raises:
            ConflictError: A live key, or a living run, has the alias or the key string.
        """
        connection, draft = self.connection, self.draft
        yield from left_pending(
            connection,
            draft.alias,
            draft.key if draft.supplied else None,
            caller=self.caller,
            run=self.run,
            now=self.now,
        )
        for public_id in draft.found_in_file:
            found = queries.find_presented(connection, public_id)
            if found is not None and _is_pending(found.key) and not self._is_claimed(found.key.id):
                yield found.key.id

    def _known_request(self, known: queries.RequestId, key: Key | None) -> Claim | Outcome:
        if known.fingerprint != self.draft.fingerprint:
            raise RequestIdTakenError(
                f"request id {self.draft.order.request_id!r} was used for another request",
                hint="take a new request id, or repeat the request as it was",
            )
        claim = queries.find_claim(self.connection, known.key_id)
        if key is not None and key.confirmed_at is not None:
            secrets = queries.secrets_of(self.connection, key.id)
            answer = views.info_view(key, secrets, now=self.now)
            return Outcome(answer={**answer, "replayed": True}, replayed=True)
        if claim is None:
            raise StartOver
        if self.run.is_alive(claim, now=self.now):
            raise Wait
        return claim

    def _is_claimed(self, key_id: str) -> bool:
        return _is_alive(queries.find_claim(self.connection, key_id), self.run, now=self.now)


def left_pending(
    connection: Connection,
    alias: str | None,
    supplied: KeyString | None,
    *,
    caller: Caller,
    run: Run,
    now: datetime,
) -> Iterator[str]:
    """Yield the pending keys of dead runs that have this alias or this supplied key string.

    Raises:
        ConflictError: A live key, or one that a living run still delivers, has it.
    """
    if alias and (key := queries.find_key_by_alias(connection, alias)):
        claim = queries.find_claim(connection, key.id)
        if key.confirmed_at is not None or _is_alive(claim, run, now=now):
            raise alias_taken(alias, key, claim, seen=may_see(caller, key))
        yield key.id
    if supplied and (secret := queries.find_secret_by_lookup(connection, supplied.lookup)):
        owner = queries.find_key(connection, secret.key_id)
        claim = queries.find_claim(connection, secret.key_id)
        if not _is_pending(owner) or _is_alive(claim, run, now=now):
            raise key_taken()
        yield secret.key_id


def require_alias(connection: Connection, changed: Key, before: Key, *, caller: Caller) -> None:
    """Refuse a new alias of a key that another one has, be it live or still being delivered.

    Raises:
        AliasTakenError: One has it.
    """
    alias = changed.key_alias
    if not alias or alias == before.key_alias:
        return
    if (key := queries.find_key_by_alias(connection, alias)) is not None:
        claim = queries.find_claim(connection, key.id)
        raise alias_taken(alias, key, claim, seen=may_see(caller, key))


def refused_aliases(
    connection: Connection, aliases: Sequence[str], *, caller: Caller, run: Run, now: datetime
) -> dict[str, AliasTakenError]:
    """Return the error for each alias that a live key has, or one that a living run still delivers."""
    taken = {}
    for key in queries.keys_named(connection, aliases):
        claim = None if key.confirmed_at else queries.find_claim(connection, key.id)
        if key.key_alias and (key.confirmed_at or _is_alive(claim, run, now=now)):
            seen = may_see(caller, key)
            taken[key.key_alias] = alias_taken(key.key_alias, key, claim, seen=seen)
    return taken


def taken_aliases(unit: Unit, aliases: Sequence[str], run: Run) -> dict[str, AliasTakenError]:
    """Return the error for each alias that a living key has; pending keys of dead runs make way."""
    taken = {}
    for key in queries.keys_by_alias(unit.connection, aliases):
        claim = queries.find_claim(unit.connection, key.id)
        if key.confirmed_at is None and not (claim and run.is_alive(claim, now=unit.now)):
            archive_pending(unit, key, reason="another request took its place")
        elif key.key_alias is not None:
            seen = may_see(unit.caller, key)
            taken[key.key_alias] = alias_taken(key.key_alias, key, claim, seen=seen)
    return taken


def alias_taken(
    alias: str, key: Key | None = None, claim: Claim | None = None, *, seen: bool = False
) -> AliasTakenError:
    """Return the error for an alias that a live *key* has, or one that a run still delivers.

    Who may not see that key learns that the alias is taken, and no more.
    """
    if seen and key is not None and key.confirmed_at is None and claim is not None:
        until = jsontext.instant(claim.deadline_at)
        return AliasTakenError(
            f"alias {alias!r} is taken by key {key.id}, which another run is still delivering",
            hint="try again when that run, and the program that takes its key, have ended;"
            f" without a confirmation the alias is free from {until} on",
        )
    others = f"; keyctl info {alias} shows the key that has it" if seen else ""
    return AliasTakenError(
        f"alias {alias!r} is taken by a live key", hint=f"choose another alias{others}"
    )


def key_taken() -> KeyTakenError:
    """Return the error for a supplied key string that this database knows."""
    return KeyTakenError(
        "the supplied key is, or was, a key of this database",
        hint="supply another one, or let keyctl generate it",
    )


def _is_alive(claim: Claim | None, run: Run, *, now: datetime) -> bool:
    return claim is not None and run.is_alive(claim, now=now)


def _is_pending(key: Key | None) -> bool:
    return key is not None and key.confirmed_at is None and key.deleted_at is None


def _came_to_nothing(key: Key | None) -> bool:
    """Tell whether a request id is free again: its key was deleted before anybody had it."""
    return key is None or (key.confirmed_at is None and key.deleted_at is not None)
