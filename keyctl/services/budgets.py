"""Correct spend and begin budget periods: exactly, atomically, and on record."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from keyctl import money
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.db.queries.audit import Head
from keyctl.db.schema import RESERVABLE
from keyctl.errors import InvalidMoneyError, KeyNotFoundError, UnreadableRowError, UsageError
from keyctl.records import Key, Principal
from keyctl.services.callers import administering, require_admin, require_overseer
from keyctl.services.keys.find import find, live_key, may_see
from keyctl.services.owners import WORD, require
from keyctl.services.transaction import Unit, anchor, row_of
from keyctl.services.workspace import Workspace

Kind = type[Principal]
_CHUNK: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """One budget that began a new period."""

    object_type: str
    object_id: str
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
        missed are skipped.  Rows that another run is resetting are left to it.  After that, what
        gateways had reserved that are gone is settled as the configuration says.
        """
        require_admin(self.workspace, "reset budgets", "budget_reset_denied", "budget")
        while chunk := self._chunk():
            yield from (item for item in chunk if isinstance(item, Reset))
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
            begun = self._begun(record, now=unit.now)
            spend = spend_of(begun.spend)
            word = "key" if isinstance(record, Key) else WORD[type(record)]
            if spend > money.MAX_NANO:
                raise InvalidMoneyError(
                    f"{word} {record.id} would have spent more than can be counted",
                    hint=f"give {money.ACCEPTED}",
                )
            after = replace(begun, spend=spend)
            if begun is not record:
                self._write_period(unit, begun)
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
            kinds = [
                kind for kind in WORD if directory.find(unit.connection, kind, given) is not None
            ]
            if not kinds:
                raise
        if len(kinds) > 1:
            words = " and ".join(WORD[kind] for kind in kinds)
            raise UsageError(
                f"{given!r} is the id of a {words}", hint="say which: --team, --user or --org"
            )
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
            begun = [
                self._begin_period(unit, row)
                for row in rows
                if not isinstance(row, UnreadableRowError)
            ]
        passed_over.extend(spoiled)
        return [*spoiled, *_anchored(begun, unit.heads)]

    def _begin_period(self, unit: Unit, row: Key | Principal) -> Reset:
        after = self._begun(row, now=unit.now)
        self._write_period(unit, after)
        word = "key" if isinstance(row, Key) else WORD[type(row)]
        unit.record("budget_reset", word, row.id, before=row_of(row), after=row_of(after))
        return Reset(
            object_type=word,
            object_id=row.id,
            previous_spend=row.spend,
            spend=after.spend,
            budget_reset_at=after.budget_reset_at,
        )

    def _begun(self, row: Key | Principal, *, now: datetime) -> Key | Principal:
        """Return *row* in the period that is now: one that is over counts as new, as with each charge."""
        following = queries.period_after(
            row.budget_duration,
            anchor=row.budget_anchor_at or row.created_at,
            end=row.budget_reset_at,
            now=now,
        )
        if following is None:
            return row
        spend = 0
        if self.workspace.settings.budget_rollover and row.max_budget is not None:
            spend = max(0, row.spend - row.max_budget)
        return replace(row, spend=spend, budget_reset_at=following)

    def _write_period(self, unit: Unit, row: Key | Principal) -> None:
        queries.begin_period(unit.connection, row, spend=row.spend, reset_at=row.budget_reset_at)


def _anchored(begun: Sequence[Reset], heads: Sequence[Head]) -> list[Reset]:
    return [
        replace(item, audit=anchor(head))
        for item, head in zip(begun, heads, strict=False)  # more events may follow
    ]
