"""Block, delete and revoke keys, one transaction a key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

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
from keyctl.policy.facts import Operation
from keyctl.records import Key
from keyctl.services import denials
from keyctl.services.authorize.verdict import facts_of
from keyctl.services.keys.update import live_key
from keyctl.services.transaction import Unit, anchor, archive, row_of, writing
from keyctl.services.workspace import Workspace

_Step = Callable[[Unit, Key], str]
UNCHANGED: Final = "unchanged"


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


@dataclass(frozen=True, slots=True)
class EndingService:
    """Blocks, unblocks, deletes and revokes.  None of them waits for a claim."""

    workspace: Workspace

    def block(self, given: Sequence[str], *, blocked: bool) -> list[Ended]:
        """Suspend keys, or let them in again; one that is so already is left alone."""

        def step(unit: Unit, key: Key) -> str:
            return set_blocked(unit, key, blocked=blocked)

        return self._end_all(given, "block" if blocked else "unblock", step)

    def delete(self, given: Sequence[str]) -> list[Ended]:
        """Revoke keys for good; their records are archived and their aliases free again."""

        def step(unit: Unit, key: Key) -> str:
            archive(unit, key, action="key_deleted")
            return "deleted"

        return self._end_all(given, "delete", step)

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

    def _end_all(self, given: Sequence[str], operation: Operation, step: _Step) -> list[Ended]:
        """Carry *step* out on each key; a caller who loses the right to act has the rest left alone.

        Raises:
            CallerDeniedError: The caller lost it before anything was done.
        """
        ended: list[Ended] = []
        for number, item in enumerate(given):
            outcome = self._end(item, operation, step)
            if isinstance(outcome.error, CallerDeniedError):
                if all(earlier.error is not None for earlier in ended):
                    raise outcome.error
                left = given[number:]
                return ended + [
                    Ended(given=one, result="failed", error=outcome.error) for one in left
                ]
            ended.append(outcome)
        return ended

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
                facts = facts_of(
                    unit.connection,
                    self.workspace.settings,
                    unit.caller,
                    key,
                    operation,
                    now=unit.now,
                )
                if violations := engine.evaluate_caller(facts):
                    raise engine.refuse(violations)
                result = step(unit, key)
        except (DeniedError, NotFoundError, ConflictError, UnreadableRowError) as error:
            return Ended(given=given, key_id=key_id, result="failed", error=error)
        head = unit.heads[-1] if unit.heads else None
        place = anchor(head) if head else None
        return Ended(given=given, key_id=key_id, result=result, audit=place)


def set_blocked(unit: Unit, key: Key, *, blocked: bool) -> str:
    """Suspend a key or let it in again, and return what became of it."""
    # A block by an admin stays one, whoever else would have blocked the key too.
    by_admin = blocked and (unit.caller.is_admin or key.blocked_by_admin)
    if (key.blocked, key.blocked_by_admin) == (blocked, by_admin):
        return UNCHANGED
    after = replace(
        key,
        blocked=blocked,
        blocked_by_admin=by_admin,
        updated_at=unit.now,
        updated_by=unit.caller.actor,
    )
    queries.update_key(
        unit.connection,
        key.id,
        blocked=blocked,
        blocked_by_admin=by_admin,
        updated_at=after.updated_at,
        updated_by=after.updated_by,
    )
    action = "key_blocked" if blocked else "key_unblocked"
    unit.record(action, "key", key.id, before=row_of(key), after=row_of(after))
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
                hint="keyctl rotate --grace none replaces it, keyctl delete ends the key",
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
