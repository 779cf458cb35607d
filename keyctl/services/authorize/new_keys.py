"""Judge many different new keys in one transaction, each on facts that count the ones before it."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from keyctl.policy.facts import Caller
from keyctl.services.authorize.totals import RunningSums
from keyctl.services.authorize.verdict import Judgement, KeyDecision, Lookup, gather
from keyctl.services.keys.changed import emptied
from keyctl.services.workspace import Workspace

# So many different new keys have their facts at hand: those of one take seven kilobytes.
_KEPT: Final = 100
# Said to be empty, these keep a default from being filled in; the others are emptied after it.
_OWNERS: Final = frozenset({"team_id", "user_id", "organization_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a new key is to be: column values, and the fields that are to be empty whatever the defaults.

    Keys that share one of these, but for their alias, are judged on facts that are gathered once.
    """

    values: Mapping[str, Any]
    cleared: frozenset[str] = frozenset()

    def owners(self, name: str) -> set[str]:
        """Return the owner that `team_id`, `user_id` or `organization_id` names, if one is."""
        value = self.values.get(name)
        return set() if value is None else {value}


@dataclass(slots=True, kw_only=True)
class NewKeys:
    """Judges new keys, one after the other."""

    connection: Connection
    workspace: Workspace
    caller: Caller
    lookup: Lookup
    ledger: RunningSums
    now: datetime
    lock: bool
    overrides: Sequence[str] = ()
    coming: Container[str] = ()
    _decisions: dict[int, tuple[NewKey, KeyDecision]] = field(default_factory=dict)

    def verdict(self, wanted: NewKey, key_id: str, alias: str | None) -> Judgement:
        """Return the verdict on one more key; one without violations counts from here on.

        Raises:
            MalformedRequestError, NotFoundError: Before any rule can be asked.
        """
        decision = self._decision(wanted, named=alias is not None)
        decision.facts = self.ledger.read(self.connection, decision.facts)
        verdict = decision.verdict(key_id, alias)
        if not verdict.violations:
            self.ledger.count(verdict.key)
        return verdict

    def _decision(self, wanted: NewKey, *, named: bool) -> KeyDecision:
        known = self._decisions.get(id(wanted))
        if known is not None:
            return known[1]
        values = dict(wanted.values)
        service_account = bool(values.pop("service_account", False))
        values.update(dict.fromkeys(wanted.cleared & _OWNERS))
        decision = gather(
            self.connection,
            self.workspace.settings,
            self.caller,
            values,
            service_account=service_account,
            overrides=self.overrides,
            lookup=self.lookup,
            adding=self.ledger,
            coming=self.coming,
            lock=self.lock,
            now=self.now,
        )
        given = frozenset(wanted.values) | ({"key_alias"} if named else set())
        cleared = wanted.cleared - _OWNERS
        decision.facts = replace(
            decision.facts,
            key=emptied(decision.facts.key, cleared, now=self.now)
            if cleared
            else decision.facts.key,
            given=(decision.facts.given - wanted.cleared) | given,
            cleared=cleared,
        )
        decision.filled = [item for item in decision.filled if item.field not in cleared]
        if len(self._decisions) == _KEPT:
            self._decisions.clear()  # a file or a list may have a hundred thousand of its own each
        # Kept with it, so that no other gets its address.
        self._decisions[id(wanted)] = wanted, decision
        return decision
