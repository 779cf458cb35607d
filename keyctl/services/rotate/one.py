"""Rotate a key: stage a new secret, deliver it, and only then let the old one end."""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import hashing, keystring
from keyctl.db import queries
from keyctl.db.failures import broken_constraint
from keyctl.durations import Grace
from keyctl.errors import BusyError, KeyctlError
from keyctl.keystring import KeyString
from keyctl.records import Key
from keyctl.services import denials
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.protocol import Delivery, until_done
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import target_of
from keyctl.services.denials import Attempt
from keyctl.services.issue.takeover import key_taken
from keyctl.services.keys.find import find, may_see, not_found
from keyctl.services.rotate.confirm import RotationRows
from keyctl.services.rotate.eligibility import is_own_sink, refuse_unfit
from keyctl.services.rotate.model import StagedRotation, Wanted
from keyctl.services.rotate.stage import RotationStaging
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateOrder:
    """Which key, with which grace for its old secret (None: the key's or the configuration's own).

    `administers` asks that the new secret may be used as a caller, whoever takes it: for admins.
    """

    given: str
    grace: Grace | None = None
    supplied: str | None = None
    administers: bool = False


@dataclass(frozen=True, slots=True)
class RotateService:
    """Rotates keys.  `rotate` is two transactions with the delivery between them."""

    workspace: Workspace

    def rotate(self, order: RotateOrder, sink: Sink) -> dict[str, Any]:
        """Give the key a new secret, deliver it to *sink*, and retire the old one; return the answer.

        Raises:
            KeyNotFoundError: There is no such key.
            PolicyDeniedError: It is blocked, expired, deleted or pending, or not the caller's.
            BusyError: Another run is rotating it.
            DeliveryError: The sink did not take it, or nobody knows; the old secret was not touched.
        """
        supplied = None if order.supplied is None else keystring.supplied(order.supplied)
        with (
            denials.recorded(self.workspace, "key_rotate_denied", "key", order.given) as attempt,
            run_lock.begun(self.workspace.runs_folder) as run,
        ):
            key = self._find(order, sink, run, attempt)
            sink.check(target_of(key))
            delivery = Delivery(
                workspace=self.workspace, run=run, rows=RotationRows(self.workspace)
            )
            staging = RotationStaging(workspace=self.workspace, run=run, grace=order.grace)
            key_string = supplied or self.workspace.mint()
            wanted = Wanted(
                key_id=key.id,
                key_string=key_string,
                hashed=self._hash(key_string),
                sink=sink,
                supplied=supplied is not None,
                administers=order.administers,
            )
            (staged,) = until_done(
                wanted,
                lambda wanted: delivery.stage(
                    lambda unit, dead: staging.write(unit, dead, [wanted])
                ),
                again=self._again,
            )
            if isinstance(staged, KeyctlError):
                raise staged
            return self._hand_over(staged, sink, delivery)

    def _hash(self, key: KeyString) -> str:
        return hashing.hash_key(key, cost=self.workspace.settings.bcrypt_cost)

    def _again(self, error: ConstraintError, wanted: Wanted) -> Wanted:
        """Return what to try after *error*: with another key string, where this one is known."""
        broken = broken_constraint(error)
        if broken == "pk_claims":
            return wanted
        if broken != "uq_secrets_lookup":
            raise error
        if wanted.supplied:
            raise key_taken() from error
        key_string = self.workspace.mint()
        return replace(wanted, key_string=key_string, hashed=self._hash(key_string))

    def _hand_over(
        self, staged: StagedRotation, sink: Sink, delivery: Delivery[StagedRotation]
    ) -> dict[str, Any]:
        handed = delivery.hand_over([delivery.to_sink(staged, staged.answer(), sink)])
        outcome = handed.unless_broken()[staged.key_id]
        if isinstance(outcome, KeyctlError):
            raise outcome
        return staged.answer(confirmed_at=outcome.at)

    def _find(self, order: RotateOrder, sink: Sink, run: Run, attempt: Attempt) -> Key:
        """Return the key, refusing early what the first transaction would refuse."""
        database = self.workspace.database
        with database.read() as connection:
            now = database.now(connection)
            key = find(connection, order.given, caller=self.workspace.caller)
            if not may_see(self.workspace.caller, key):
                raise not_found(order.given)
            attempt.object_id = key.id
            claim = queries.find_claim(connection, key.id)
            if claim is not None and run.is_alive(claim, now=now):
                raise _busy(key)
            refuse_unfit(
                self.workspace.settings,
                connection,
                self.workspace.caller,
                key,
                to_own_sink=is_own_sink(self.workspace.settings, key, sink),
                now=now,
                supplied=order.supplied,
            )
        return key


def _busy(key: Key) -> BusyError:
    return BusyError(f"key {key.id} is being rotated by another run", hint="try again later")
