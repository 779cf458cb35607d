"""Stage rotations: write the new secret and the claim, each key for itself in one transaction."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from keyctl import keystring
from keyctl.db import queries
from keyctl.durations import Grace
from keyctl.errors import BusyError, KeyctlError, KeyNotFoundError, PolicyDeniedError
from keyctl.fields import parse_grace
from keyctl.policy import issuing
from keyctl.records import Claim, Key, Secret
from keyctl.services.delivery.protocol import StartOver, claim_for, steady_end
from keyctl.services.delivery.run_lock import Run
from keyctl.services.issue.takeover import key_taken
from keyctl.services.rotate.eligibility import is_own_sink, refuse_unfit
from keyctl.services.rotate.model import StagedRotation, Wanted
from keyctl.services.transaction import Unit
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationStaging:
    """Stages what is wanted.  `grace` is that of the run, None for each key's own."""

    workspace: Workspace
    run: Run
    grace: Grace | None

    def write(
        self, unit: Unit, dead: list[Claim], wanted: Sequence[Wanted]
    ) -> Iterator[StagedRotation | KeyctlError]:
        """Stage each key as if it were alone, and yield it, or why it may not be rotated any more."""
        found = locked(unit, [item.key_id for item in wanted])
        secrets = queries.secrets_of(unit.connection, *found)
        active = {secret.key_id: secret for secret in secrets if secret.state == "active"}
        for item in wanted:
            try:
                yield self._stage(unit, found.get(item.key_id), item, dead, active)
            except (BusyError, PolicyDeniedError, KeyNotFoundError) as error:
                yield error  # raised before anything of this key was written

    def _stage(
        self,
        unit: Unit,
        key: Key | None,
        wanted: Wanted,
        dead: list[Claim],
        active: Mapping[str, Secret],
    ) -> StagedRotation:
        if key is None:
            raise KeyNotFoundError(
                f"there is no key {wanted.key_id!r}", hint="keyctl list shows them"
            )
        settings, old = self.workspace.settings, active.get(key.id)
        own_sink = is_own_sink(settings, key, wanted.sink)
        refuse_unfit(
            settings, unit.connection, unit.caller, key, to_own_sink=own_sink, now=unit.now
        )
        administers = _administers(unit, key, old, wanted, to_own_sink=own_sink)
        claim = claim_for(self.run, key.id, at=unit.now, lasts=wanted.sink.timeout)
        replaced = self._claim(unit, claim, wanted.own_claim)
        if replaced is not None:
            dead.append(replaced)
        secret, reused = _write_secret(unit, key, wanted, claim, administers=administers)
        _record(unit, wanted, secret, taken_over=replaced is not None)
        own = settings.grace if key.grace_period is None else key.grace_period
        return StagedRotation(
            key=key,
            key_string=wanted.key_string,
            secret=secret,
            old=old,
            claim=claim,
            grace=parse_grace(own) if self.grace is None else self.grace,
            fixed_at=unit.now if wanted.sink.shows_answer else None,
            reused=reused,
            to_own_sink=own_sink,
            claim_expires_monotonic=steady_end(claim),
        )

    def _claim(self, unit: Unit, claim: Claim, own: Claim | None) -> Claim | None:
        """Take the claim; return the dead one that it replaces, if any."""
        if own is not None:
            if not queries.renew_claim(unit.connection, claim):
                raise BusyError(f"key {claim.key_id} was taken over", hint="another run has it")
            return None
        known = queries.find_claim(unit.connection, claim.key_id)
        if known is None:
            queries.insert_claim(unit.connection, claim)
            return None
        if self.run.is_alive(known, now=unit.now):
            raise BusyError(
                f"key {claim.key_id} is being rotated by another run", hint="try again later"
            )
        if not queries.take_over(unit.connection, claim, dead_run=known.run_id):
            raise StartOver
        return known


def locked(unit: Unit, key_ids: Sequence[str]) -> dict[str, Key]:
    """Return these keys, locked in the order that everybody locks several keys in."""
    return {key.id: key for key in queries.find_keys(unit.connection, sorted(key_ids), lock=True)}


def _administers(
    unit: Unit, key: Key, old: Secret | None, wanted: Wanted, *, to_own_sink: bool
) -> bool:
    """Tell whether the new secret will administer.

    Raises:
        PolicyDeniedError: That is asked for, and the caller may not say so.
    """
    was = old is not None and old.administers
    if issuing.rotation_administers(unit.caller, key, was=was, to_own_sink=to_own_sink):
        return True
    if wanted.administers:
        issuing.check_may_raise(unit.caller, key.expires)
    return wanted.administers


def _write_secret(
    unit: Unit, key: Key, wanted: Wanted, claim: Claim, *, administers: bool
) -> tuple[Secret, bool]:
    """Write the staged secret; return it, and whether a run before this one had staged it."""
    key_string = wanted.key_string
    secret = Secret(
        id=key_string.public_id or keystring.random_text(keystring.ID_LENGTH),
        key_id=key.id,
        lookup=key_string.lookup,
        hash=wanted.hashed,
        state="staged",
        supplied=wanted.supplied,
        run_id=claim.run_id,
        created_at=unit.now,
        not_after=key.expires,
        administers=administers,
        **issuing.issuer_of(unit.caller),
    )
    # A generated string is new, or the unique index says that it is not.
    known = None
    if wanted.supplied:
        known = queries.find_secret_by_lookup(unit.connection, key_string.lookup)
    if known is None:
        queries.insert_secret(unit.connection, secret)
        return secret, False
    if known.key_id != key.id or known.state != "staged":
        raise key_taken()
    # The same supplied string, left behind by a crash.
    again = replace(secret, id=known.id)
    queries.update_secret(unit.connection, known.id, **again.columns())
    return again, True


def _record(unit: Unit, wanted: Wanted, secret: Secret, *, taken_over: bool) -> None:
    unit.record(
        "key_rotation_staged",
        "key",
        secret.key_id,
        after={
            "secret_id": secret.id,
            "state": "staged",
            "not_after": secret.not_after,
            "administers": secret.administers,
            "sink": None if wanted.sink.shows_answer else wanted.sink.name,
        },
        reason="taken over from a dead run" if taken_over else None,
    )
