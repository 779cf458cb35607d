"""Generate many different keys, each for its own sink: staged and confirmed in batches.

Each key goes through the protocol of a single one; a batch shares its two transactions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl.db import queries
from keyctl.db.failures import broken_constraint
from keyctl.db.queries.audit import Head
from keyctl.errors import (
    BatchError,
    BusyError,
    DatabaseError,
    DeliveryError,
    DeniedError,
    FencedError,
    KeyctlError,
    PolicyDeniedError,
)
from keyctl.policy import engine
from keyctl.records import Claim, Key
from keyctl.services import denials
from keyctl.services.authorize.new_keys import NewKey, NewKeys
from keyctl.services.authorize.owners import Roster
from keyctl.services.authorize.totals import Ledger
from keyctl.services.authorize.verdict import Verdict, refuse_lost
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.confirm import Written, check_written, persist, uninterrupted
from keyctl.services.delivery.run_lock import Run
from keyctl.services.denials import Attempt
from keyctl.services.issue.minting import Minted, batch_size, minted
from keyctl.services.issue.order import answer_of, record_staging, staged_secret
from keyctl.services.issue.takeover import alias_taken, taken_aliases
from keyctl.services.transaction import Unit, archive_pending, row_of, writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Parcel, Sink, Target, UnknownError

# With a sink that takes its time, so many keys are between their transactions at once: a killed
# run leaves no more of them to be made anew.
_WITH_A_SLOW_SINK: Final = 8
_TRIES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One key to be made: what it is to be, under which alias, and where its key string goes.

    `target` is what the sink's templates may name; `keeps_sink` tells that rotations go there too;
    `managed_by` is the fleet whose file describes the key.
    """

    wanted: NewKey
    alias: str | None
    sink: Sink
    keeps_sink: bool = False
    managed_by: str | None = None
    administers: bool = True
    key_id: str
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a job: the answer without the key string, or why there is no key."""

    job: Job
    answer: dict[str, Any] | None = None
    error: KeyctlError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Staged:
    job: Job
    minted: Minted
    key: Key
    secret: dict[str, Any]
    administers: bool
    answer: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Keys between their two transactions, and what failed on the way."""

    staged: list[_Staged]
    failed: dict[str, KeyctlError]
    staged_at: datetime
    heads: Sequence[Head]


@dataclass(frozen=True, slots=True)
class EachService:
    """Makes many different keys.  One that fails stops none of the others."""

    workspace: Workspace
    overrides: tuple[str, ...] = ()
    reason: str | None = None

    def generate(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """Make the keys, and yield what became of each as soon as its batch is done.

        Raises:
            DeniedError: The caller lost the right to make keys before one was made.
            BatchError: The same after some were.
            UnconfirmedError: Some were delivered, but the database was lost.
            CorruptedError: What was read back is not what was written.
        """
        if not jobs:
            return
        slow = any(job.sink.timeout for job in jobs)
        size = _WITH_A_SLOW_SINK if slow else batch_size(self.workspace)
        waiting = iter(jobs)
        made = 0
        with run_lock.begun(self.workspace.runs_folder) as run:
            for keys in minted(self.workspace, len(jobs), size):
                pairs = list(zip(islice(waiting, len(keys)), keys, strict=True))
                try:
                    done = list(self._make(pairs, run))
                except DeniedError as error:
                    if made == 0:
                        raise
                    raise BatchError(
                        f"{made} keys were made, then no more: {error.message}", hint=error.hint
                    ) from error
                made += sum(item.error is None for item in done)
                yield from done

    def _make(self, pairs: Sequence[tuple[Job, Minted]], run: Run) -> Iterator[Done]:
        failed: dict[str, KeyctlError] = {}
        fit = []
        for job, key in pairs:
            try:
                job.sink.check(job.target)
            except KeyctlError as error:
                failed[job.key_id] = error
            else:
                fit.append((job, key))
        batch = self._stage_until_done(fit, run)
        batch.failed.update(failed)
        self._hand_over(batch, run)
        answers = {item.job.key_id: item.answer for item in batch.staged}
        for job, _ in pairs:
            why = batch.failed.get(job.key_id)
            yield Done(job=job, answer=None if why else answers[job.key_id], error=why)

    # --- transaction 1

    def _stage_until_done(self, pairs: Sequence[tuple[Job, Minted]], run: Run) -> _Batch:
        for _ in range(_TRIES):
            try:
                return self._stage(pairs, run)
            except ConstraintError as error:
                # Somebody took an alias between the question and the write: ask again.
                if broken_constraint(error) not in ("uq_keys_key_alias", "uq_secrets_lookup"):
                    raise
        raise BusyError("other runs keep taking the same aliases", hint="try again")

    def _stage(self, pairs: Sequence[tuple[Job, Minted]], run: Run) -> _Batch:
        failed: dict[str, KeyctlError] = {}
        slack = run_lock.SLACK + sum((job.sink.timeout for job, _ in pairs), start=timedelta())
        with writing(self.workspace) as unit:
            staged, verdicts = [], []
            for job, key, judged in self._judged(unit, pairs, run):
                if isinstance(judged, KeyctlError):
                    failed[job.key_id] = judged
                    continue
                claim = Claim(
                    key_id=job.key_id,
                    run_id=run.id,
                    fingerprint=None,
                    staged_at=unit.now,
                    deadline_at=unit.now + slack,
                )
                secret = staged_secret(key.key, key.hash, claim, unit.caller)
                verdicts.append((judged, claim))
                administers = job.administers and judged.administers
                staged.append(
                    _Staged(
                        job=job,
                        minted=key,
                        key=judged.key,
                        secret=secret,
                        administers=administers,
                    )
                )
            if staged:
                queries.insert_key(unit.connection, *(item.key for item in staged))
                queries.insert_secret(unit.connection, *(item.secret for item in staged))
                queries.insert_claim(unit.connection, *(claim for _, claim in verdicts))
            for item, (verdict, _) in zip(staged, verdicts, strict=True):
                row = row_of(item.key)
                record_staging(unit, verdict, row, item.secret["id"], reason=self.reason)
        run.claimed.update(item.job.key_id for item in staged)
        told = [
            replace(
                item,
                answer=answer_of(
                    verdict,
                    item.secret["id"],
                    unit.heads[-1],
                    self.workspace.settings,
                    now=unit.now,
                ),
            )
            for item, (verdict, _) in zip(staged, verdicts, strict=True)
        ]
        return _Batch(staged=told, failed=failed, staged_at=unit.now, heads=unit.heads)

    def _judged(
        self, unit: Unit, pairs: Sequence[tuple[Job, Minted]], run: Run
    ) -> Iterator[tuple[Job, Minted, Verdict | KeyctlError]]:
        """Yield the verdict on each key, with its sink and its fleet, or why it cannot be made."""
        judge = self._judge(unit, [job.wanted for job, _ in pairs])
        taken = taken_aliases(unit, [job.alias for job, _ in pairs if job.alias], run)
        for job, key in pairs:
            if job.alias is not None and job.alias in taken:
                yield job, key, alias_taken(job.alias)
                continue
            try:
                verdict = judge.verdict(job.wanted, job.key_id, job.alias)
                if verdict.violations:
                    raise engine.refuse(list(verdict.violations))
            except PolicyDeniedError as error:
                denials.note(unit, Attempt("key_denied", "key", job.alias or ""), error)
                yield job, key, error
            except (DatabaseError, BusyError):
                raise
            except KeyctlError as error:
                yield job, key, error
            else:
                if job.alias is not None:
                    taken.add(job.alias)
                sink = job.sink.name if job.keeps_sink else None
                made = replace(verdict.key, sink=sink, managed_by=job.managed_by)
                yield job, key, replace(verdict, key=made)

    def _judge(self, unit: Unit, wanted: Iterable[NewKey]) -> NewKeys:
        """Return who judges, with the owners of the whole batch locked in keyctl's order."""
        every = list({id(item): item for item in wanted}.values())

        def owners(name: str) -> set[str]:
            return {owner for item in every for owner in item.owners(name)}

        return NewKeys(
            connection=unit.connection,
            workspace=self.workspace,
            caller=unit.caller,
            lookup=Roster.of(
                unit.connection,
                team_ids=owners("team_id"),
                user_ids=owners("user_id"),
                organization_ids=owners("organization_id"),
            ),
            ledger=Ledger(now=unit.now),
            now=unit.now,
            lock=True,
            overrides=self.overrides,
        )

    # --- deliver, and transaction 2

    def _hand_over(self, batch: _Batch, run: Run) -> None:
        """Deliver each key; confirm what arrived and take back the rest, however it ends."""
        delivered: list[_Staged] = []
        interrupted: BaseException | None = None
        try:
            for item in batch.staged:
                error = _delivered(item, run)
                if error is None:
                    delivered.append(item)
                else:
                    batch.failed[item.job.key_id] = error
        except BaseException as error:  # noqa: BLE001  # raised again when what arrived is confirmed
            interrupted = error
        if batch.staged:
            with uninterrupted():
                self._settle(batch, delivered, run)
        if interrupted is not None:
            raise interrupted

    def _settle(self, batch: _Batch, delivered: Sequence[_Staged], run: Run) -> None:
        arrived = {item.job.key_id for item in delivered}
        left = [item for item in batch.staged if item.job.key_id not in arrived]
        try:
            heads = persist(
                lambda: self._confirm(batch, delivered, left, run),
                delivered=f"{len(delivered)} keys were delivered",
            )
        except DeniedError as error:
            self._take_back(batch, run, error)
            return
        run.claimed.difference_update(item.job.key_id for item in batch.staged)
        confirmed = [item.secret for item in delivered if item.job.key_id not in batch.failed]
        written = Written(secrets=confirmed, events=[*batch.heads, *heads])
        persist(
            lambda: check_written(self.workspace.database, [written]),
            delivered=f"{len(confirmed)} keys were delivered and confirmed",
        )

    def _confirm(
        self, batch: _Batch, delivered: Sequence[_Staged], left: Sequence[_Staged], run: Run
    ) -> Sequence[Head]:
        """Make the delivered secrets active, and archive the keys that did not arrive."""
        with writing(self.workspace) as unit:
            mine = queries.keys_claimed_by(unit.connection, run.id)
            if not mine and _are_active(unit, delivered):
                return ()  # an earlier try of this confirm was committed, its answer was lost
            for item in left:
                key = queries.find_key(unit.connection, item.job.key_id, lock=True)
                if key and queries.release_claim(unit.connection, key.id, run.id):
                    why = batch.failed.get(key.id)
                    reason = "interrupted" if why is None else why.message
                    archive_pending(unit, key, reason=f"delivery failed: {reason}")
            for item in delivered:
                refuse_lost(unit, self.workspace.settings, item.key, "generate")
            queries.confirm_keys(unit.connection, run.id, at=unit.now)
            queries.let_administer(
                unit.connection, [item.secret["id"] for item in delivered if item.administers]
            )
            queries.release_claims(unit.connection, run.id)
            before = {"confirmed_at": None, "updated_at": batch.staged_at}
            after = {"confirmed_at": unit.now, "updated_at": unit.now}
            for item in delivered:
                if item.job.key_id not in mine:
                    batch.failed[item.job.key_id] = _fenced(item.job.key_id)
                    continue
                unit.record(
                    "key_generated",
                    "key",
                    item.job.key_id,
                    before=before,
                    after={
                        **after,
                        "secret_id": item.secret["id"],
                        "administers": item.administers,
                    },
                )
        return unit.heads

    def _take_back(self, batch: _Batch, run: Run, error: DeniedError) -> None:
        """Archive the keys of a caller who lost the right to them before they could be confirmed."""
        with writing(self.workspace, to_finish=True) as unit:
            for item in batch.staged:
                key = queries.find_key(unit.connection, item.job.key_id, lock=True)
                if key and queries.release_claim(unit.connection, key.id, run.id):
                    archive_pending(unit, key, reason=f"delivery failed: {error.message}")
                batch.failed.setdefault(item.job.key_id, error)
        run.claimed.difference_update(item.job.key_id for item in batch.staged)


def _delivered(item: _Staged, run: Run) -> DeliveryError | None:
    """Hand one key to its sink; return why it did not arrive, if it did not."""
    parcel = Parcel(item.minted.key, item.answer, run.lock, secret_id=item.secret["id"])
    try:
        item.job.sink.deliver(parcel)
    except (NotTakenError, UnknownError, KeyctlError) as error:
        return DeliveryError(
            f"the key was not delivered: {error}",
            hint="it was revoked at once; mend the cause and run the same command again",
        )
    return None


def _are_active(unit: Unit, delivered: Sequence[_Staged]) -> bool:
    if not delivered:
        return False
    secret = queries.find_secret(unit.connection, delivered[0].secret["id"])
    return secret is not None and secret.state in ("active", "retiring")


def _fenced(key_id: str) -> FencedError:
    return FencedError(
        f"key {key_id} was deleted, or taken over by another run, before it could be confirmed",
        hint="its delivered key string is dead; run the same command again if it is still wanted",
    )
