"""Stage one new key: judged on current facts, in the place of what a dead run left of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyctl import keystring
from keyctl.db import queries
from keyctl.policy import engine
from keyctl.policy.facts import Caller
from keyctl.records import Claim, Key, Secret
from keyctl.services.authorize.verdict import Judgement, KeyDecision, gather
from keyctl.services.delivery.protocol import StartOver, claim_for, steady_end
from keyctl.services.delivery.run_lock import Run
from keyctl.services.issue.new_key import StagedKey
from keyctl.services.issue.order import Order, Outcome, record_staging, staged_secret
from keyctl.services.issue.takeover import Draft, Predecessors
from keyctl.services.transaction import Unit, row_of
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink


@dataclass(frozen=True, slots=True)
class KeyStaging:
    """Judges what a draft asks for, and writes it."""

    workspace: Workspace

    def write(
        self, unit: Unit, dead: list[Claim], draft: Draft, sink: Sink, run: Run
    ) -> Iterator[StagedKey | Outcome]:
        """Write the key, its staged secret, the claim and the audit row; or yield what is there already.

        Raises:
            PolicyDeniedError: With every rule that the request breaks.
            ConflictError: A live key, or a living run, is in the way.
            Wait, StartOver: The facts are not to be judged yet, or changed under us.
        """
        order = draft.order
        earlier = Predecessors(
            connection=unit.connection, draft=draft, caller=unit.caller, run=run, now=unit.now
        )
        found = earlier.find()
        if isinstance(found, Outcome):
            yield found
            return
        verdict = self.verdict(
            unit.connection,
            unit.caller,
            order,
            draft.values,
            key_id=found.key_id if found else draft.key_id,
            now=unit.now,
            lock=True,
        )
        if verdict.violations:
            raise engine.refuse(list(verdict.violations))
        verdict = replace(verdict, key=replace(verdict.key, sink=order.sink))
        claim = claim_for(
            run, verdict.key.id, at=unit.now, lasts=sink.timeout, fingerprint=draft.fingerprint
        )
        secret = staged_secret(draft.key, draft.hash, claim, unit.caller, supplied=draft.supplied)
        earlier.clear(unit)
        if found is None:
            _insert(unit, draft, verdict.key, claim, secret)
        else:
            secret = _take_over(unit, verdict.key, claim, secret, dead=found)
            dead.append(found)
        row, taken_over = row_of(verdict.key), found is not None
        record_staging(unit, verdict, row, secret.id, reason=order.reason, taken_over=taken_over)
        yield StagedKey(
            key_string=draft.key,
            secret=secret,
            claim_expires_monotonic=steady_end(claim),
            verdict=verdict,
            administers=verdict.administers,
            taken_over=taken_over,
        )

    def verdict(
        self,
        connection: Connection,
        caller: Caller,
        order: Order,
        values: dict[str, Any],
        *,
        key_id: str,
        now: datetime,
        lock: bool,
    ) -> Judgement:
        """Return the verdict on the key that *order* asks for."""
        decision = self.decision(connection, caller, order, values, now=now, lock=lock)
        return decision.verdict(key_id, decision.facts.key.key_alias)

    def decision(
        self,
        connection: Connection,
        caller: Caller,
        order: Order,
        values: dict[str, Any],
        *,
        now: datetime,
        lock: bool,
    ) -> KeyDecision:
        """Return the facts about the key that *order* asks for, ready to be judged."""
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


def _insert(unit: Unit, draft: Draft, key: Key, claim: Claim, secret: Secret) -> None:
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


def _take_over(unit: Unit, key: Key, claim: Claim, secret: Secret, *, dead: Claim) -> Secret:
    """Put a fresh secret beside the abandoned one, which keeps its `not_after`; return it."""
    if queries.find_key(unit.connection, key.id, lock=True) is None or not queries.take_over(
        unit.connection, claim, dead_run=dead.run_id
    ):
        raise StartOver
    values = key.columns()
    del values["id"]
    queries.update_key(unit.connection, key.id, **values)
    known = queries.find_secret_by_lookup(unit.connection, secret.lookup)
    if known is None:
        queries.insert_secret(unit.connection, secret)
        return secret
    # The same supplied string: it cannot be staged beside itself.
    again = replace(secret, id=known.id)
    queries.update_secret(unit.connection, known.id, **again.columns())
    return again
