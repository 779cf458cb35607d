"""Confirm rotations, or take them back: what the delivery protocol writes and says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from keyctl.db import queries
from keyctl.errors import DeliveryError, DeniedError, FencedError, KeyctlError
from keyctl.records import Key, Secret
from keyctl.services.authorize.verdict import refuse_lost
from keyctl.services.delivery.confirm import was_confirmed
from keyctl.services.delivery.protocol import Fault
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import not_delivered
from keyctl.services.rotate.model import StagedRotation, next_rotation, retire_at, still_suspect
from keyctl.services.rotate.stage import locked
from keyctl.services.transaction import Unit, row_of
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RotationRows:
    """Makes new secrets active and lets the old ones end; or leaves the old ones as they were."""

    workspace: Workspace

    def confirm(
        self, unit: Unit, staged: Sequence[StagedRotation], run: Run
    ) -> Iterator[KeyctlError | None]:
        """Confirm each key for itself.

        An error tells that the key was deleted, or its new secret revoked, meanwhile; a
        `FencedError` that another run took over, and the sink may hold an older secret.
        """
        ids = [item.key_id for item in staged]
        found = locked(unit, ids)
        secrets = queries.secrets_of(unit.connection, *ids)
        for item in staged:
            own = [secret for secret in secrets if secret.key_id == item.key_id]
            yield self._confirm(unit, item, found.get(item.key_id), own, run)

    def take_back(
        self, unit: Unit, staged: StagedRotation, run: Run, fault: Fault, *, why: str
    ) -> None:
        """Revoke the new secret if nobody can have it; else it works until the next rotation."""
        if queries.release_claim(unit.connection, staged.key_id, run.id):
            # A supplied string that was staged before may be in the sink since then.
            revoke = fault.nobody_has_it and not staged.reused
            _record_failure(unit, staged, why=why, revoke=revoke)

    def refusal(
        self, staged: Sequence[StagedRotation], fault: Fault, error: Exception
    ) -> KeyctlError:
        """Return what is said of a key whose rotation was taken back."""
        first = staged[0]
        if fault is Fault.DENIED:
            return _lost(first, error)
        if fault.nobody_has_it:
            return not_delivered(
                error,
                f"key {first.key_id} was not rotated: {error}",
                hint="the old secret was not touched; mend the cause and run it again",
            )
        return DeliveryError(
            f"key {first.key_id} was not rotated: nobody knows whether the sink took it: {error}",
            hint="old and new secret both work; run the same command again to finish the rotation",
        )

    def delivered(self, staged: Sequence[StagedRotation]) -> str:
        """Return which secrets were delivered."""
        names = ", ".join(item.key_id for item in staged)
        return f"the new secret of {names} was delivered"

    def _confirm(
        self,
        unit: Unit,
        staged: StagedRotation,
        key: Key | None,
        secrets: Sequence[Secret],
        run: Run,
    ) -> DeliveryError | None:
        """Make the new secret active and the old and abandoned ones retiring; return why not."""
        mine = queries.release_claim(unit.connection, staged.key_id, run.id)
        secret = next((item for item in secrets if item.id == staged.secret.id), None)
        if not mine and was_confirmed(secret, run):
            return None  # an earlier try was committed, its answer was lost
        if key is None or key.deleted_at is not None:
            return DeliveryError(
                f"key {staged.key_id} was deleted before it could be confirmed",
                hint=f"the delivered key string is dead; keyctl info {staged.key_id} tells more",
            )
        if secret is None or secret.state == "revoked":
            _suspect(unit, key)
            return DeliveryError(
                f"the new secret of key {key.id} was revoked before it could be confirmed",
                hint=f"the delivered key string is dead; run keyctl rotate {key.id}",
            )
        if not mine:
            _suspect(unit, key)
            return FencedError(
                f"another run took key {key.id} over before this one could confirm it",
                hint=f"the sink may hold an older secret; run keyctl rotate {key.id}",
            )
        try:
            refuse_lost(
                unit, self.workspace.settings, key, "rotate", to_own_sink=staged.to_own_sink
            )
        except DeniedError as error:
            _record_failure(unit, staged, why=error.message, revoke=False)
            return _lost(staged, error)
        _activate(unit, key, secrets, staged)
        return None


def _record_failure(unit: Unit, staged: StagedRotation, *, why: str, revoke: bool) -> None:
    if revoke and staged.secret.supplied:
        # Nobody has used it: the same string may be supplied again.
        queries.delete_secret(unit.connection, staged.secret.id)
    elif revoke:
        queries.update_secret(unit.connection, staged.secret.id, state="revoked")
    unit.record(
        "key_rotation_failed",
        "key",
        staged.key_id,
        after={
            "secret_id": staged.secret.id,
            "state": "revoked" if revoke else "staged",
        },
        reason=why,
    )


def _suspect(unit: Unit, key: Key) -> None:
    # Written although this run failed: only the next rotation makes the sink certain again.
    queries.update_key(unit.connection, key.id, sink_suspect_at=unit.now)
    unit.record(
        "key_sink_suspect",
        "key",
        key.id,
        before={"sink_suspect_at": key.sink_suspect_at},
        after={"sink_suspect_at": unit.now},
    )


def _activate(unit: Unit, key: Key, secrets: Sequence[Secret], staged: StagedRotation) -> None:
    at = staged.fixed_at or unit.now
    ends_at = retire_at(key, staged.grace, at)
    for secret in secrets:
        if secret.id == staged.secret.id or secret.state not in ("active", "staged"):
            continue  # a retiring one keeps its first deadline
        ended = ends_at <= unit.now
        queries.update_secret(
            unit.connection,
            secret.id,
            state="revoked" if ended else "retiring",
            not_after=ends_at,
            # So that a late run does not take what this one did for its own confirm.
            **({"run_id": staged.claim.run_id} if secret.state == "staged" else {}),
        )
    queries.update_secret(unit.connection, staged.secret.id, state="active", not_after=key.expires)
    after = replace(
        key,
        rotation_count=key.rotation_count + 1,
        last_rotation_at=at,
        key_rotation_at=next_rotation(key, at),
        sink_suspect_at=still_suspect(key, staged.claim),
        updated_at=unit.now,
        updated_by=unit.caller.actor,
    )
    queries.update_key(
        unit.connection,
        key.id,
        rotation_count=after.rotation_count,
        last_rotation_at=after.last_rotation_at,
        key_rotation_at=after.key_rotation_at,
        sink_suspect_at=after.sink_suspect_at,
        updated_at=after.updated_at,
        updated_by=after.updated_by,
    )
    unit.record(
        "key_rotated",
        "key",
        key.id,
        before={**row_of(key), "secret_id": staged.old.id if staged.old else None},
        after={**row_of(after), "secret_id": staged.secret.id},
    )


def _lost(staged: StagedRotation, error: Exception) -> DeliveryError:
    return DeliveryError(
        f"the new secret of key {staged.key_id} was delivered, not confirmed: {error}",
        hint=f"old and new secret both work; let an admin run keyctl rotate {staged.key_id}",
    )
