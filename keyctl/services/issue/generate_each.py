"""Generate many different keys, each for its own sink: staged and confirmed in batches.

Each key goes through the protocol of a single one; a batch shares its two transactions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl.db import queries
from keyctl.db.failures import broken_constraint
from keyctl.errors import (
    BatchError,
    BusyError,
    DatabaseError,
    DeniedError,
    KeyctlError,
    PolicyDeniedError,
)
from keyctl.policy import engine
from keyctl.records import Claim
from keyctl.services import denials
from keyctl.services.authorize.new_keys import NewKey, NewKeys
from keyctl.services.authorize.owners import Roster
from keyctl.services.authorize.totals import RunningSums
from keyctl.services.authorize.verdict import Judgement
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.protocol import Delivery, claim_for, steady_end, until_done
from keyctl.services.delivery.run_lock import Run
from keyctl.services.denials import Attempt
from keyctl.services.issue.minting import Minted, batch_size, minted
from keyctl.services.issue.new_key import NewKeyRows, StagedKey
from keyctl.services.issue.order import answer_of, record_staging, staged_secret
from keyctl.services.issue.takeover import alias_taken, taken_aliases
from keyctl.services.transaction import Unit, row_of, writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink, Target

# With a sink that takes its time, so many keys are between their transactions at once: a killed
# run leaves no more of them to be made anew.
_WITH_A_SLOW_SINK: Final = 8
# Each key has a verdict, an answer, rows and a sink of its own until its batch is done: a thousand
# take forty megabytes.
_LARGEST_BATCH: Final = 250
_Pair = tuple["Job", Minted]


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
        size = _WITH_A_SLOW_SINK if slow else min(batch_size(self.workspace), _LARGEST_BATCH)
        waiting = iter(jobs)
        made = 0
        with run_lock.begun(self.workspace.runs_folder) as run:
            delivery = Delivery(
                workspace=self.workspace,
                run=run,
                rows=NewKeyRows(workspace=self.workspace),
                reads_later=True,
            )
            try:
                for keys in minted(self.workspace, len(jobs), size):
                    pairs = list(zip(islice(waiting, len(keys)), keys, strict=True))
                    done = self._batch(pairs, delivery, made)
                    made += sum(item.error is None for item in done)
                    yield from done
                    # What is wrong with one secret must not hide what became of the others.
                    delivery.read_back()
            finally:
                delivery.read_back()

    def _batch(
        self, pairs: Sequence[_Pair], delivery: Delivery[StagedKey], made: int
    ) -> list[Done]:
        try:
            return list(self._make(pairs, delivery))
        except DeniedError as error:
            if made == 0:
                raise
            raise BatchError(
                f"{made} keys were made, then no more: {error.message}", hint=error.hint
            ) from error

    def _make(self, pairs: Sequence[_Pair], delivery: Delivery[StagedKey]) -> Iterator[Done]:
        refused = [job for job, _ in pairs if _refusal(job) is not None]
        became: dict[str, KeyctlError | dict[str, Any]] = {}
        if refused:
            became.update(self._refused_still(refused, delivery.run))
        fit = [pair for pair in pairs if pair[0].key_id not in became]
        written = until_done(
            fit,
            lambda fit: delivery.stage(lambda unit, _: self.write(unit, fit, delivery.run)),
            again=_again,
        )
        loads = []
        for (job, _), item in zip(fit, written, strict=True):
            if isinstance(item, KeyctlError):
                became[job.key_id] = item
            else:
                answer = self._answer(item)
                became[job.key_id] = answer
                loads.append(delivery.to_sink(item, answer, job.sink))
        outcomes = delivery.hand_over(loads).unless_broken()
        became.update(
            (key_id, item) for key_id, item in outcomes.items() if isinstance(item, KeyctlError)
        )
        for job, _ in pairs:
            what = became[job.key_id]
            if isinstance(what, KeyctlError):
                yield Done(job=job, error=what)
            else:
                yield Done(job=job, answer=what)

    def _refused_still(self, jobs: Sequence[Job], run: Run) -> dict[str, KeyctlError]:
        """Return which sinks refuse when what dead runs left is archived, and its place free again.

        Where another run has made the key meanwhile, that is why.
        """
        aliases = [job.alias for job in jobs if job.alias is not None]
        with writing(self.workspace) as unit:
            taken = taken_aliases(unit, aliases, run)
        found: dict[str, KeyctlError] = {}
        for job in jobs:
            error = taken.get(job.alias or "") or _refusal(job)
            if error is not None:
                found[job.key_id] = error
        return found

    def _answer(self, staged: StagedKey) -> dict[str, Any]:
        return answer_of(
            staged.verdict,
            staged.secret.id,
            staged.heads[-1],
            self.workspace.settings,
            now=staged.secret.created_at,
        )

    def write(
        self, unit: Unit, pairs: Sequence[_Pair], run: Run
    ) -> Iterator[StagedKey | KeyctlError]:
        """Judge each key, write together those that may be made, and yield what became of each."""
        lasts = sum((job.sink.timeout for job, _ in pairs), start=timedelta())
        judged = list(self._judged(unit, pairs, run))
        keys: list[StagedKey] = []
        claims: list[Claim] = []
        for job, key, verdict in judged:
            if isinstance(verdict, KeyctlError):
                continue
            claims.append(claim_for(run, job.key_id, at=unit.now, lasts=lasts))
            keys.append(
                StagedKey(
                    key_string=key.key,
                    secret=staged_secret(key.key, key.hash, claims[-1], unit.caller),
                    claim_expires_monotonic=steady_end(claims[-1]),
                    verdict=verdict,
                    administers=job.administers and verdict.administers,
                )
            )
        if keys:
            queries.insert_key(unit.connection, *(item.verdict.key for item in keys))
            queries.insert_secret(unit.connection, *(item.secret for item in keys))
            queries.insert_claim(unit.connection, *claims)
        written = iter(keys)
        for _, _, verdict in judged:
            if isinstance(verdict, KeyctlError):
                yield verdict
                continue
            item = next(written)
            row = row_of(verdict.key)
            record_staging(unit, verdict, row, item.secret.id, reason=self.reason)
            yield item

    def _judged(
        self, unit: Unit, pairs: Sequence[_Pair], run: Run
    ) -> Iterator[tuple[Job, Minted, Judgement | KeyctlError]]:
        """Yield the verdict on each key, with its sink and its fleet, or why it cannot be made."""
        judge = self._judge(unit, [job.wanted for job, _ in pairs])
        taken = taken_aliases(unit, [job.alias for job, _ in pairs if job.alias], run)
        for job, key in pairs:
            if job.alias is not None and job.alias in taken:
                yield job, key, taken[job.alias]
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
                    taken[job.alias] = alias_taken(job.alias)
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
            ledger=RunningSums(now=unit.now),
            now=unit.now,
            lock=True,
            overrides=self.overrides,
        )


def _refusal(job: Job) -> KeyctlError | None:
    """Return why the sink would not take the key, None if it would."""
    try:
        job.sink.check(job.target)
    except KeyctlError as error:
        return error
    return None


def _again(error: ConstraintError, pairs: list[_Pair]) -> list[_Pair]:
    """Let the next try find out who took an alias between the question and the write."""
    if broken_constraint(error) not in ("uq_keys_key_alias", "uq_secrets_lookup"):
        raise error
    return pairs
