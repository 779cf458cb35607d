"""Block, delete and revoke keys, one transaction a key."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import keystring, lifecycle
from keyctl.db import queries
from keyctl.errors import (
    CallerDeniedError,
    ConflictError,
    DeniedError,
    KeyctlError,
    NotFoundError,
    SecretActiveError,
    SecretNotFoundError,
    UnreadableRowError,
)
from keyctl.policy import engine
from keyctl.policy.facts import Caller, Operation
from keyctl.portions import portions
from keyctl.records import Key
from keyctl.services import denials
from keyctl.services.authorize.verdict import facts_of
from keyctl.services.denials import Attempt
from keyctl.services.keys.find import LENGTH_OF_ID, as_live, find, live_key
from keyctl.services.transaction import Unit, anchor, row_of, writing
from keyctl.services.workspace import Workspace

_Step = Callable[[Unit, Key], str]
# Returns the key as it is to be, None if it is so already.
_Change = Callable[[Unit, Key], Key | None]
UNCHANGED: Final = "unchanged"
# So many keys share a transaction: others wait for its locks no longer than a moment.
BATCH: Final = 500


def _nobody(_: int) -> None:
    """Tell nobody how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of one key: a word for it, or why it failed.

    `still_active` is the secret with which a key goes on working where nothing was revoked.
    """

    given: str
    key_id: str | None = None
    result: str
    error: KeyctlError | None = None
    audit: dict[str, Any] | None = None
    still_active: str | None = None


def in_batches(
    workspace: Workspace,
    given: Sequence[str],
    action: str,
    change: Callable[[Sequence[str]], list[Ended]],
    *,
    told: Callable[[int], None],
) -> list[Ended]:
    """Change the keys in batches of one transaction; a caller who loses the right to act has the rest left alone.

    Raises:
        CallerDeniedError: The caller lost it before anything was done; it is on record as *action*.
    """
    ended: list[Ended] = []
    for number, part in enumerate(portions(given, BATCH)):
        try:
            ended += change(part)
        except CallerDeniedError as error:
            if all(earlier.error is not None for earlier in ended):
                with denials.recorded(workspace, action, "key", part[0]):
                    raise
            left = given[number * BATCH :]
            return ended + [Ended(given=one, result="failed", error=error) for one in left]
        told(len(part))
    return ended


@dataclass(frozen=True, slots=True)
class EndingService:
    """Blocks, unblocks, deletes and revokes.  None of them waits for a claim."""

    workspace: Workspace

    def block(
        self, given: Sequence[str], *, blocked: bool, told: Callable[[int], None] = _nobody
    ) -> list[Ended]:
        """Suspend keys, or let them in again; one that is so already is left alone.

        *told* how many are done after each batch.
        """

        def step(unit: Unit, key: Key) -> Key | None:
            return with_block(unit, key, blocked=blocked)

        verb: Operation = "block" if blocked else "unblock"
        return self._end_all(given, verb, f"{verb}ed", step, told)

    def delete(self, given: Sequence[str], *, told: Callable[[int], None] = _nobody) -> list[Ended]:
        """Revoke keys for good; their records are archived and their aliases free again."""

        def step(unit: Unit, key: Key) -> Key:
            return replace(
                key, deleted_at=unit.now, updated_at=unit.now, updated_by=unit.caller.actor
            )

        return self._end_all(given, "delete", "deleted", step, told)

    def would(self, given: Sequence[str], operation: Operation) -> list[Ended]:
        """Return what the rules let *operation* do to each key; nothing is written, no refusal recorded."""
        database = self.workspace.database
        with database.read() as connection:
            now = database.now(connection)
            return [
                item
                for part in portions(given, BATCH)
                for item in self._would(connection, part, operation, now)
            ]

    def _would(
        self, connection: Connection, given: Sequence[str], operation: Operation, now: datetime
    ) -> Iterator[Ended]:
        caller = self.workspace.caller
        known = by_whole_ids(connection, given, lock=False)
        for item in given:
            key_id = None
            try:
                key = known.get(item) or find(connection, item, caller=caller)
                key_id = as_live(key, item, caller).id
                if engine.binds(caller):
                    self._check(connection, caller, key, operation, now)
            except (DeniedError, NotFoundError, ConflictError, UnreadableRowError) as error:
                yield Ended(given=item, key_id=key_id, result="failed", error=error)
            else:
                yield Ended(given=item, key_id=key_id, result=operation)

    def revoke(self, given: str, secret_ids: Sequence[str]) -> Ended:
        """End all retiring secrets of a key, or the retiring and abandoned ones named, now."""

        def step(unit: Unit, key: Key) -> str:
            chosen = _chosen(unit, key, secret_ids)
            if not chosen:
                return UNCHANGED
            for secret_id, state in chosen:
                queries.update_secret(unit.connection, secret_id, state="revoked")
                if state == "staged":
                    _end_claim(unit, key, secret_id)
                unit.record(
                    "secret_revoked",
                    "key",
                    key.id,
                    before={"secret_id": secret_id, "state": state},
                    after={"secret_id": secret_id, "state": "revoked"},
                )
            return "revoked"

        ended = self._end(given, "revoke", step)
        if ended.result != UNCHANGED or ended.key_id is None:
            return ended
        return replace(ended, still_active=self._active_secret(ended.key_id))

    def _active_secret(self, key_id: str) -> str | None:
        database = self.workspace.database
        with database.read() as connection:
            now = database.now(connection)
            secrets = queries.secrets_of(connection, key_id)
        return next(
            (item.id for item in secrets if lifecycle.secret_state(item, now=now) == "active"), None
        )

    def _end_all(
        self,
        given: Sequence[str],
        operation: Operation,
        word: str,
        step: _Change,
        told: Callable[[int], None],
    ) -> list[Ended]:
        return in_batches(
            self.workspace,
            given,
            f"key_{operation}_denied",
            lambda part: self._end_batch(part, operation, word, step),
            told=told,
        )

    def _end_batch(
        self, given: Sequence[str], operation: Operation, word: str, step: _Change
    ) -> list[Ended]:
        """Change some keys in one transaction, each with its own event; what is refused stops no other."""
        ended: list[Ended] = []
        numbers: list[int | None] = []
        with writing(self.workspace) as unit:
            batch = _Batch(unit=unit, known=by_whole_ids(unit.connection, given, lock=True))
            binds = engine.binds(unit.caller)
            for item in given:
                key_id = None
                attempt = Attempt(f"key_{operation}_denied", "key", item)
                try:
                    key = batch.find(item)
                    key_id = attempt.object_id = key.id
                    if binds:
                        self._check(unit.connection, unit.caller, key, operation, unit.now)
                except DeniedError as error:
                    denials.note(unit, attempt, error)
                    ended.append(Ended(given=item, key_id=key_id, result="failed", error=error))
                except (NotFoundError, ConflictError, UnreadableRowError) as error:
                    ended.append(Ended(given=item, key_id=key_id, result="failed", error=error))
                else:
                    after = step(unit, key)
                    result = UNCHANGED if after is None else word
                    ended.append(Ended(given=item, key_id=key_id, result=result))
                    if after is not None:
                        batch.note(key, after, f"key_{word}")
                        numbers.append(len(unit.events) - 1)
                        continue
                numbers.append(None)
            batch.write()
        return [
            item if number is None else replace(item, audit=anchor(unit.heads[number]))
            for item, number in zip(ended, numbers, strict=True)
        ]

    def _check(
        self,
        connection: Connection,
        caller: Caller,
        key: Key,
        operation: Operation,
        now: datetime,
    ) -> None:
        """Ask the rules about who may do it; admins may.

        Raises:
            PolicyDeniedError: They say no.
        """
        facts = facts_of(connection, self.workspace.settings, caller, key, operation, now=now)
        if violations := engine.evaluate_caller(facts):
            raise engine.refuse(violations)

    def _end(self, given: str, operation: Operation, step: _Step) -> Ended:
        """Carry *step* out if the rules allow *operation*."""
        key_id = None
        try:
            with (
                denials.recorded(
                    self.workspace, f"key_{operation}_denied", "key", given
                ) as attempt,
                writing(self.workspace) as unit,
            ):
                key = live_key(unit.connection, given, unit.caller)
                key_id = attempt.object_id = key.id
                # Not of admins: to end a secret, its key needs no owner who is still there.
                if engine.binds(unit.caller):
                    self._check(unit.connection, unit.caller, key, operation, unit.now)
                result = step(unit, key)
        except (DeniedError, NotFoundError, ConflictError, UnreadableRowError) as error:
            return Ended(given=given, key_id=key_id, result="failed", error=error)
        head = unit.heads[-1] if unit.heads else None
        place = anchor(head) if head else None
        return Ended(given=given, key_id=key_id, result=result, audit=place)


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Keys of one transaction as they are by now, and what is to be written of them."""

    unit: Unit
    known: dict[str, Key]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    def find(self, given: str) -> Key:
        """Return the live key that *given* names, as it is after the changes noted until now.

        Raises:
            KeyNotFoundError: There is none, or not for the caller to see.
        """
        key = self.known.get(given)
        if key is None:
            key = live_key(self.unit.connection, given, self.unit.caller)
            key = self.known.setdefault(key.id, key)
        return as_live(key, given, self.unit.caller)

    def note(self, before: Key, after: Key, action: str) -> None:
        """Note a change and its event."""
        self.known[before.id] = after
        changed = {
            name: value for name, value in after.columns().items() if value != getattr(before, name)
        }
        self.rows[before.id] = {**self.rows.get(before.id, {}), **changed}
        if after.deleted_at is not None:
            self.ended.append(before.id)
        self.unit.record(action, "key", before.id, before=row_of(before), after=row_of(after))

    def write(self) -> None:
        """Write what was noted: a statement for all keys that change alike."""
        if self.ended:
            queries.revoke_secrets(self.unit.connection, *self.ended)
            queries.delete_claim(self.unit.connection, *self.ended)
        queries.update_keys(self.unit.connection, self.rows)


def by_whole_ids(connection: Connection, given: Sequence[str], *, lock: bool) -> dict[str, Key]:
    """Return the keys that are named by their whole ids; with *lock* locked in the order of these."""
    whole = sorted({item for item in given if len(item) == LENGTH_OF_ID and item[:4] == "key_"})
    if len(whole) < 2:  # one is found as any other
        return {}
    try:
        return {key.id: key for key in queries.find_keys(connection, whole, lock=lock)}
    except UnreadableRowError:
        return {}  # each for itself: one that cannot be read stops no other


def with_block(unit: Unit, key: Key, *, blocked: bool) -> Key | None:
    """Return a key suspended or let in again, None if it is so already."""
    # A block by an admin stays one, whoever else would have blocked the key too.
    by_admin = blocked and (unit.caller.is_admin or key.blocked_by_admin)
    if (key.blocked, key.blocked_by_admin) == (blocked, by_admin):
        return None
    return replace(
        key,
        blocked=blocked,
        blocked_by_admin=by_admin,
        updated_at=unit.now,
        updated_by=unit.caller.actor,
    )


def set_blocked(unit: Unit, key: Key, *, blocked: bool) -> str:
    """Suspend a key or let it in again, and return what became of it."""
    after = with_block(unit, key, blocked=blocked)
    if after is None:
        return UNCHANGED
    batch = _Batch(unit=unit, known={})
    batch.note(key, after, "key_blocked" if blocked else "key_unblocked")
    batch.write()
    return "blocked" if blocked else "unblocked"


def _chosen(unit: Unit, key: Key, secret_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return the ids and states of the secrets to end.

    Raises:
        SecretNotFoundError, SecretActiveError: One of *secret_ids* cannot be ended so.
    """
    secrets = {secret.id: secret for secret in queries.secrets_of(unit.connection, key.id)}
    if not secret_ids:
        return [
            (secret.id, secret.state)
            for secret in secrets.values()
            if lifecycle.secret_state(secret, now=unit.now) == "retiring"
        ]
    chosen = []
    for given in secret_ids:
        secret = secrets.get(keystring.public_handle(given) or given)
        if secret is None:
            raise SecretNotFoundError(
                f"key {key.id} has no secret {given!r}", hint=f"keyctl info {key.id} lists them"
            )
        if secret.state == "active":
            raise SecretActiveError(
                f"secret {secret.id} is the active one of key {key.id}",
                hint="keyctl rotate KEY --grace none replaces it, keyctl delete KEY ends the key",
            )
        if secret.state != "revoked":
            chosen.append((secret.id, secret.state))
    return chosen


def _end_claim(unit: Unit, key: Key, secret_id: str) -> None:
    """End the claim of the run that staged this secret: it may not confirm it any more."""
    claim = queries.find_claim(unit.connection, key.id)
    secret = queries.find_secret(unit.connection, secret_id)
    if claim is not None and secret is not None and claim.run_id == secret.run_id:
        queries.delete_claim(unit.connection, key.id)
