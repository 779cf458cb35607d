"""Plan and write budget tiers: what is made, changed, adopted and ended."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyctl import views
from keyctl.db.queries import tiers
from keyctl.errors import NotManagedError
from keyctl.fleetfile.entries import TierEntry
from keyctl.records import Tier
from keyctl.services.fleet.model import Plan, Problem, TierChange, Warned
from keyctl.services.periods import time_tier_anew
from keyctl.services.transaction import Unit, row_of

WORD = "budget"


def compare_tier(
    connection: Connection, plan: Plan, entry: TierEntry, *, actor: str, now: datetime
) -> None:
    """Note what becomes of one tier."""
    before = tiers.find_tier(connection, entry.name)
    if before is not None and (
        before.managed_by not in (None, entry.fleet)
        or (before.managed_by is None and not entry.adopt)
    ):
        error = NotManagedError(
            f"budget {entry.name!r} is there already, and fleet {entry.fleet!r} does not have it",
            hint="adopt: true takes over what no fleet has",
        )
        plan.problems.append(Problem(error=error, entry=entry, field="", rule="fleet.not_managed"))
        return
    stamps = {"updated_at": now, "updated_by": actor, "managed_by": entry.fleet}
    if before is None:
        after = Tier(
            id=entry.name,
            created_at=now,
            created_by=actor,
            budget_anchor_at=now,
            **{**stamps, **entry.values},
        )
    else:
        after = replace(before, **{**stamps, **entry.values})
        if after.budget_duration != before.budget_duration:
            after = replace(after, budget_anchor_at=now)
    own: dict[str, Any] = {
        "object_type": WORD,
        "object_id": entry.name,
        "entry": entry,
        "before": before,
        "after": after,
    }
    changed = {
        name: (
            views.dollars(name, None if before is None else getattr(before, name)),
            views.dollars(name, value),
        )
        for name, value in entry.values.items()
        if before is None or getattr(before, name) != value
    }
    if before is not None and before.managed_by is None:
        plan.changes.append(
            TierChange(action="adopt", fields={"managed_by": (None, entry.fleet)}, **own)
        )
    if before is None or changed:
        plan.changes.append(
            TierChange(action="create" if before is None else "update", fields=changed, **own)
        )
    else:
        plan.unchanged += 1


def end_tiers(
    connection: Connection,
    plan: Plan,
    left: Sequence[Tier],
    *,
    named: Collection[str],
    keys_ended: set[str],
    actor: str,
    now: datetime,
) -> None:
    """Note the end of tiers that no file describes any more, where nobody names them.

    *named* are those that the files themselves still name.
    """
    for tier in left:
        holders = tiers.holders_of_tier(connection, tier.id, limit=len(keys_ended) + 1)
        if tier.id in named or set(holders) - {f"key {key_id}" for key_id in keys_ended}:
            message = f"budget {tier.id!r} is described no more, but somebody names it: it stays"
            plan.warnings.append(Warned(entry=None, message=message))
            continue
        ended = replace(tier, deleted_at=now, updated_at=now, updated_by=actor)
        plan.changes.append(
            TierChange(
                action="delete", object_type=WORD, object_id=tier.id, before=tier, after=ended
            )
        )


def write_tiers(unit: Unit, changes: Iterable[TierChange]) -> None:
    """Write tiers, each with its event; one that is adopted and changed once."""
    done: set[str] = set()
    for change in changes:
        before, after = change.before, change.after
        if after.id in done:
            continue
        done.add(after.id)
        if before is None:
            tiers.write_tier(unit.connection, after)
            unit.record("budget_created", WORD, after.id, after=row_of(after))
            continue
        changed = {
            item.name: getattr(after, item.name)
            for item in fields(after)
            if getattr(after, item.name) != getattr(before, item.name)
        }
        tiers.change_tier(unit.connection, after.id, changed)
        action = "budget_deleted" if change.action == "delete" else "budget_updated"
        unit.record(action, WORD, after.id, before=row_of(before), after=row_of(after))
        time_tier_anew(unit, before, after)
