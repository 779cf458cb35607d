"""Generate many keys: hashed on all cores, staged, delivered and confirmed in batches.

Each key goes through the protocol of a single one; a batch shares its transactions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import views
from keyctl.db import queries
from keyctl.db.failures import broken_constraint
from keyctl.errors import (
    BatchError,
    DeliveryError,
    DeniedError,
    KeyctlError,
    PolicyDeniedError,
)
from keyctl.keystring import KeyString
from keyctl.policy import engine, resolve
from keyctl.services import denials
from keyctl.services.authorize.custom_hook import decide
from keyctl.services.authorize.verdict import Judgement, KeyDecision, gather
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.protocol import Delivery, Load, claim_for, steady_end, until_done
from keyctl.services.delivery.run_lock import Run
from keyctl.services.denials import Attempt
from keyctl.services.issue.judge_many import aliases, check_many, verdicts
from keyctl.services.issue.minting import batch_size, minted
from keyctl.services.issue.new_key import NewKeyRows, StagedKey
from keyctl.services.issue.order import (
    Order,
    answer_of,
    record_staging,
    staged_secret,
)
from keyctl.services.issue.takeover import taken_aliases
from keyctl.services.transaction import Unit, anchor, row_of
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One key of a batch: delivered with its key string, or refused and why."""

    key_alias: str | None
    key: KeyString | None = None
    answer: dict[str, Any] | None = None
    error: KeyctlError | None = None


# Takes the keys of one batch.  Returning is the answer *taken*; a NotTakenError or UnknownError
# is as from any sink.
Deliver = Callable[[Sequence[Made]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Minted:
    alias: str | None
    key: KeyString
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Accepted:
    """A key that may be made.  In a uniform batch all share the verdict of the first."""

    minted: _Minted
    key_id: str
    verdict: Judgement


@dataclass(frozen=True, slots=True)
class BulkService:
    """Makes many keys from one request."""

    workspace: Workspace

    def generate(
        self, order: Order, count: int, deliver: Deliver, *, batch: int | None = None
    ) -> tuple[int, int]:
        """Make *count* keys with the aliases of the template, and return how many were made and refused.

        Keys that are refused, such as by a taken alias, do not stop the others.  A batch is a
        second's work or two, unless *batch* says how many keys: what a crash wastes at most.

        Raises:
            UsageError: The order cannot be carried out many times.
            DeniedError: Nothing may be made.
            DeliveryError: A batch was not delivered: its keys are archived, no more are begun.
            BatchError: Some were made, and then the caller lost the right to more.
        """
        check_many(order)
        engine.check_overrides(order.overrides)
        done = seen = 0
        with (
            denials.recorded(self.workspace, "key_denied", "key", order.request.key_alias or ""),
            run_lock.begun(self.workspace.runs_folder) as run,
        ):
            decide(self.workspace.settings, order.request, self.workspace.caller)
            size = batch or batch_size(self.workspace)
            delivery = Delivery(
                workspace=self.workspace, run=run, rows=NewKeyRows(workspace=self.workspace)
            )
            for named in self._minted(order, count, size):
                try:
                    done += self._make(order, named, deliver, delivery)
                except DeniedError as error:
                    if done == 0:
                        raise
                    raise BatchError(
                        f"{done} keys were made, then no more: {error.message}",
                        hint=error.hint,
                        violations=error.violations,
                    ) from error
                seen += len(named)
        return done, seen - done

    def _minted(self, order: Order, count: int, batch: int) -> Iterator[list[_Minted]]:
        """Yield batches of hashed keys with the aliases of the template."""
        names = aliases(order, count)
        for keys in minted(self.workspace, count, batch):
            yield [
                _Minted(alias=alias, key=item.key, hash=item.hash)
                for item, alias in zip(keys, names, strict=False)
            ]

    def _make(
        self,
        order: Order,
        minted: Sequence[_Minted],
        deliver: Deliver,
        delivery: Delivery[StagedKey],
    ) -> int:
        """Make one batch; return how many keys of it are there."""
        written: list[StagedKey | KeyctlError] = until_done(
            minted,
            lambda minted: delivery.stage(
                lambda unit, _: self._write(unit, order, minted, delivery.run)
            ),
            again=_again,
        )
        made = self._told(minted, written)
        staged = [item for item in written if isinstance(item, StagedKey)]
        handed = delivery.hand_over([Load(staged=staged, deliver=lambda: deliver(made))])
        outcomes = handed.unless_broken()
        if handed.refusals:
            raise handed.refusals[0]
        lost = [key_id for key_id, item in outcomes.items() if isinstance(item, KeyctlError)]
        if lost:
            raise DeliveryError(
                f"{len(lost)} of these keys were deleted, or taken over by another run,"
                f" before they could be confirmed: {', '.join(lost)}",
                hint="their delivered key strings are dead; make them again",
            )
        return len(staged)

    def _write(
        self, unit: Unit, order: Order, minted: Sequence[_Minted], run: Run
    ) -> Iterator[StagedKey | KeyctlError]:
        """Judge each key, write together those that may be made, and yield what became of each."""
        decision = gather(
            unit.connection,
            self.workspace.settings,
            unit.caller,
            resolve.given_values(order.request),
            service_account=order.service_account,
            overrides=order.overrides,
            now=unit.now,
        )
        taken = taken_aliases(unit, [item.alias for item in minted if item.alias], run)
        judged = _judged(decision, minted, taken)
        accepted = [item for item in judged if isinstance(item, _Accepted)]
        written = iter(_insert(unit, accepted, run, uniform=decision.is_uniform))
        rows = _per_verdict((item.verdict for item in accepted), lambda one: row_of(one.key))
        for one, item in zip(minted, judged, strict=True):
            if not isinstance(item, _Accepted):
                if isinstance(item, PolicyDeniedError):
                    denials.note(unit, Attempt("key_denied", "key", one.alias or ""), item)
                yield item
                continue
            staged = next(written)
            row = {**next(rows), "id": staged.key_id, "key_alias": one.alias}
            record_staging(unit, staged.verdict, row, staged.secret.id, reason=order.reason)
            yield staged

    def _told(
        self, minted: Sequence[_Minted], written: Sequence[StagedKey | KeyctlError]
    ) -> list[Made]:
        """Return what is told of each key: the answer, or why it was refused."""
        staged = [item for item in written if isinstance(item, StagedKey)]

        def answer(verdict: Judgement) -> dict[str, Any]:
            first = staged[0]
            return answer_of(
                verdict, None, first.heads[-1], self.workspace.settings, now=first.secret.created_at
            )

        answers = _per_verdict((item.verdict for item in staged), answer)
        return [
            Made(key_alias=one.alias, error=item)
            if isinstance(item, KeyctlError)
            else Made(
                key_alias=one.alias,
                key=one.key,
                answer={
                    **next(answers),
                    **views.names_view(item.key_id, item.secret.id),
                    "key_alias": one.alias,
                    "audit": anchor(item.heads[-1]),
                },
            )
            for one, item in zip(minted, written, strict=True)
        ]


def _again(error: ConstraintError, minted: Sequence[_Minted]) -> Sequence[_Minted]:
    """Let the next try find out who took an alias between the question and the write."""
    if broken_constraint(error) not in ("uq_keys_key_alias", "uq_secrets_lookup"):
        raise error
    return minted


def _judged(
    decision: KeyDecision, minted: Sequence[_Minted], taken: Mapping[str, KeyctlError]
) -> list[_Accepted | KeyctlError]:
    """Judge each key as if it were alone, on facts that count the ones before it.

    Raises:
        PolicyDeniedError: None of them can be made, whatever its alias.
    """
    uniform = decision.is_uniform
    found: list[_Accepted | KeyctlError] = []
    judged = verdicts(decision, (item.alias for item in minted), taken)
    for item, one in zip(minted, judged, strict=True):
        if isinstance(one, KeyctlError):
            found.append(one)
            continue
        key_id, verdict = one
        if verdict.violations:
            error = engine.refuse(list(verdict.violations))
            if uniform:
                raise error
            found.append(error)
            continue
        found.append(_Accepted(minted=item, key_id=key_id, verdict=verdict))
    return found


def _insert(
    unit: Unit, accepted: Sequence[_Accepted], run: Run, *, uniform: bool
) -> Iterator[StagedKey]:
    """Write these keys, their secrets and claims, a statement for each table; yield them."""
    if not accepted:
        return
    if uniform:
        others = [(item.key_id, item.minted.alias) for item in accepted[1:]]
        queries.insert_like(unit.connection, accepted[0].verdict.key, others)
    else:
        queries.insert_key(unit.connection, *(item.verdict.key for item in accepted))
    claims = [claim_for(run, item.key_id, at=unit.now, lasts=timedelta(0)) for item in accepted]
    secrets = [
        staged_secret(item.minted.key, item.minted.hash, claim, unit.caller)
        for item, claim in zip(accepted, claims, strict=True)
    ]
    queries.insert_secret(unit.connection, *secrets)
    queries.insert_claim(unit.connection, *claims)
    for item, claim, secret in zip(accepted, claims, secrets, strict=True):
        yield StagedKey(
            key_string=item.minted.key,
            secret=secret,
            claim_expires_monotonic=steady_end(claim),
            verdict=item.verdict,
            administers=item.verdict.administers,
        )


def _per_verdict(
    verdicts: Iterable[Judgement], make: Callable[[Judgement], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what *make* makes of each verdict, made once for those that share one."""
    last: tuple[Judgement, dict[str, Any]] | None = None
    for verdict in verdicts:
        if last is None or last[0] is not verdict:
            last = verdict, make(verdict)
        yield last[1]
