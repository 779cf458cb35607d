"""Keep budget tiers: limits in one place, for the keys, users and members that name them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import views
from keyctl.db.queries import tiers
from keyctl.errors import BudgetNotFoundError, ObjectInUseError, ObjectTakenError
from keyctl.records import Tier
from keyctl.services.callers import administering
from keyctl.services.periods import time_tier_anew
from keyctl.services.transaction import Unit, anchor, row_of
from keyctl.services.workspace import Workspace

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class TierService:
    """Creates, changes, lists and archives budget tiers.  Every change is one transaction."""

    workspace: Workspace

    def create(self, tier_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Make one and return its view.

        Raises:
            ObjectTakenError: There is one with this id.
        """
        taken = ObjectTakenError(
            f"budget {tier_id!r} exists already",
            hint=f"keyctl budget update {tier_id} changes it",
        )
        try:
            with self._administering("create", tier_id) as unit:
                if tiers.find_tier(unit.connection, tier_id) is not None:
                    raise taken
                tier = make_tier(unit, tier_id, values)
        except ConstraintError:
            raise taken from None  # somebody else was faster
        return _answer(tier, unit)

    def update(self, tier_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change what *values* name, for everybody who names the tier, and return the view.

        Raises:
            BudgetNotFoundError: There is none with this id.
        """
        with self._administering("update", tier_id) as unit:
            before = require_tier(unit.connection, tier_id, lock=True)
            after = replace(before, updated_at=unit.now, updated_by=unit.caller.actor, **values)
            if after.budget_duration != before.budget_duration:
                after = replace(after, budget_anchor_at=unit.now)
            changed = {
                item.name: getattr(after, item.name)
                for item in fields(after)
                if getattr(after, item.name) != getattr(before, item.name)
            }
            tiers.change_tier(unit.connection, tier_id, {**changed, "updated_at": unit.now})
            unit.record(
                "budget_updated", "budget", tier_id, before=row_of(before), after=row_of(after)
            )
            time_tier_anew(unit, before, after)
        return _answer(after, unit)

    def delete(self, tier_id: str) -> dict[str, Any]:
        """Archive one that nobody names.

        Raises:
            BudgetNotFoundError: There is none with this id.
            ObjectInUseError: Keys, users or members name it: they would be without limits.
        """
        with self._administering("delete", tier_id) as unit:
            before = require_tier(unit.connection, tier_id, lock=True)
            holders = tiers.holders_of_tier(unit.connection, tier_id, limit=_NAMED)
            if holders:
                raise ObjectInUseError(
                    f"budget {tier_id!r} still limits {', '.join(holders)}",
                    hint="give them another budget, or clear their budget_id, first",
                )
            after = replace(
                before,
                deleted_at=unit.now,
                updated_at=unit.now,
                updated_by=unit.caller.actor,
            )
            tiers.change_tier(
                unit.connection,
                tier_id,
                {
                    "deleted_at": unit.now,
                    "updated_at": unit.now,
                    "updated_by": unit.caller.actor,
                },
            )
            unit.record(
                "budget_deleted", "budget", tier_id, before=row_of(before), after=row_of(after)
            )
        return {"budget_id": tier_id, "deleted": True, "audit": anchor(unit.heads[-1])}

    def info(self, tier_id: str) -> dict[str, Any]:
        """Return the view of one.  Tiers hold nothing secret: any caller may look at them.

        Raises:
            BudgetNotFoundError: There is none with this id.
        """
        with self.workspace.database.read() as connection:
            return views.tier_view(require_tier(connection, tier_id))

    def page(self, *, after: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """Return one page by id, and the id to go on after, None at the end."""
        with self.workspace.database.read() as connection:
            found = tiers.list_tiers(connection, after=after, limit=limit + 1)
        page = [views.tier_view(tier) for tier in found[:limit]]
        return page, found[limit - 1].id if len(found) > limit else None

    def _administering(self, verb: str, tier_id: str) -> AbstractContextManager[Unit]:
        action = f"budget_{verb}_denied"
        return administering(self.workspace, f"{verb} a budget", action, "budget", tier_id)


def make_tier(unit: Unit, tier_id: str, values: Mapping[str, Any]) -> Tier:
    """Write a tier that is not there yet, with its event, and return it."""
    tier = Tier(
        id=tier_id,
        created_at=unit.now,
        created_by=unit.caller.actor,
        updated_at=unit.now,
        updated_by=unit.caller.actor,
        budget_anchor_at=unit.now,
        **values,
    )
    tiers.write_tier(unit.connection, tier)
    unit.record("budget_created", "budget", tier_id, after=row_of(tier))
    return tier


def require_tier(connection: Connection, tier_id: str, *, lock: bool = False) -> Tier:
    """Return the tier with this id.

    Raises:
        BudgetNotFoundError: There is none.
    """
    tier = tiers.find_tier(connection, tier_id, lock=lock)
    if tier is None:
        raise BudgetNotFoundError(
            f"there is no budget {tier_id!r}",
            hint="keyctl budget list shows them; keyctl budget create makes one",
            given=tier_id,
        )
    return tier


def _answer(tier: Tier, unit: Unit) -> dict[str, Any]:
    return {**views.tier_view(tier), "audit": anchor(unit.heads[-1])}
