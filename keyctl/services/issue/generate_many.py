"""Generate many keys: hashed on all cores, staged, delivered and confirmed in batches.

Each key goes through the protocol of a single one; a batch shares its transactions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import views
from keyctl.db import queries
from keyctl.db.failures import broken_constraint
from keyctl.db.queries.audit import Head
from keyctl.errors import (
    AliasTakenError,
    BatchError,
    BusyError,
    DatabaseError,
    DeliveryError,
    DeniedError,
    KeyctlError,
    PolicyDeniedError,
    UsageError,
)
from keyctl.keystring import KeyString
from keyctl.policy import engine, resolve
from keyctl.records import Claim, Key
from keyctl.services import denials
from keyctl.services.authorize.custom_hook import decide
from keyctl.services.authorize.verdict import KeyDecision, Verdict, gather, refuse_lost
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.confirm import Written, check_written, persist, uninterrupted
from keyctl.services.delivery.run_lock import Run
from keyctl.services.denials import Attempt
from keyctl.services.issue.minting import batch_size, minted
from keyctl.services.issue.order import (
    Order,
    answer_of,
    new_key_id,
    record_staging,
    staged_secret,
)
from keyctl.services.issue.takeover import taken_aliases
from keyctl.services.transaction import Unit, archive_pending, row_of, writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, UnknownError

_TRIES: Final = 20


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
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    made: Sequence[Made]
    secrets: Sequence[dict[str, Any]]
    staged_at: datetime
    heads: Sequence[Head]
    sample: Key | None
    administers: bool

    @property
    def key_ids(self) -> list[str]:
        return [secret["key_id"] for secret in self.secrets]


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
        _check(order)
        engine.check_overrides(order.overrides)
        done = refused = 0
        with (
            denials.recorded(self.workspace, "key_denied", "key", order.request.key_alias or ""),
            run_lock.begun(self.workspace.runs_folder) as run,
        ):
            decide(self.workspace.settings, order.request, self.workspace.caller)
            size = batch or batch_size(self.workspace)
            for named in self._minted(order, count, size):
                try:
                    staged = self._stage_until_done(order, named, run)
                    self._hand_over(staged, deliver, run)
                except DeniedError as error:
                    if done == 0:
                        raise
                    raise BatchError(
                        f"{done} keys were made, then no more: {error.message}",
                        hint=error.hint,
                        violations=error.violations,
                    ) from error
                done += len(staged.secrets)
                refused += len(staged.made) - len(staged.secrets)
        return done, refused

    def _minted(self, order: Order, count: int, batch: int) -> Iterator[list[_Minted]]:
        """Yield batches of hashed keys with the aliases of the template."""
        template, number = order.request.key_alias, 0
        for keys in minted(self.workspace, count, batch):
            named = []
            for item in keys:
                number += 1
                alias = None if template is None else template.replace("{n}", str(number))
                named.append(_Minted(alias=alias, key=item.key, hash=item.hash))
            yield named

    def _stage_until_done(self, order: Order, minted: Sequence[_Minted], run: Run) -> _Batch:
        for attempt in range(_TRIES):
            try:
                return self._stage(order, minted, run)
            except ConstraintError as error:
                # Somebody took an alias between the question and the write: ask again.
                last = attempt == _TRIES - 1
                if last or broken_constraint(error) not in (
                    "uq_keys_key_alias",
                    "uq_secrets_lookup",
                ):
                    raise
        raise AssertionError  # the loop returns or raises

    def _stage(self, order: Order, minted: Sequence[_Minted], run: Run) -> _Batch:
        with writing(self.workspace) as unit:
            values = resolve.given_values(order.request)
            decision = gather(
                unit.connection,
                self.workspace.settings,
                unit.caller,
                values,
                service_account=order.service_account,
                overrides=order.overrides,
                now=unit.now,
            )
            taken = taken_aliases(unit, [item.alias for item in minted if item.alias], run)
            judged = _judged(decision, minted, taken)
            accepted = [item for item in judged if isinstance(item, _Accepted)]
            for one, item in zip(minted, judged, strict=True):
                if isinstance(item, PolicyDeniedError):
                    denials.note(unit, Attempt("key_denied", "key", one.alias or ""), item)
            claims = [
                Claim(
                    key_id=item.key_id,
                    run_id=run.id,
                    fingerprint=None,
                    staged_at=unit.now,
                    deadline_at=unit.now + run_lock.SLACK,
                )
                for item in accepted
            ]
            rows = [
                staged_secret(item.minted.key, item.minted.hash, claim, unit.caller)
                for item, claim in zip(accepted, claims, strict=True)
            ]
            if accepted:
                _insert(unit, accepted, uniform=decision.is_uniform)
                queries.insert_secret(unit.connection, *rows)
                queries.insert_claim(unit.connection, *claims)
            persisted = _per_verdict(accepted, lambda verdict: row_of(verdict.key))
            for item, row, base in zip(accepted, rows, persisted, strict=True):
                record_staging(
                    unit,
                    item.verdict,
                    {**base, "id": item.key_id, "key_alias": item.minted.alias},
                    row["id"],
                    reason=order.reason,
                )
        run.claimed.update(item.key_id for item in accepted)
        answers = _per_verdict(
            accepted,
            lambda verdict: answer_of(
                verdict, None, unit.heads[-1], self.workspace.settings, now=unit.now
            ),
        )
        told = iter(
            {
                **answer,
                **views.names_view(item.key_id, row["id"]),
                "key_alias": item.minted.alias,
            }
            for item, row, answer in zip(accepted, rows, answers, strict=True)
        )
        made = [
            Made(key_alias=item.minted.alias, key=item.minted.key, answer=next(told))
            if isinstance(item, _Accepted)
            else Made(key_alias=one.alias, error=item)
            for one, item in zip(minted, judged, strict=True)
        ]
        first = accepted[0].verdict if accepted else None
        return _Batch(
            made=made,
            secrets=rows,
            staged_at=unit.now,
            heads=unit.heads,
            # All of a batch are one caller's, for the same owners, and end at the same time.
            sample=first.key if first else None,
            administers=first is not None and first.administers,
        )

    def _hand_over(self, batch: _Batch, deliver: Deliver, run: Run) -> None:
        try:
            deliver(batch.made)
        except (NotTakenError, UnknownError) as error:
            self._take_back(batch, run, why=str(error))
            raise DeliveryError(
                f"{len(batch.secrets)} keys were not delivered: {error}",
                hint="they were revoked at once; mend the cause and make the missing ones again",
            ) from error
        except BaseException:
            self._take_back(batch, run, why="interrupted")
            raise
        if not batch.secrets:
            return
        with uninterrupted():
            heads = self._confirmed(batch, run)
            run.claimed.difference_update(batch.key_ids)
            written = Written(secrets=batch.secrets, events=[*batch.heads, *heads])
            persist(
                lambda: check_written(self.workspace.database, [written]),
                delivered=f"{len(batch.secrets)} keys were delivered and confirmed",
            )

    def _confirmed(self, batch: _Batch, run: Run) -> Sequence[Head]:
        """Confirm, however often it takes; revoke the keys if the caller lost the right to them."""
        try:
            return persist(
                lambda: self._confirm(batch, run),
                delivered=f"{len(batch.secrets)} keys were delivered",
            )
        except DeniedError as error:
            self._take_back(batch, run, why=error.message)
            raise

    def _confirm(self, batch: _Batch, run: Run) -> Sequence[Head]:
        """Make the staged secrets active, all of them or none."""
        with writing(self.workspace) as unit:
            mine = queries.release_claims(unit.connection, run.id)
            if mine != len(batch.secrets):
                first = queries.find_secret(unit.connection, batch.secrets[0]["id"])
                if mine == 0 and first is not None and first.state in ("active", "retiring"):
                    return ()  # an earlier try of this confirm was committed, its answer was lost
                raise DeliveryError(
                    f"another run took {len(batch.secrets) - mine} of these keys over before they could be confirmed",
                    hint="the delivered key strings of this batch are dead; make them again",
                )
            if batch.sample is not None:
                refuse_lost(unit, self.workspace.settings, batch.sample, "generate")
            queries.confirm_keys(unit.connection, run.id, at=unit.now)
            if batch.administers:
                queries.let_administer(unit.connection, [item["id"] for item in batch.secrets])
            before = {"confirmed_at": None, "updated_at": batch.staged_at}
            after = {"confirmed_at": unit.now, "updated_at": unit.now}
            for secret in batch.secrets:
                unit.record(
                    "key_generated",
                    "key",
                    secret["key_id"],
                    before=before,
                    after={
                        **after,
                        "secret_id": secret["id"],
                        "administers": batch.administers,
                    },
                )
        return unit.heads

    def _take_back(self, batch: _Batch, run: Run, *, why: str) -> None:
        try:
            with writing(self.workspace, to_finish=True) as unit:
                for key_id in batch.key_ids:
                    key = queries.find_key(unit.connection, key_id, lock=True)
                    if key and queries.release_claim(unit.connection, key.id, run.id):
                        archive_pending(unit, key, reason=f"delivery failed: {why}")
        except (DatabaseError, BusyError):
            return
        run.claimed.difference_update(batch.key_ids)


def _check(order: Order) -> None:
    alias = order.request.key_alias
    if alias is not None and "{n}" not in alias:
        raise UsageError(
            "--count needs {n} in the alias, which is unique", hint="such as --alias 'ci-{n}'"
        )
    if order.request.key is not None:
        raise UsageError("--count cannot supply a key", hint="let keyctl generate them")
    if order.request_id is not None:
        raise UsageError(
            "--count takes no --request-id",
            hint="give an alias template: a second run makes only what is missing",
        )


def _judged(
    decision: KeyDecision, minted: Sequence[_Minted], taken: set[str]
) -> list[_Accepted | KeyctlError]:
    """Judge each key as if it were alone, on facts that count the ones before it.

    Raises:
        PolicyDeniedError: None of them can be made, whatever its alias.
    """
    uniform = decision.is_uniform
    verdict: Verdict | None = None
    found: list[_Accepted | KeyctlError] = []
    for item in minted:
        if item.alias in taken:
            found.append(_alias_taken(item.alias))
            continue
        key_id = new_key_id()
        if verdict is None or not uniform:
            verdict = decision.verdict(key_id, item.alias)
        if verdict.violations:
            error = engine.refuse(list(verdict.violations))
            if uniform:
                raise error
            found.append(error)
            continue
        if not uniform:
            decision.count_as_live(verdict.key)
        found.append(_Accepted(minted=item, key_id=key_id, verdict=verdict))
    return found


def _insert(unit: Unit, accepted: Sequence[_Accepted], *, uniform: bool) -> None:
    if not uniform:
        queries.insert_key(unit.connection, *(item.verdict.key for item in accepted))
        return
    others = [(item.key_id, item.minted.alias) for item in accepted[1:]]
    queries.insert_like(unit.connection, accepted[0].verdict.key, others)


def _per_verdict(
    accepted: Sequence[_Accepted], make: Callable[[Verdict], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield what *make* makes of each verdict, made once for those that share one."""
    last: tuple[Verdict, dict[str, Any]] | None = None
    for item in accepted:
        if last is None or last[0] is not item.verdict:
            last = item.verdict, make(item.verdict)
        yield last[1]


def _alias_taken(alias: str | None) -> KeyctlError:
    return AliasTakenError(f"alias {alias!r} is taken by a live key")
