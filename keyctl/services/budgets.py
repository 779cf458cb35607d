"""Correct spend and begin budget periods: exactly, atomically, and on record."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from keyctl import keystring, money
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.db.queries.audit import Head
from keyctl.db.queries.metered import meters_due
from keyctl.db.schema import RESERVABLE
from keyctl.errors import (
    InvalidMoneyError,
    KeyNotFoundError,
    SpenderNotFoundError,
    UnreadableRowError,
    UsageError,
)
from keyctl.purses import OWN, PurseName
from keyctl.records import Key, Principal
from keyctl.services.callers import administering, require_admin, require_overseer
from keyctl.services.keys.find import find, live_key, may_see
from keyctl.services.owners import WORD, require
from keyctl.services.periods import begin_periods
from keyctl.services.transaction import Unit, anchor, row_of
from keyctl.services.workspace import Workspace

Kind = type[Principal]
_CHUNK: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """One budget that began a new period: `max_budget`, or the meter of another one."""

    object_type: str
    object_id: str
    budget: str = OWN
    previous_spend: int
    spend: int
    budget_reset_at: Any
    audit: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BudgetService:
    """Changes what has been spent.  Every step is one transaction."""

    workspace: Workspace

    def reset_due(self) -> Iterator[Reset]:
        """Begin the next period of every budget whose time has come, and yield each.

        Spend starts at zero, or with `budget_rollover` at what was overspent; periods that were
        missed are skipped.  Rows that another run is resetting are left to it.  Budgets of windows,
        models, members and tiers follow; what is spent of them is usage, and no event tells of it.
        After that, what gateways had reserved that are gone is settled as the configuration says.
        """
        require_admin(self.workspace, "reset budgets", "budget_reset_denied", "budget")
        while chunk := self._chunk():
            yield from (item for item in chunk if isinstance(item, Reset))
        last: PurseName | None = None
        while True:
            begun, last = self._metered_chunk(last)
            yield from begun
            if last is None:
                break
        self._settle_the_gone()

    def _settle_the_gone(self) -> None:
        """Charge what killed gateways held, where no other gateway is left to do it; it is usage."""
        database = self.workspace.database
        charges = self.workspace.settings.unsettled == "charge"
        while True:
            with database.recording(oldest=RESERVABLE) as connection:
                now = database.now(connection)
                over = queries.settle_leases_that_are_over(
                    connection, now=now, limit=_CHUNK, charges=charges
                )
            if not over:
                return

    def due(self) -> int:
        """Return how many budgets would be reset: a number about everybody's keys.

        Raises:
            DeniedError: The caller is neither an admin nor an admin viewer.
        """
        require_overseer(self.workspace, "how many budgets are due", "budget")
        database = self.workspace.database
        with database.read() as connection:
            return queries.count_budgets_due(connection, now=database.now(connection))

    def add(self, given: str, amount: int, *, kind: Kind | None = None) -> dict[str, Any]:
        """Add *amount* nano-dollars to what a key, or an owner of that *kind*, has spent.

        A period that is over begins anew first: what is added counts in the one that is now.
        Without a *kind*, what answers to no key may be a team, a user or an organization.

        Raises:
            InvalidMoneyError: It would be more than can be counted.
            NotFoundError: Nothing answers to it.
            UsageError: It could be several.
        """
        return self._set(given, kind, lambda spend: spend + amount)

    def reset(self, given: str, *, kind: Kind | None = None) -> dict[str, Any]:
        """Set what a key, or an owner of that *kind*, has spent to zero; its period goes on.

        Raises:
            NotFoundError: Nothing answers to it.
            UsageError: It could be several.
        """
        return self._set(given, kind, lambda _: 0)

    def _set(self, given: str, kind: Kind | None, spend_of: Callable[[int], int]) -> dict[str, Any]:
        workspace = self.workspace
        what, action = "change what a key has spent", "key_spend_denied"
        if kind is None and (not workspace.caller.is_admin or workspace.caller.key is not None):
            require_admin(workspace, what, action, "key", self._known(given))
        with administering(
            workspace, what, action, "key" if kind is None else WORD[kind], given
        ) as unit:
            record = self._locked(unit, given, kind)
            (begun,) = begin_periods(unit, [record], rollover=self._rollover)
            spend = spend_of(begun.spend)
            word = "key" if isinstance(record, Key) else WORD[type(record)]
            if spend > money.MAX_NANO:
                raise InvalidMoneyError(
                    f"{word} {record.id} would have spent more than can be counted",
                    hint=f"give {money.ACCEPTED}",
                )
            after = replace(begun, spend=spend)
            # As a difference, so that what a gateway records meanwhile is not lost.
            queries.add_spend(unit.connection, record, spend - begun.spend)
            unit.record(
                f"{word}_spend_changed", word, record.id, before=row_of(record), after=row_of(after)
            )
        return {
            f"{word}_id": record.id,
            "previous_spend": money.dollars(begun.spend),
            "spend": money.dollars(spend),
            "max_budget": None if record.max_budget is None else money.dollars(record.max_budget),
            "budget_reset_at": begun.budget_reset_at,
            "audit": anchor(unit.heads[-1]),
        }

    def _locked(self, unit: Unit, given: str, kind: Kind | None) -> Key | Principal:
        """Return the key or the owner that *given* means, locked."""
        if kind is not None:
            return require(unit.connection, kind, given, lock=True)
        try:
            return live_key(unit.connection, given, unit.caller)
        except KeyNotFoundError:
            if keystring.looks_secret(given):
                raise
            kinds = [
                kind for kind in WORD if directory.find(unit.connection, kind, given) is not None
            ]
        if not kinds:
            raise SpenderNotFoundError(
                f"there is no key, team, user or organization {given!r}",
                hint="keyctl list, team list, user list and org list show them",
                given=given,
            )
        if len(kinds) > 1:
            words = " and ".join(f"the {WORD[kind]}" for kind in kinds)
            raise UsageError(f"{given!r} names {words}", hint="say which: --team, --user or --org")
        return require(unit.connection, kinds[0], given, lock=True)

    def _known(self, given: str) -> str:
        """Return the id of the key *given* if the caller may see it, else *given* as it is."""
        with self.workspace.database.read() as connection:
            try:
                key = find(connection, given, caller=self.workspace.caller)
            except KeyNotFoundError:
                return given
        return key.id if may_see(self.workspace.caller, key) else given

    def _chunk(self) -> list[Reset | UnreadableRowError]:
        """Begin the next period of some budgets; what cannot be read is noted in the workspace."""
        passed_over = self.workspace.unreadable
        with administering(
            self.workspace, "reset budgets", "budget_reset_denied", "budget"
        ) as unit:
            rows = queries.budgets_due(
                unit.connection,
                now=unit.now,
                limit=_CHUNK,
                but=[(item.object_type, item.object_id) for item in passed_over],
            )
            spoiled = [row for row in rows if isinstance(row, UnreadableRowError)]
            due = [row for row in rows if not isinstance(row, UnreadableRowError)]
            after = begin_periods(unit, due, rollover=self._rollover)
            begun = [_recorded(unit, *pair) for pair in zip(due, after, strict=True)]
        passed_over.extend(spoiled)
        return [*spoiled, *_anchored(begun, unit.heads)]

    def _metered_chunk(self, after: PurseName | None) -> tuple[list[Reset], PurseName | None]:
        """Begin the next period of some budgets that have a meter, and return the last one's name."""
        with administering(
            self.workspace, "reset budgets", "budget_reset_denied", "budget"
        ) as unit:
            due = meters_due(unit.connection, now=unit.now, after=after, limit=_CHUNK)
            names = {item.name: item.terms for item in due}
            begun = queries.lock_purses(
                unit.connection, names, now=unit.now, rollover=self._rollover
            )
        resets = [
            Reset(
                object_type=item.object_type,
                object_id=item.name.object_id,
                budget=item.name.meter,
                previous_spend=item.spend,
                spend=begun[item.name].spend,
                budget_reset_at=begun[item.name].end,
            )
            for item in due
        ]
        return resets, due[-1].name if due else None

    @property
    def _rollover(self) -> bool:
        return self.workspace.settings.budget_rollover


def _recorded(unit: Unit, before: Key | Principal, after: Key | Principal) -> Reset:
    """Record that a budget began a new period, and return what is told of it."""
    word = "key" if isinstance(before, Key) else WORD[type(before)]
    unit.record("budget_reset", word, before.id, before=row_of(before), after=row_of(after))
    return Reset(
        object_type=word,
        object_id=before.id,
        previous_spend=before.spend,
        spend=after.spend,
        budget_reset_at=after.budget_reset_at,
    )


def _anchored(begun: Sequence[Reset], heads: Sequence[Head]) -> list[Reset]:
    return [
        replace(item, audit=anchor(head))
        for item, head in zip(begun, heads, strict=False)  # more events may follow
    ]
