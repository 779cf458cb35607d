"""Confirm new keys, or take them back: what the delivery protocol writes and says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from keyctl.db import queries
from keyctl.errors import DeliveryError, DeniedError, FencedError, KeyctlError
from keyctl.records import Key, Secret
from keyctl.services.authorize.verdict import Judgement, refuse_lost
from keyctl.services.delivery.confirm import was_confirmed
from keyctl.services.delivery.protocol import Fault, Staged
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import not_delivered
from keyctl.services.transaction import Unit, archive_pending, row_of
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedKey(Staged):
    """A new key between its two transactions.

    Keys of a batch may share their verdict: its id and alias are then those of the first.
    `administers` tells that the secret will; `taken_over` that a dead run had begun the key.
    """

    verdict: Judgement
    administers: bool
    taken_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeyRows:
    """Makes the secrets of new keys active, or archives the keys: nobody depends on them yet.

    One that is made *alone* is told whole in the audit trail; of a batch, what changed.
    """

    workspace: Workspace
    alone: bool = False

    def confirm(
        self, unit: Unit, staged: Sequence[StagedKey], run: Run
    ) -> Iterator[KeyctlError | None]:
        """Confirm every key that this run still has its claim on; yield of the others why not."""
        key_ids = [item.key_id for item in staged]
        known = self._locked(unit, key_ids)
        claimed = queries.keys_claimed_by(unit.connection, run.id)
        # Keys of a uniform batch are one verdict's: what is right for the first is for all.
        judged = {
            id(item.verdict): known.get(item.key_id, item.verdict.key)
            for item in staged
            if item.key_id in claimed
        }
        for key in judged.values():
            refuse_lost(unit, self.workspace.settings, key, "generate")
        # These and no others: the run may have a claim on what a sink refused.
        mine = queries.confirm_keys(unit.connection, run.id, key_ids, at=unit.now)
        queries.release_claims(unit.connection, run.id, key_ids)
        self._finish(unit, [item for item in staged if item.key_id in mine], run)
        lost = [item.secret.id for item in staged if item.key_id not in mine]
        secrets = queries.secrets_by_id(unit.connection, lost) if lost else {}
        for item in staged:
            if item.key_id in mine:
                _record(unit, item, known.get(item.key_id))
                yield None
                continue
            secret = secrets.get(item.secret.id)
            # Or an earlier try of this confirm was committed, and its answer was lost.
            yield None if was_confirmed(secret, run) else _ended(item, secret)

    def take_back(self, unit: Unit, staged: StagedKey, run: Run, fault: Fault, *, why: str) -> None:
        """Revoke and archive the key.

        If the database is away, the staged secret ends at the claim's deadline by itself.
        """
        key = queries.find_key(unit.connection, staged.key_id, lock=True)
        if key is not None and queries.release_claim(unit.connection, key.id, run.id):
            archive_pending(unit, key, reason=f"delivery failed: {why}")

    def refusal(self, staged: Sequence[StagedKey], fault: Fault, error: Exception) -> KeyctlError:
        """Return what is said of keys that were taken back."""
        if fault is Fault.DENIED:
            if self.alone:
                return DeliveryError(
                    f"key {staged[0].key_id} was revoked before it could be confirmed: {error}",
                    hint="the delivered key string is dead",
                )
            if isinstance(error, DeniedError):
                return error
        if len(staged) == 1:
            message = f"the key was not delivered: {error}"
            hint = "it was revoked at once; mend the cause and run the same command again"
        else:
            message = f"{len(staged)} keys were not delivered: {error}"
            hint = "they were revoked at once; mend the cause and make the missing ones again"
        return not_delivered(error, message, hint=hint)

    def delivered(self, staged: Sequence[StagedKey]) -> str:
        """Return which keys were delivered."""
        if len(staged) == 1:
            return f"key {staged[0].key_id} was delivered"
        return f"{len(staged)} keys were delivered"

    def _finish(self, unit: Unit, confirmed: Sequence[StagedKey], run: Run) -> None:
        for item in confirmed:
            if item.taken_over:
                queries.retire_abandoned(unit.connection, item.key_id, run_id=run.id)
        administering = [item.secret.id for item in confirmed if item.administers]
        queries.let_administer(unit.connection, administering)

    def _locked(self, unit: Unit, key_ids: Sequence[str]) -> dict[str, Key]:
        """Lock the keys, in everybody's order; return them where they are told whole."""
        if not self.alone:
            queries.lock_keys(unit.connection, key_ids)
            return {}
        return {key.id: key for key in queries.find_keys(unit.connection, key_ids, lock=True)}


def _record(unit: Unit, staged: StagedKey, key: Key | None) -> None:
    whole = {} if key is None else row_of(key)
    unit.record(
        "key_generated",
        "key",
        staged.key_id,
        before={"confirmed_at": None, "updated_at": staged.secret.created_at, **whole},
        after={
            **whole,
            "confirmed_at": unit.now,
            "updated_at": unit.now,
            "secret_id": staged.secret.id,
            "administers": staged.administers,
        },
    )


def _ended(staged: StagedKey, secret: Secret | None) -> DeliveryError:
    if secret is None or secret.state == "revoked":
        return DeliveryError(
            f"key {staged.key_id} was deleted or revoked before it could be confirmed",
            hint="the delivered key string is dead; run the same command again if it is still wanted",
        )
    return FencedError(
        f"another run took key {staged.key_id} over before this one could confirm it",
        hint="run the same command again",
    )
