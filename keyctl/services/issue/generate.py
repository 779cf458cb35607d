"""Generate a key: stage it, deliver its secret once, confirm it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import jsontext, keystring
from keyctl.db.failures import broken_constraint
from keyctl.errors import KeyctlError, PolicyDeniedError, RequestReplayedError
from keyctl.keystring import KeyString
from keyctl.policy import engine, resolve
from keyctl.records import Claim
from keyctl.requests import GenerateRequest
from keyctl.services import denials
from keyctl.services.authorize.custom_hook import decide
from keyctl.services.authorize.verdict import Judgement
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.protocol import Delivery, StartOver, Wait, until_done
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import target_of
from keyctl.services.issue.new_key import NewKeyRows, StagedKey
from keyctl.services.issue.order import Order, Outcome, answer_of, new_key_id
from keyctl.services.issue.stage import KeyStaging
from keyctl.services.issue.takeover import (
    Draft,
    Predecessors,
    key_taken,
    left_pending,
    own_request_id,
)
from keyctl.services.transaction import Unit
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink, Target
from keyctl.sinks.file import FileSink


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
            delivery = Delivery(
                workspace=self.workspace,
                run=run,
                rows=NewKeyRows(workspace=self.workspace, alone=True),
            )
            staged = until_done(
                replace(draft, hash=self._hash(draft.key)),
                lambda draft: self._stage(draft, sink, delivery),
                again=self._again,
            )
            if isinstance(staged, Outcome):
                return self._replayed(staged, order, sink)
            return self._hand_over(staged, sink, delivery)

    def dry_run(self, order: Order) -> Judgement:
        """Return the whole verdict on *order*, the custom hook's included, and write nothing."""
        engine.check_overrides(order.overrides)
        values = resolve.given_values(order.request)
        supplied = _supplied(order.request)
        with self.workspace.database.read() as connection:
            now, caller = self.workspace.database.now(connection), self.workspace.caller
            verdict = KeyStaging(self.workspace).verdict(
                connection, caller, order, values, key_id=new_key_id(), now=now, lock=False
            )
            run, alias = run_lock.onlooker(self.workspace.runs_folder), verdict.key.key_alias
            # What is yielded makes way for the run itself.
            list(left_pending(connection, alias, supplied, caller=caller, run=run, now=now))
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
                found = Predecessors(
                    connection=connection,
                    draft=draft,
                    caller=self.workspace.caller,
                    run=run,
                    now=now,
                ).find()
        except (Wait, StartOver, KeyctlError):
            return None  # the transaction that writes judges it
        if isinstance(found, Outcome):
            return found
        return found.key_id if found else None

    def _target(self, draft: Draft) -> Target:
        """Return what the sink's templates may name: the key as its defaults make it."""
        database = self.workspace.database
        values = draft.values
        if draft.order.sink is not None and (database.path is None or database.path.exists()):
            with database.read() as connection:
                now = database.now(connection)
                caller = self.workspace.caller
                decision = KeyStaging(self.workspace).decision(
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
        return self.workspace.hash(key, cost=self.workspace.settings.bcrypt_cost)

    # --- stage, deliver, confirm

    def _stage(
        self, draft: Draft, sink: Sink, delivery: Delivery[StagedKey]
    ) -> StagedKey | Outcome:
        def write(unit: Unit, dead: list[Claim]) -> Iterator[StagedKey | Outcome]:
            return KeyStaging(self.workspace).write(unit, dead, draft, sink, delivery.run)

        (outcome,) = delivery.stage(write)
        return outcome

    def _again(self, error: ConstraintError, draft: Draft) -> Draft:
        """Return what to try after *error*, which the next try will find the reason of."""
        broken = broken_constraint(error)
        if broken == "uq_secrets_lookup" and draft.supplied:
            raise key_taken() from error
        if broken not in ("uq_keys_key_alias", "uq_secrets_lookup", "pk_request_ids", "pk_claims"):
            raise error
        if broken != "uq_secrets_lookup":
            return draft
        key = self.workspace.mint()
        return replace(draft, key=key, hash=self._hash(key))

    def _hand_over(self, staged: StagedKey, sink: Sink, delivery: Delivery[StagedKey]) -> Outcome:
        answer = answer_of(
            staged.verdict,
            staged.secret.id,
            staged.heads[-1],
            self.workspace.settings,
            now=staged.secret.created_at,
        )
        handed = delivery.hand_over([delivery.to_sink(staged, answer, sink)])
        outcome = handed.unless_broken()[staged.key_id]
        if isinstance(outcome, KeyctlError):
            raise outcome
        return Outcome(answer=answer)

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
