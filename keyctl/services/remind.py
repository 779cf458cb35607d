"""Remind people in time: each event once, and again when what it is about changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection

from keyctl import actions, durations, money
from keyctl.config.hooks import Reminders
from keyctl.db.queries import reminders
from keyctl.db.queries.metered import Metered, metered
from keyctl.db.queries.reminders import Reminder
from keyctl.portions import portions
from keyctl.services.callers import require_admin
from keyctl.services.transaction import writing
from keyctl.services.workspace import Workspace

_CHUNK: Final = 100


@dataclass(frozen=True, slots=True)
class RemindService:
    """Puts events about what ends, is late or is spent into the outbox."""

    workspace: Workspace

    def due(self) -> list[dict[str, Any]]:
        """Return what `remind` would tell now."""
        require_admin(self.workspace, "send reminders", "reminder_denied", "database")
        found, _ = self._found()
        return [_view(fact) for fact in found]

    def remind(self) -> list[dict[str, Any]]:
        """Tell what was not told yet, on record, and return it.

        What is so no longer is forgotten.  Any number of hosts may do this at a time.
        """
        require_admin(self.workspace, "send reminders", "reminder_denied", "database")
        found, over = self._found()
        told = []
        for facts in portions(found, _CHUNK):
            with writing(self.workspace) as unit:
                for fact in facts:
                    if reminders.note(unit.connection, fact, now=unit.now):
                        unit.record(fact.event, fact.object_type, fact.object_id, after=fact.told)
                        told.append(_view(fact))
        for past in portions(over, _CHUNK):
            with writing(self.workspace) as unit:
                reminders.forget(unit.connection, past)
        self._warn(told)
        return told

    def _found(self) -> tuple[list[Reminder], list[tuple[str, str, str]]]:
        """Return what is to be told, and the reminders of what is so no longer."""
        database = self.workspace.database
        if database.path is not None and not database.path.exists():
            with database.write():  # as every writing command makes it
                pass
        with database.read(snapshot=True) as connection:
            facts = list(self._facts(connection))
            known = reminders.standing(connection)
        new = [fact for fact in facts if known.get(fact.name) != fact.about]
        return new, sorted(known.keys() - {fact.name for fact in facts})

    def _facts(self, connection: Connection) -> Iterator[Reminder]:
        settings = self.workspace.settings.reminders or Reminders()
        now = self.workspace.database.now(connection)
        until = durations.parse_duration(settings.key_expiring).after(now)
        yield from chain(
            reminders.expiring(connection, now=now, until=until),
            reminders.expired(connection, now=now),
            reminders.rotation_overdue(connection, now=now),
        )
        percents = settings.budget_at_percent
        for object_type, row, percent in reminders.budgets(connection, now=now, percents=percents):
            yield _of_budget(object_type, row, percent)
        for item in metered(connection, now=now):
            for percent in sorted({*percents, 100}):
                if item.budget.spend * 100 >= item.budget.limit * percent:
                    yield _of_meter(item, percent)

    def _warn(self, told: list[dict[str, Any]]) -> None:
        """Say which events go to nobody: they are in the audit trail alone."""
        hooks = self.workspace.settings.hooks.values()
        for event in sorted({item["event"] for item in told}):
            if not any(actions.is_wanted(event, hook.events) for hook in hooks):
                self.workspace.warnings.append(
                    f"no hook is set for {event}: it is told here and in the audit trail only"
                )


def _of_budget(object_type: str, row: Any, percent: int) -> Reminder:
    bound = row.max_budget if percent else row.soft_budget
    kind = {0: "budget_soft_exceeded", 100: "budget_exceeded"}.get(
        percent, f"budget_at_percent:{percent}"
    )
    told: dict[str, Any] = {
        "spend": str(money.dollars(row.spend)),
        "soft_budget" if percent == 0 else "max_budget": str(money.dollars(bound)),
        "budget_reset_at": row.budget_reset_at,
    }
    if kind.startswith("budget_at_percent"):
        told["percent"] = percent
    period = "" if row.budget_reset_at is None else row.budget_reset_at.isoformat()
    return Reminder(
        kind=kind,
        object_type=object_type,
        object_id=row.id,
        alias=getattr(row, "key_alias", None),
        about=f"{period}/{bound}",
        told=told,
    )


def _of_meter(item: Metered, percent: int) -> Reminder:
    budget = item.budget
    kind = "budget_exceeded" if percent == 100 else f"budget_at_percent:{percent}"
    told: dict[str, Any] = {
        "budget": budget.name.meter,
        "spend": str(money.dollars(budget.spend)),
        "max_budget": str(money.dollars(budget.limit)),
        "budget_reset_at": budget.end,
    }
    if percent != 100:
        told["percent"] = percent
    return Reminder(
        # One object has many: a digest, because the name may be longer than its column.
        kind=f"{kind}:{sha256(budget.name.meter.encode()).hexdigest()[:16]}",
        object_type=item.object_type,
        object_id=item.object_id,
        alias=item.alias,
        about=f"{'' if budget.end is None else budget.end.isoformat()}/{budget.limit}",
        told=told,
    )


def _view(fact: Reminder) -> dict[str, Any]:
    return {
        "event": fact.event,
        "object_type": fact.object_type,
        "object_id": fact.object_id,
        "key_alias": fact.alias,
        **fact.told,
    }
