"""Generate a key: stage it, deliver its secret once, confirm it."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import hashing, jsontext, keystring
from keyctl.db import queries
from keyctl.db.failures import broken_constraint
from keyctl.db.queries.audit import Head
from keyctl.errors import (
    BusyError,
    DatabaseError,
    DeliveryError,
    DeniedError,
    FencedError,
    KeyctlError,
    PolicyDeniedError,
    RequestReplayedError,
)
from keyctl.keystring import KeyString
from keyctl.policy import engine, resolve
from keyctl.policy.facts import Caller
from keyctl.records import Claim, Key, Secret
from keyctl.requests import GenerateRequest
from keyctl.services import denials
from keyctl.services.authorize.custom_hook import decide
from keyctl.services.authorize.verdict import KeyDecision, Verdict, gather, refuse_lost
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.confirm import (
    Written,
    check_written,
    persist,
    uninterrupted,
    was_confirmed,
)
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import not_delivered, target_of
from keyctl.services.issue.order import (
    Order,
    Outcome,
    answer_of,
    new_key_id,
    record_staging,
    staged_secret,
)
from keyctl.services.issue.takeover import (
    Draft,
    Predecessors,
    StartOver,
    Wait,
    alias_taken,
    key_taken,
    own_request_id,
)
from keyctl.services.keys.find import may_see
from keyctl.services.transaction import Unit, archive_pending, row_of, writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Parcel, Sink, Target, UnknownError
from keyctl.sinks.file import FileSink

_WAIT: Final = 0.05
_TRIES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Staged:
    key: Key
    secret: dict[str, Any]
    answer: dict[str, Any]
    heads: Sequence[Head]
    administers: bool


@dataclass(frozen=True, slots=True)
class GenerateService:
    """Makes keys.  `generate` is two transactions with the delivery between them."""

    workspace: Workspace

    def generate(self, order: Order, sink: Sink) -> Outcome:
        """Make the key that *order* describes and deliver its secret to *sink*.

        Raises:
            PolicyDeniedError: With every rule that the request breaks.
            ConflictError: Its alias, key string or request id is taken.
            DeliveryError: The sink did not take it, or nobody knows; the key is archived.
            UnconfirmedError: Delivered, but the database was lost.
            CorruptedError: What was read back is not what was written.
        """
        engine.check_overrides(order.overrides)
        with (
            denials.recorded(self.workspace, "key_denied", "key", order.request.key_alias or ""),
            run_lock.begun(self.workspace.runs_folder) as run,
        ):
            draft = self._draft(order, sink)
            expected = self._expected(draft, run)
            if isinstance(expected, Outcome):
                return self._replayed(expected, order, sink)
            draft = replace(draft, key_id=expected or draft.key_id)
            sink.check(self._target(draft))
            decide(self.workspace.settings, order.request, self.workspace.caller)
            draft = replace(draft, hash=self._hash(draft.key))
            staged, draft = self._stage_until_done(draft, sink, run)
            if isinstance(staged, Outcome):
                return self._replayed(staged, order, sink)
            return self._hand_over(staged, draft, sink, run)

    def dry_run(self, order: Order) -> Verdict:
        """Return the whole verdict on *order*, the custom hook's included, and write nothing."""
        engine.check_overrides(order.overrides)
        values = resolve.given_values(order.request)
        supplied = _supplied(order.request)
        with self.workspace.database.read() as connection:
            verdict = self._judge(
                connection,
                self.workspace.caller,
                order,
                values,
                key_id=new_key_id(),
                now=self.workspace.database.now(connection),
                lock=False,
            )
            self._check_free(connection, verdict.key.key_alias, supplied)
        try:
            decide(self.workspace.settings, order.request, self.workspace.caller)
        except PolicyDeniedError as error:
            return replace(verdict, violations=(*verdict.violations, *error.violations))
        return verdict

    # --- before the first transaction

    def _draft(self, order: Order, sink: Sink) -> Draft:
        supplied = _supplied(order.request)
        values = resolve.given_values(order.request)
        values.pop("key", None)
        caller = self.workspace.caller
        as_given = {
            "caller": "local" if caller.key is None else caller.actor,
            "sink": sink.name,
            "request": values,
            "key": supplied.lookup if supplied else None,
            "service_account": order.service_account,
            "overrides": sorted(order.overrides),
        }
        return Draft(
            order=order,
            request_id=own_request_id(caller, order.request_id),
            key_id=new_key_id(),
            values=values,
            key=supplied or self.workspace.mint(),
            supplied=supplied is not None,
            hash="",
            fingerprint=hashlib.sha256(jsontext.canonical(as_given).encode()).hexdigest(),
            found_in_file=frozenset(sink.holds()) if isinstance(sink, FileSink) else frozenset(),
        )

    def _expected(self, draft: Draft, run: Run) -> Outcome | str | None:
        """Return the outcome of an earlier success, or the id of the key that will be taken over."""
        database = self.workspace.database
        if database.path is not None and not database.path.exists():
            return None
        try:
            with database.read() as connection:
                now = database.now(connection)
                found = self._predecessors(connection, draft, run, now).find()
        except (Wait, StartOver, KeyctlError):
            return None  # the transaction that writes judges it
        if isinstance(found, Outcome):
            return found
        return found.key_id if found else None

    def _predecessors(
        self, connection: Connection, draft: Draft, run: Run, now: datetime
    ) -> Predecessors:
        return Predecessors(
            connection=connection, draft=draft, caller=self.workspace.caller, run=run, now=now
        )

    def _target(self, draft: Draft) -> Target:
        """Return what the sink's templates may name: the key as its defaults make it."""
        database = self.workspace.database
        values = draft.values
        if draft.order.sink is not None and (database.path is None or database.path.exists()):
            with database.read() as connection:
                now = database.now(connection)
                caller = self.workspace.caller
                decision = self._gather(
                    connection, caller, draft.order, values, now=now, lock=False
                )
            return target_of(decision.facts.key, key_id=draft.key_id)
        return Target(
            key_id=draft.key_id,
            alias=values.get("key_alias") or None,
            team=values.get("team_id"),
            user=values.get("user_id"),
            org=values.get("organization_id"),
        )

    def _hash(self, key: KeyString) -> str:
        return hashing.hash_key(key, cost=self.workspace.settings.bcrypt_cost)

    # --- transaction 1

    def _stage_until_done(
        self, draft: Draft, sink: Sink, run: Run
    ) -> tuple[_Staged | Outcome, Draft]:
        """Stage, starting over on fresh facts; wait for a run that carries out the same request."""
        tries = 0
        while tries < _TRIES:
            try:
                return self._stage(draft, sink, run), draft
            except Wait:  # ends with the other run, or at its claim's deadline
                time.sleep(_WAIT)
            except StartOver:
                tries += 1
            except ConstraintError as error:
                tries += 1
                self._explain(error, draft)
                if broken_constraint(error) == "uq_secrets_lookup":
                    key = self.workspace.mint()
                    draft = replace(draft, key=key, hash=self._hash(key))
        raise BusyError("other runs keep changing the same keys", hint="try again")

    def _explain(self, error: ConstraintError, draft: Draft) -> None:
        """Say which fact *error* contradicts; return where the next try will find out."""
        broken = broken_constraint(error)
        if broken == "uq_keys_key_alias":
            raise alias_taken(draft.values["key_alias"]) from error
        if broken == "uq_secrets_lookup" and draft.supplied:
            raise key_taken() from error
        if broken not in ("uq_secrets_lookup", "pk_request_ids", "pk_claims"):
            raise error

    def _stage(self, draft: Draft, sink: Sink, run: Run) -> _Staged | Outcome:
        """Judge and write the key, its staged secret, the claim and the audit row."""
        order = draft.order
        with writing(self.workspace) as unit:
            earlier = self._predecessors(unit.connection, draft, run, unit.now)
            dead = earlier.find()
            if isinstance(dead, Outcome):
                return dead
            verdict = self._judge(
                unit.connection,
                unit.caller,
                order,
                draft.values,
                key_id=dead.key_id if dead else draft.key_id,
                now=unit.now,
                lock=True,
            )
            if verdict.violations:
                raise engine.refuse(list(verdict.violations))
            verdict = replace(verdict, key=replace(verdict.key, sink=order.sink))
            claim = Claim(
                key_id=verdict.key.id,
                run_id=run.id,
                fingerprint=draft.fingerprint,
                staged_at=unit.now,
                deadline_at=unit.now + sink.timeout + run_lock.SLACK,
            )
            secret = staged_secret(
                draft.key, draft.hash, claim, unit.caller, supplied=draft.supplied
            )
            earlier.clear(unit)
            if dead is None:
                self._insert(unit, draft, verdict.key, claim, secret)
            else:
                self._take_over(unit, verdict.key, claim, secret, dead=dead)
            record_staging(
                unit,
                verdict,
                row_of(verdict.key),
                secret["id"],
                reason=order.reason,
                taken_over=dead is not None,
            )
        run.claimed.add(verdict.key.id)
        if dead is not None:
            run_lock.bury(self.workspace.database, run, [dead])
        answer = answer_of(
            verdict, secret["id"], unit.heads[-1], self.workspace.settings, now=unit.now
        )
        return _Staged(
            key=verdict.key,
            secret=secret,
            answer=answer,
            heads=unit.heads,
            administers=verdict.administers,
        )

    def _insert(
        self, unit: Unit, draft: Draft, key: Key, claim: Claim, secret: dict[str, Any]
    ) -> None:
        queries.insert_key(unit.connection, key)
        if draft.request_id is not None:
            queries.insert_request_id(
                unit.connection,
                queries.RequestId(
                    request_id=draft.request_id,
                    fingerprint=draft.fingerprint,
                    key_id=key.id,
                    created_at=unit.now,
                ),
            )
        queries.insert_secret(unit.connection, secret)
        queries.insert_claim(unit.connection, claim)

    def _take_over(
        self, unit: Unit, key: Key, claim: Claim, secret: dict[str, Any], *, dead: Claim
    ) -> None:
        """Put a fresh secret beside the abandoned one, which keeps its `not_after`."""
        if queries.find_key(unit.connection, key.id, lock=True) is None or not queries.take_over(
            unit.connection, claim, dead_run=dead.run_id
        ):
            raise StartOver
        values = key.columns()
        del values["id"]
        queries.update_key(unit.connection, key.id, **values)
        known = queries.find_secret_by_lookup(unit.connection, secret["lookup"])
        if known is not None:  # the same supplied string: it cannot be staged beside itself
            secret["id"] = known.id
            queries.update_secret(unit.connection, known.id, **secret)
        else:
            queries.insert_secret(unit.connection, secret)

    def _judge(
        self,
        connection: Connection,
        caller: Caller,
        order: Order,
        values: dict[str, Any],
        *,
        key_id: str,
        now: datetime,
        lock: bool,
    ) -> Verdict:
        decision = self._gather(connection, caller, order, values, now=now, lock=lock)
        return decision.verdict(key_id, decision.facts.key.key_alias)

    def _gather(
        self,
        connection: Connection,
        caller: Caller,
        order: Order,
        values: dict[str, Any],
        *,
        now: datetime,
        lock: bool,
    ) -> KeyDecision:
        text = order.request.key
        return gather(
            connection,
            self.workspace.settings,
            caller,
            values,
            service_account=order.service_account,
            supplied_is_strong=None if text is None else keystring.is_strong(text),
            overrides=order.overrides,
            lock=lock,
            now=now,
        )

    def _check_free(
        self, connection: Connection, alias: str | None, supplied: KeyString | None
    ) -> None:
        key = queries.find_key_by_alias(connection, alias) if alias else None
        if alias and key is not None and key.confirmed_at is not None:
            raise alias_taken(alias, seen=may_see(self.workspace.caller, key))
        if supplied and queries.find_secret_by_lookup(connection, supplied.lookup):
            raise key_taken()

    # --- deliver, and transaction 2

    def _hand_over(self, staged: _Staged, draft: Draft, sink: Sink, run: Run) -> Outcome:
        try:
            sink.deliver(Parcel(draft.key, staged.answer, run.lock, secret_id=staged.secret["id"]))
        except (NotTakenError, UnknownError) as error:
            self._take_back(staged, run, why=str(error))
            raise not_delivered(
                error,
                f"the key was not delivered: {error}",
                hint="it was revoked at once; mend the cause and run the same command again",
            ) from error
        except BaseException:
            self._take_back(staged, run, why="interrupted")
            raise
        with uninterrupted():
            heads = self._confirmed(staged, run)
            run.claimed.discard(staged.key.id)
            written = Written(secrets=[staged.secret], events=[*staged.heads, *heads])
            persist(
                lambda: check_written(self.workspace.database, [written]),
                delivered=f"key {staged.key.id} was delivered and confirmed",
            )
        return Outcome(answer=staged.answer)

    def _confirmed(self, staged: _Staged, run: Run) -> Sequence[Head]:
        """Confirm, however often it takes; revoke the key if the caller lost the right to it meanwhile."""
        try:
            return persist(
                lambda: self._confirm(staged, run),
                delivered=f"key {staged.key.id} was delivered",
            )
        except DeniedError as error:
            self._take_back(staged, run, why=error.message)
            raise DeliveryError(
                f"key {staged.key.id} was revoked before it could be confirmed: {error.message}",
                hint="the delivered key string is dead",
            ) from error

    def _confirm(self, staged: _Staged, run: Run) -> Sequence[Head]:
        """Make the staged secret the active one, if the claim is still this run's."""
        with writing(self.workspace) as unit:
            key = queries.find_key(unit.connection, staged.key.id, lock=True)
            secret = queries.find_secret(unit.connection, staged.secret["id"])
            mine = queries.release_claim(unit.connection, staged.key.id, run.id)
            if not mine and was_confirmed(secret, run):
                return ()  # an earlier try of this confirm was committed, its answer was lost
            if key is None or key.deleted_at is not None or _is_revoked(secret):
                run.claimed.discard(staged.key.id)
                raise DeliveryError(
                    f"key {staged.key.id} was deleted or revoked before it could be confirmed",
                    hint="the delivered key string is dead; run the same command again if it is still wanted",
                )
            if not mine:
                run.claimed.discard(key.id)
                raise FencedError(
                    f"another run took key {key.id} over before this one could confirm it",
                    hint="run the same command again",
                )
            refuse_lost(unit, self.workspace.settings, key, "generate")
            confirmed = replace(key, confirmed_at=unit.now, updated_at=unit.now)
            queries.retire_abandoned(unit.connection, key.id, run_id=run.id)
            queries.update_secret(
                unit.connection,
                staged.secret["id"],
                state="active",
                not_after=key.expires,
                administers=staged.administers,
            )
            queries.update_key(unit.connection, key.id, confirmed_at=unit.now, updated_at=unit.now)
            unit.record(
                "key_generated",
                "key",
                key.id,
                before=row_of(key),
                after={
                    **row_of(confirmed),
                    "secret_id": staged.secret["id"],
                    "administers": staged.administers,
                },
            )
        return unit.heads

    def _take_back(self, staged: _Staged, run: Run, *, why: str) -> None:
        """Revoke and archive the key: nobody depends on it yet.

        If the database is away too, the staged secret ends at the claim's deadline by itself.
        """
        try:
            with writing(self.workspace, to_finish=True) as unit:
                key = queries.find_key(unit.connection, staged.key.id, lock=True)
                if key is not None and queries.release_claim(unit.connection, key.id, run.id):
                    archive_pending(unit, key, reason=f"delivery failed: {why}")
        except (DatabaseError, BusyError):
            return
        run.claimed.discard(staged.key.id)

    def _replayed(self, outcome: Outcome, order: Order, sink: Sink) -> Outcome:
        """Answer a repeated request: never with a key string, and never as if there were one."""
        if isinstance(sink, FileSink):
            living = {
                secret["id"] for secret in outcome.answer["secrets"] if secret["state"] != "revoked"
            }
            if sink.holds() & living:
                return outcome
        elif order.replay == "answer":
            return outcome
        raise RequestReplayedError(
            f"request id {order.request_id!r} already made key {outcome.answer['key_id']}, and a key is shown only once",
            hint=f"if it was lost, run: keyctl rotate {outcome.answer['key_id']}",
        )


def _supplied(request: GenerateRequest) -> KeyString | None:
    return None if request.key is None else keystring.supplied(request.key)


def _is_revoked(secret: Secret | None) -> bool:
    return secret is None or secret.state == "revoked"
