"""Ask what people should be reminded of, and note what they were."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, or_, select, tuple_

from keyctl.db.tables import keys, organizations, reminders, teams, users
from keyctl.db.upserts import insert_into

_BUDGETS: Final[dict[str, Table]] = {
    "key": keys,
    "team": teams,
    "user": users,
    "organization": organizations,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminder:
    """Something that is so now and that people should know.

    `kind` is the event's name, with the percentage for `budget_at_percent`.  `about` is what the
    reminder is about as text: it comes again when that changes.
    """

    kind: str
    object_type: str
    object_id: str
    alias: str | None
    about: str
    told: dict[str, Any]

    @property
    def event(self) -> str:
        """Return the name of the event."""
        return self.kind.partition(":")[0]

    @property
    def name(self) -> tuple[str, str, str]:
        """Return what tells reminders apart."""
        return self.object_type, self.object_id, self.kind


def expiring(connection: Connection, *, now: datetime, until: datetime) -> Iterator[Reminder]:
    """Yield the live keys that expire after *now* and up to *until*."""
    yield from _ending(connection, "key_expiring", keys.c.expires > now, keys.c.expires <= until)


def expired(connection: Connection, *, now: datetime) -> Iterator[Reminder]:
    """Yield the live keys that have expired."""
    yield from _ending(connection, "key_expired", keys.c.expires <= now)


def rotation_overdue(connection: Connection, *, now: datetime) -> Iterator[Reminder]:
    """Yield the keys whose rotation is due and that nothing keeps from being rotated."""
    query = select(keys.c.id, keys.c.key_alias, keys.c.key_rotation_at).where(*is_overdue(now))
    for row in connection.execute(query.order_by(keys.c.id)):
        yield Reminder(
            kind="rotation_overdue",
            object_type="key",
            object_id=row.id,
            alias=row.key_alias,
            about=row.key_rotation_at.isoformat(),
            told={"key_rotation_at": row.key_rotation_at},
        )


def is_overdue(now: datetime) -> list[ColumnElement[bool]]:
    """Return the conditions on a key whose rotation is due and possible."""
    return [
        *_is_live(keys),
        keys.c.confirmed_at.is_not(None),
        keys.c.blocked.is_(False),
        keys.c.auto_rotate.is_(True),
        keys.c.key_rotation_at <= now,
        or_(keys.c.expires.is_(None), keys.c.expires > now),
    ]


def budgets(
    connection: Connection, *, now: datetime, percents: Sequence[int]
) -> Iterator[tuple[str, Any, int]]:
    """Yield each budget of which some percentage is spent: whose it is, its row, and the percentage.

    A hundred stands for the whole budget, 0 for a key's soft budget.  A period that is over counts
    as new.
    """
    for object_type, table in _BUDGETS.items():
        lowest = min([*percents, 100])
        soft = table.c.get("soft_budget")
        # In whole numbers, rounded down, and without a product that 64 bits could not hold.
        reached = (table.c.max_budget > 0) & (table.c.spend >= table.c.max_budget // 100 * lowest)
        wanted: ColumnElement[bool] = or_(reached, table.c.max_budget == 0)
        if soft is not None:
            wanted = or_(wanted, table.c.spend >= soft)
        query = select(table).where(
            *_is_live(table),
            wanted,
            or_(table.c.budget_reset_at.is_(None), table.c.budget_reset_at > now),
        )
        for row in connection.execute(query.order_by(table.c.id)):
            if row.max_budget is not None:
                for percent in sorted({*percents, 100} if row.max_budget else {100}):
                    if row.spend * 100 >= row.max_budget * percent:
                        yield object_type, row, percent
            if soft is not None and row.soft_budget is not None and row.spend >= row.soft_budget:
                yield object_type, row, 0


def standing(connection: Connection) -> dict[tuple[str, str, str], str]:
    """Return what people have been reminded of: what it was about, by `Fact.name`."""
    rows = connection.execute(select(reminders))
    return {(row.object_type, row.object_id, row.kind): row.about for row in rows}


def note(connection: Connection, fact: Reminder, *, now: datetime) -> bool:
    """Note a reminder; False when another run has noted it meanwhile."""
    object_type, object_id, kind = fact.name
    values = {"about": fact.about, "reminded_at": now}
    statement = insert_into(connection, reminders).values(
        object_type=object_type, object_id=object_id, kind=kind, **values
    )
    done = connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(reminders.primary_key),
            set_=values,
            where=reminders.c.about != fact.about,
        ).returning(reminders.c.kind)
    )
    return done.first() is not None


def forget(connection: Connection, names: Sequence[tuple[str, str, str]]) -> None:
    """Forget reminders of what is so no longer: when it is so again, it is told again."""
    place = tuple_(reminders.c.object_type, reminders.c.object_id, reminders.c.kind)
    connection.execute(delete(reminders).where(place.in_(names)))


def _ending(connection: Connection, kind: str, *conditions: Any) -> Iterator[Reminder]:
    query = select(keys.c.id, keys.c.key_alias, keys.c.expires).where(
        *_is_live(keys), keys.c.confirmed_at.is_not(None), *conditions
    )
    for row in connection.execute(query.order_by(keys.c.id)):
        yield Reminder(
            kind=kind,
            object_type="key",
            object_id=row.id,
            alias=row.key_alias,
            about=row.expires.isoformat(),
            told={"expires": row.expires},
        )


def _is_live(table: Table) -> list[ColumnElement[bool]]:
    return [table.c.deleted_at.is_(None)]
