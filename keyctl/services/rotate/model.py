"""Hold a rotation before, between and after its two transactions, and compute when what ends."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyctl import durations, lifecycle
from keyctl.keystring import KeyString
from keyctl.records import Claim, Key, Secret
from keyctl.services.delivery.protocol import Staged
from keyctl.services.transaction import anchor
from keyctl.sinks.base import Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A key to be rotated, with its new key string, hashed, and the run's claim on it if it has one.

    `supplied` tells that a person chose the key string, so it may have been staged before;
    `administers` that an admin wants the new secret to administer.
    """

    key_id: str
    key_string: KeyString
    hashed: str
    sink: Sink
    supplied: bool = False
    administers: bool = False
    own_claim: Claim | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRotation(Staged):
    """A rotation between its two transactions.

    `fixed_at` is when it counts as rotated where the answer carries the key string; it is None
    where that counts from confirm.  `reused` tells that the same supplied string was staged
    before, so the sink may hold it already; `to_own_sink` that it goes where the key's strings always
    do.
    """

    key: Key
    old: Secret | None
    claim: Claim
    grace: durations.Grace
    fixed_at: datetime | None
    reused: bool
    to_own_sink: bool

    def answer(self, *, confirmed_at: datetime | None = None) -> dict[str, Any]:
        """Return the answer without the key string, as it is when confirmed at that time."""
        at = self.fixed_at or confirmed_at or self.claim.staged_at
        old = self.old
        return {
            "key_id": self.key.id,
            "key_alias": self.key.key_alias,
            "secret_id": self.secret.id,
            "administers": self.secret.administers,
            "old_secret": None if old is None else self._ending(old, at),
            "rotation_count": self.key.rotation_count + 1,
            "key_rotation_at": next_rotation(self.key, at),
            "audit": anchor(self.heads[-1]),
        }

    def _ending(self, old: Secret, at: datetime) -> dict[str, Any]:
        """Return until when the old secret works, and whether it still does at *at*."""
        end = retire_at(self.key, self.grace, at)
        state = "revoked" if lifecycle.is_past(end, now=at) else "retiring"
        return {"id": old.id, "not_after": end, "state": state}


def next_rotation(key: Key, at: datetime) -> datetime | None:
    """Return when *key*, rotated at *at*, is due again."""
    if key.rotation_interval is None:
        return None
    return durations.parse_duration(key.rotation_interval).after(at)


def retire_at(key: Key, grace: durations.Grace, at: datetime) -> datetime:
    """Return when an old secret of *key* ends that is replaced at that time: never later than the key."""
    end = grace.ends(at)
    return end if key.expires is None else min(end, key.expires)


def still_suspect(key: Key, claim: Claim) -> datetime | None:
    """Return since when the sink of *key* is in doubt, None if a rotation under *claim* has settled it."""
    # Only a delivery that began after the doubt arose can have settled it.
    suspect = key.sink_suspect_at
    return suspect if suspect is not None and claim.staged_at <= suspect else None
