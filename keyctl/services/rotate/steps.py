"""Give keys new secrets: the two transactions of a rotation, and the delivery between them.

The protocol is the same for one key and for many that share their transactions.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from keyctl import hashing, keystring
from keyctl.db import queries
from keyctl.db.queries.audit import Head
from keyctl.errors import (
    BusyError,
    DatabaseError,
    DeliveryError,
    DeniedError,
    FencedError,
    KeyctlError,
    KeyNotFoundError,
    PolicyDeniedError,
)
from keyctl.fields import parse_grace
from keyctl.keystring import KeyString
from keyctl.policy import issuing
from keyctl.records import Claim, Key, Secret
from keyctl.services.authorize.verdict import refuse_lost
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.confirm import Written, persist, was_confirmed
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import not_delivered
from keyctl.services.issue.takeover import StartOver, key_taken
from keyctl.services.rotate.eligibility import is_own_sink, refuse_unfit
from keyctl.services.rotate.model import (
    Confirmed,
    Staged,
    Wanted,
    answer_of,
    next_rotation,
    retire_at,
    still_suspect,
)
from keyctl.services.transaction import Unit, anchor, row_of, writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Parcel, Sink, UnknownError


@dataclass(frozen=True, slots=True)
class Rotating:
    """Stages, delivers and confirms, each key for itself."""

    workspace: Workspace

    def hash(self, key: KeyString) -> str:
        """Return the hash of *key* at the configured cost; done before any transaction."""
        return hashing.hash_key(key, cost=self.workspace.settings.bcrypt_cost)

    # --- transaction 1

    def stage(self, wanted: Wanted, run: Run, *, grace: str | None) -> Staged:
        """Write the new secret and the claim (or renew the run's own), and return what to deliver.

        Raises:
            KeyNotFoundError, PolicyDeniedError: The key is not fit to be rotated any more.
            BusyError: A living run has a claim on it, or took the run's own over.
        """
        (outcome,) = self.stage_all([wanted], run, grace=grace)
        if isinstance(outcome, Staged):
            return outcome
        raise outcome

    def stage_all(
        self, wanted: Sequence[Wanted], run: Run, *, grace: str | None
    ) -> list[Staged | KeyctlError]:
        """Stage several keys in one transaction, each as if it were alone: one that is refused stops no other."""
        staged: list[Staged | KeyctlError] = []
        dead: list[Claim] = []
        places: list[slice] = []
        with writing(self.workspace) as unit:
            found = _locked(unit, [item.key_id for item in wanted])
            active = _active(queries.secrets_of(unit.connection, *found))
            for item in wanted:
                first = len(unit.events)
                try:
                    staged.append(
                        self._stage(
                            unit, found.get(item.key_id), item, run, dead, active, grace=grace
                        )
                    )
                except (BusyError, PolicyDeniedError, KeyNotFoundError) as error:
                    staged.append(error)  # raised before anything of this key was written
                places.append(slice(first, len(unit.events)))
        run_lock.bury(self.workspace.database, run, dead)
        for number, outcome in enumerate(staged):
            if isinstance(outcome, Staged):
                run.claimed.add(outcome.key.id)
                staged[number] = replace(outcome, heads=unit.heads[places[number]])
        return staged

    def _stage(
        self,
        unit: Unit,
        key: Key | None,
        wanted: Wanted,
        run: Run,
        dead: list[Claim],
        active: Mapping[str, Secret],
        *,
        grace: str | None,
    ) -> Staged:
        if key is None:
            raise KeyNotFoundError(
                f"there is no key {wanted.key_id!r}", hint="keyctl list shows them"
            )
        settings, old = self.workspace.settings, active.get(key.id)
        own_sink = is_own_sink(settings, key, wanted.sink)
        refuse_unfit(
            settings, unit.connection, unit.caller, key, to_own_sink=own_sink, now=unit.now
        )
        was = old is not None and old.administers
        administers = issuing.rotation_administers(unit.caller, key, was=was, to_own_sink=own_sink)
        if wanted.administers and not administers:
            issuing.check_may_raise(unit.caller, key.expires)
            administers = True
        lifetime = wanted.sink.timeout + run_lock.SLACK
        claim = Claim(
            key_id=key.id,
            run_id=run.id,
            fingerprint=None,
            staged_at=unit.now,
            deadline_at=unit.now + lifetime,
        )
        replaced = self._claim(unit, claim, wanted.own_claim, run)
        if replaced is not None:
            dead.append(replaced)
        secret, reused = self._write_secret(unit, key, wanted, claim, administers=administers)
        unit.record(
            "key_rotation_staged",
            "key",
            key.id,
            after={
                "secret_id": secret["id"],
                "state": "staged",
                "not_after": key.expires,
                "administers": administers,
                "sink": None if wanted.sink.shows_answer else wanted.sink.name,
            },
            reason="taken over from a dead run" if replaced else None,
        )
        own = settings.grace if key.grace_period is None else key.grace_period
        return Staged(
            key=key,
            key_string=wanted.key_string,
            secret=secret,
            old=old,
            claim=claim,
            grace=parse_grace(own if grace is None else grace),
            fixed_at=unit.now if wanted.sink.shows_answer else None,
            reused=reused,
            to_own_sink=own_sink,
            claim_expires_monotonic=time.monotonic() + lifetime.total_seconds(),
        )

    def _claim(self, unit: Unit, claim: Claim, own: Claim | None, run: Run) -> Claim | None:
        """Take the claim; return the dead one that it replaces, if any."""
        if own is not None:
            if not queries.renew_claim(unit.connection, claim):
                raise BusyError(f"key {claim.key_id} was taken over", hint="another run has it")
            return None
        known = queries.find_claim(unit.connection, claim.key_id)
        if known is None:
            queries.insert_claim(unit.connection, claim)
            return None
        if run.is_alive(known, now=unit.now):
            raise BusyError(
                f"key {claim.key_id} is being rotated by another run", hint="try again later"
            )
        if not queries.take_over(unit.connection, claim, dead_run=known.run_id):
            raise StartOver
        return known

    def _write_secret(
        self, unit: Unit, key: Key, wanted: Wanted, claim: Claim, *, administers: bool
    ) -> tuple[dict[str, Any], bool]:
        """Write the staged secret; return its row, and whether a run before this one had staged it."""
        key_string = wanted.key_string
        row = {
            "id": key_string.public_id or keystring.random_text(keystring.ID_LENGTH),
            "key_id": key.id,
            "lookup": key_string.lookup,
            "hash": wanted.hashed,
            "state": "staged",
            "supplied": wanted.supplied,
            "run_id": claim.run_id,
            "created_at": unit.now,
            "not_after": key.expires,
            "administers": administers,
            **issuing.issuer_of(unit.caller),
        }
        # A generated string is new, or the unique index says that it is not.
        known = None
        if row["supplied"]:
            known = queries.find_secret_by_lookup(unit.connection, key_string.lookup)
        if known is None:
            queries.insert_secret(unit.connection, row)
            return row, False
        if known.key_id != key.id or known.state != "staged":
            raise key_taken()
        row["id"] = known.id  # the same supplied string, left behind by a crash
        queries.update_secret(unit.connection, known.id, **row)
        return row, True

    # --- deliver

    def deliver(self, staged: Staged, sink: Sink, run: Run) -> None:
        """Hand the new key string to *sink*.

        Raises:
            DeliveryError: It was not taken, and the new secret is revoked; or nobody knows, and
                it goes on authenticating until a successor is delivered.
        """
        if time.monotonic() >= staged.claim_expires_monotonic:
            # What comes now could overwrite what a successor has delivered meanwhile.
            self.undo_stage(staged, run)
            raise DeliveryError(
                f"key {staged.key.id} was not rotated: its claim ended before it was delivered",
                hint="the old secret was not touched; run it again",
            )
        answer = answer_of(staged, confirmed_at=staged.fixed_at or staged.claim.staged_at)
        answer["audit"] = anchor(staged.heads[-1])
        try:
            sink.deliver(Parcel(staged.key_string, answer, run.lock, secret_id=staged.secret["id"]))
        except NotTakenError as error:
            self._give_up(staged, run, why=str(error), revoke=not staged.reused)
            raise not_delivered(
                error,
                f"key {staged.key.id} was not rotated: {error}",
                hint="the old secret was not touched; mend the cause and run it again",
            ) from error
        except UnknownError as error:
            self._give_up(staged, run, why=str(error), revoke=False)
            raise DeliveryError(
                f"key {staged.key.id} was not rotated: nobody knows whether the sink took it: {error}",
                hint="old and new secret both work; run it again to bring it to rest",
            ) from error
        except BaseException:
            self._give_up(staged, run, why="interrupted", revoke=False)
            raise

    def undo_stage(self, staged: Staged, run: Run) -> None:
        """Take back what was staged and not handed to its sink: nobody has it, unless it was before."""
        why = "the run was ended before it was delivered"
        self._give_up(staged, run, why=why, revoke=not staged.reused)

    def _give_up(self, staged: Staged, run: Run, *, why: str, revoke: bool) -> None:
        try:
            with writing(self.workspace, to_finish=True) as unit:
                if queries.release_claim(unit.connection, staged.key.id, run.id):
                    self._record_failure(unit, staged, why=why, revoke=revoke)
        except (DatabaseError, BusyError):
            return  # the lock file that stays behind tells that the claim is dead
        run.claimed.discard(staged.key.id)

    def _record_failure(self, unit: Unit, staged: Staged, *, why: str, revoke: bool) -> None:
        if revoke and staged.secret["supplied"]:
            # Nobody has used it: the same string may be supplied again.
            queries.delete_secret(unit.connection, staged.secret["id"])
        elif revoke:
            queries.update_secret(unit.connection, staged.secret["id"], state="revoked")
        unit.record(
            "key_rotation_failed",
            "key",
            staged.key.id,
            after={
                "secret_id": staged.secret["id"],
                "state": "revoked" if revoke else "staged",
            },
            reason=why,
        )

    # --- transaction 2

    def confirm_all(self, delivered: Sequence[Staged], run: Run) -> list[Confirmed | DeliveryError]:
        """Confirm what was delivered in one transaction, however often it takes, each key for itself.

        An error tells that the key was deleted, or its new secret revoked, meanwhile; a
        `FencedError` that another run took over, and the sink may hold an older secret.

        Raises:
            UnconfirmedError: The database stayed away.
        """
        names = ", ".join(staged.key.id for staged in delivered)
        try:
            confirmed = persist(
                lambda: self._confirm_all(delivered, run),
                delivered=f"the new secret of {names} was delivered",
            )
        except DeniedError as error:
            # What is in the sink goes on authenticating, as after a crash.
            for staged in delivered:
                self._give_up(staged, run, why=error.message, revoke=False)
            return [_lost(staged, error) for staged in delivered]
        run.claimed.difference_update(staged.key.id for staged in delivered)
        outcomes: list[Confirmed | DeliveryError] = []
        for staged, outcome in zip(delivered, confirmed, strict=True):
            if isinstance(outcome, DeliveryError):
                outcomes.append(outcome)
                continue
            heads, at = outcome
            outcomes.append(
                Confirmed(
                    heads=heads,
                    answer=answer_of(staged, confirmed_at=staged.fixed_at or at),
                    written=Written(secrets=[staged.secret], events=[*staged.heads, *heads]),
                )
            )
        return outcomes

    def _confirm_all(
        self, delivered: Sequence[Staged], run: Run
    ) -> list[tuple[Sequence[Head], datetime] | DeliveryError]:
        errors: list[DeliveryError | None] = []
        places: list[slice] = []
        with writing(self.workspace) as unit:
            ids = [staged.key.id for staged in delivered]
            found = _locked(unit, ids)
            secrets = queries.secrets_of(unit.connection, *ids)
            for staged in delivered:
                own = [item for item in secrets if item.key_id == staged.key.id]
                first = len(unit.events)
                errors.append(self._confirm(unit, staged, found.get(staged.key.id), own, run))
                places.append(slice(first, len(unit.events)))
        return [
            (unit.heads[place], unit.now) if error is None else error
            for error, place in zip(errors, places, strict=True)
        ]

    def _confirm(
        self, unit: Unit, staged: Staged, key: Key | None, secrets: Sequence[Secret], run: Run
    ) -> DeliveryError | None:
        """Make the new secret active and the old and abandoned ones retiring; return why not."""
        mine = queries.release_claim(unit.connection, staged.key.id, run.id)
        secret = next((item for item in secrets if item.id == staged.secret["id"]), None)
        if not mine and was_confirmed(secret, run):
            return None  # an earlier try was committed, its answer was lost
        if key is None or key.deleted_at is not None:
            return DeliveryError(
                f"key {staged.key.id} was deleted before it could be confirmed",
                hint=f"the delivered key string is dead; keyctl info {staged.key.id} tells more",
            )
        if secret is None or secret.state == "revoked":
            self._suspect(unit, key)
            return DeliveryError(
                f"the new secret of key {key.id} was revoked before it could be confirmed",
                hint=f"the delivered key string is dead; run keyctl rotate {key.id}",
            )
        if not mine:
            self._suspect(unit, key)
            return FencedError(
                f"another run took key {key.id} over before this one could confirm it",
                hint=f"the sink may hold an older secret; run keyctl rotate {key.id}",
            )
        try:
            refuse_lost(
                unit, self.workspace.settings, key, "rotate", to_own_sink=staged.to_own_sink
            )
        except DeniedError as error:
            self._record_failure(unit, staged, why=error.message, revoke=False)
            return _lost(staged, error)
        self._activate(unit, key, secrets, staged)
        return None

    def _suspect(self, unit: Unit, key: Key) -> None:
        # Written although this run failed: only the next rotation makes the sink certain again.
        queries.update_key(unit.connection, key.id, sink_suspect_at=unit.now)
        unit.record(
            "key_sink_suspect",
            "key",
            key.id,
            before={"sink_suspect_at": key.sink_suspect_at},
            after={"sink_suspect_at": unit.now},
        )

    def _activate(self, unit: Unit, key: Key, secrets: Sequence[Secret], staged: Staged) -> None:
        at = staged.fixed_at or unit.now
        ends_at = retire_at(key, staged.grace, at)
        for secret in secrets:
            if secret.id == staged.secret["id"] or secret.state not in ("active", "staged"):
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
        queries.update_secret(
            unit.connection, staged.secret["id"], state="active", not_after=key.expires
        )
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
            after={**row_of(after), "secret_id": staged.secret["id"]},
        )


def _lost(staged: Staged, error: DeniedError) -> DeliveryError:
    return DeliveryError(
        f"the new secret of key {staged.key.id} was delivered, not confirmed: {error.message}",
        hint=f"old and new secret both work; let an admin run keyctl rotate {staged.key.id}",
    )


def _locked(unit: Unit, key_ids: Sequence[str]) -> dict[str, Key]:
    """Return these keys, locked in the order that everybody locks several keys in."""
    return {key.id: key for key in queries.find_keys(unit.connection, sorted(key_ids), lock=True)}


def _active(secrets: Sequence[Secret]) -> dict[str, Secret]:
    """Return the active secret of each key."""
    return {secret.key_id: secret for secret in secrets if secret.state == "active"}
