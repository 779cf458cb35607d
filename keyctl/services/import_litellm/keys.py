"""Judge and write one batch of imported keys, inside the transaction that they share."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from keyctl import hashing, keystring
from keyctl.db import queries
from keyctl.errors import KeyctlError, KeyTakenError, PolicyDeniedError
from keyctl.lifecycle import is_past
from keyctl.litellm.keys import MappedKey
from keyctl.policy import engine, resolve
from keyctl.policy.issuing import ends_with_caller, issuer_of
from keyctl.records import Key, Secret
from keyctl.services import denials
from keyctl.services.authorize import totals
from keyctl.services.authorize.owners import Roster
from keyctl.services.authorize.verdict import Judgement, KeyDecision, gather
from keyctl.services.denials import Attempt
from keyctl.services.import_litellm.report import ImportLine, ImportOrder, failed, passed_over
from keyctl.services.issue.order import new_key_id
from keyctl.services.transaction import Unit, row_of
from keyctl.services.workspace import Workspace

# In place of the run that staged a secret: an imported one never was.
RUN: Final = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row that can be imported, and the hashes of its key strings, which take time."""

    source: str
    digest: str = field(repr=False)
    mapped: MappedKey
    lost: Sequence[str]
    hashes: "Future[list[str]]"

    @property
    def lookups(self) -> list[str]:
        """Return what its key strings are found by, those in their grace period included."""
        return [lookup_of(digest) for digest in digests_of(self.digest, self.mapped)]


class KeyBatch:
    """The keys of one transaction, judged one after the other on what those before them left."""

    def __init__(
        self,
        workspace: Workspace,
        order: ImportOrder,
        unit: Unit,
        candidates: Sequence[Candidate],
    ) -> None:
        self.workspace = workspace
        self.order = order
        self.unit = unit
        self.written: list[Secret] = []
        requests = [item.mapped.request for item in candidates]
        # Before any owner is locked, as when a single key is made.
        totals.lock_everywhere(unit.connection, workspace.settings)
        self._roster = Roster.of(
            unit.connection,
            team_ids={item.team_id for item in requests if item.team_id},
            user_ids={item.user_id for item in requests if item.user_id},
            organization_ids={item.organization_id for item in requests if item.organization_id},
        )
        self._present = queries.secrets_by_lookup(
            unit.connection, [lookup for item in candidates for lookup in item.lookups]
        )
        aliases = [item.key_alias for item in requests if item.key_alias]
        self._taken = {
            str(key.key_alias): key.id for key in queries.keys_by_alias(unit.connection, aliases)
        }
        self._own: dict[str, str] = {}
        self._keys: list[Key] = []
        self._secrets: list[Secret] = []

    def line(self, item: Candidate) -> ImportLine:
        """Judge one key, note it for writing, and return its line."""
        lookup = lookup_of(item.digest)
        if (line := self._in_the_way(item, lookup)) is not None:
            return line
        changes = list(item.mapped.changes)
        alias = item.mapped.request.key_alias
        if alias in self._taken:
            changes.append(f"alias {alias!r} is that of {self._taken[alias]}: imported without it")
            alias = None
        try:
            verdict = self._judge(item, alias)
            if verdict.violations:
                raise engine.refuse(list(verdict.violations))
        except KeyctlError as error:
            if isinstance(error, PolicyDeniedError):
                denials.note(self.unit, Attempt("key_import_denied", "key", alias or ""), error)
            return failed("key", item.source, error, key_alias=alias, lost=item.lost)
        changes += [
            f"{filled.field} is filled with {filled.value} ({filled.source})"
            for filled in verdict.filled
        ]
        changes += [f"{violation.rule} is stepped over" for violation in verdict.stepped_over]
        self._add(item, verdict)
        return ImportLine(
            object_type="key",
            source=item.source,
            result="imported",
            key_id=None if self.order.dry_run else verdict.key.id,
            key_alias=alias,
            changes=changes,
            lost=item.lost,
        )

    def flush(self) -> None:
        """Write what is noted."""
        if self._keys:
            queries.insert_key(self.unit.connection, *self._keys)
            queries.insert_secret(self.unit.connection, *self._secrets)
            self._keys, self._secrets = [], []

    def _in_the_way(self, item: Candidate, lookup: str) -> ImportLine | None:
        """Return the line for a key string that is here already, by its digest or only by its lookup."""
        known = self._present.get(lookup)
        own = self._own.get(lookup)
        if own == item.digest or (known is not None and _is_of(known, item.digest)):
            return passed_over(item.source, "present")
        if own is None and known is None:
            return None
        error = KeyTakenError("another key string has the same first half of its SHA-256")
        return failed("key", item.source, error, lost=item.lost)

    def _judge(self, item: Candidate, alias: str | None) -> Judgement:
        decision = self._gather(item)
        if self._keys and totals.are_asked_for(decision.facts):
            self.flush()  # sums are read from the database: let it know the keys before this one
            decision = self._gather(item)
        return decision.verdict(new_key_id(), alias)

    def _gather(self, item: Candidate) -> KeyDecision:
        return gather(
            self.unit.connection,
            self.workspace.settings,
            self.unit.caller,
            resolve.given_values(item.mapped.request),
            operation="import",
            service_account=item.mapped.service_account,
            kept={**item.mapped.kept, "confirmed_at": self.unit.now},
            overrides=self.order.overrides,
            lookup=self._roster,
            now=self.unit.now,
        )

    def _add(self, item: Candidate, verdict: Judgement) -> None:
        key, hashes = verdict.key, iter(item.hashes.result())
        self._keys.append(key)
        if key.key_alias is not None:
            self._taken[key.key_alias] = "an older one" if self.order.dry_run else key.id
        active = self._secret(key, item.digest, next(hashes), state="active")
        self._note(active, item.digest)
        for grace in item.mapped.grace:
            hashed, lookup = next(hashes), lookup_of(grace.digest)
            if (
                lookup in self._present
                or lookup in self._own
                or is_past(grace.until, now=key.updated_at)
            ):
                continue
            old = self._secret(key, grace.digest, hashed, state="retiring", until=grace.until)
            self._note(old, grace.digest)
        self._record(item, verdict, active.id)

    def _note(self, secret: Secret, digest: str) -> None:
        self._secrets.append(secret)
        self.written.append(secret)
        self._own[secret.lookup] = digest

    def _secret(
        self, key: Key, digest: str, hashed: str, *, state: str, until: datetime | None = None
    ) -> Secret:
        """Return a secret's row; none lives longer than its key.

        An older one counts from the key's creation, so that the newest is the active one.
        """
        ends = [moment for moment in (key.expires, until) if moment is not None]
        return Secret(
            id=keystring.random_text(keystring.ID_LENGTH),
            key_id=key.id,
            lookup=lookup_of(digest),
            hash=hashed,
            state=state,
            supplied=True,
            run_id=RUN,
            created_at=self.unit.now if state == "active" else key.created_at,
            not_after=min(ends, default=None),
            administers=self._administers(key),
            **issuer_of(self.unit.caller),
        )

    def _administers(self, key: Key) -> bool:
        return self.order.administers and ends_with_caller(self.unit.caller, key.expires)

    def _record(self, item: Candidate, verdict: Judgement, secret_id: str) -> None:
        reason, key_id = self.order.reason, verdict.key.id
        for violation in verdict.stepped_over:
            told = {"rule": violation.rule, "field": violation.field}
            self.unit.record("rule_overridden", "key", key_id, after=told, reason=reason)
        dropped = [name for name in item.lost if name in self.order.dropped]
        after: dict[str, Any] = {
            **row_of(verdict.key),
            "secret_id": secret_id,
            "administers": self._administers(verdict.key),
        }
        self.unit.record(
            "key_imported",
            "key",
            key_id,
            after={**after, "dropped": dropped} if dropped else after,
            reason=reason if dropped else None,
        )


def digests_of(digest: str, mapped: MappedKey) -> list[str]:
    """Return the digests of a key's strings, the active one first."""
    return [digest, *(item.digest for item in mapped.grace)]


def lookup_of(digest: str) -> str:
    """Return what a key string with this SHA-256 is found by, unless it has the generated form."""
    return digest[:32]


def _is_of(secret: Secret, digest: str) -> bool:
    """Tell whether *secret* is that of the key string with this digest.

    An import's own is, without asking bcrypt ten thousand times in a second run: 32 characters
    of a SHA-256 do not agree by chance.  Any other may have been supplied by hand.  Of one that ended
    long ago nothing is left to compare.
    """
    return (
        secret.run_id == RUN
        or not secret.hash
        or hashing.digest_matches(digest, hashed=secret.hash)
    )
