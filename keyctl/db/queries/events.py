"""Say in SQL which events of the audit trail are wanted."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, not_, or_, select

from keyctl import jsontext
from keyctl.db.queries.patterns import contains, matches
from keyctl.db.tables import audit_events


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Which events are wanted; every condition must hold, and what is None does not matter.

    `concerning` are objects by type and id: their own events, and those of what belongs to them.
    """

    key_ids: Sequence[str] | None = None
    concerning: Sequence[tuple[str, str]] = ()
    object_id: str | None = None
    actor: str | None = None
    actions: Collection[str] | None = None
    since: datetime | None = None
    until: datetime | None = None


def conditions(wanted: Conditions) -> list[ColumnElement[bool]]:
    """Return the conditions on the table of events; every one must hold."""
    columns = audit_events.c
    found: list[ColumnElement[bool]] = []
    if wanted.key_ids is not None:
        found.append(and_(columns.object_type == "key", columns.object_id.in_(wanted.key_ids)))
    found += [_concerns(kind, object_id) for kind, object_id in wanted.concerning]
    if wanted.object_id is not None:
        found.append(matches(columns.object_id, wanted.object_id))
    if wanted.actor is not None:
        found.append(columns.actor == wanted.actor)
    if wanted.actions is not None:
        found.append(columns.action.in_(sorted(wanted.actions)))
    if wanted.since is not None:
        found.append(columns.at >= wanted.since)
    if wanted.until is not None:
        found.append(columns.at < wanted.until)
    return found


def _concerns(kind: str, object_id: str) -> ColumnElement[bool]:
    """Return the condition that an event is about this object, or about what belongs to it."""
    columns = audit_events.c
    # As the canonical form writes it.
    named = jsontext.canonical({f"{kind}_id": object_id})[1:-1]
    return or_(
        and_(columns.object_type == kind, columns.object_id == object_id),
        contains(columns.before, named),
        contains(columns.after, named),
        _of_a_key_that_had(f'"{kind}_id":', named),
    )


def _of_a_key_that_had(field: str, named: str) -> ColumnElement[bool]:
    """Return the condition that an event of a key tells nothing of this field, and the last one before it *named* it.

    Many events of keys tell only what changed: the confirm of a batch, the steps of a rotation, the
    end of a secret.
    """
    columns = audit_events.c
    earlier, teller = audit_events.alias(), audit_events.alias()
    last = (
        select(func.max(earlier.c.seq))
        .where(
            earlier.c.object_type == "key",
            earlier.c.object_id == columns.object_id,
            earlier.c.seq < columns.seq,
            contains(earlier.c.after, field),
        )
        .correlate(audit_events)
        .scalar_subquery()
    )
    return and_(
        columns.object_type == "key",
        not_(contains(func.coalesce(columns.before, ""), field)),
        not_(contains(func.coalesce(columns.after, ""), field)),
        exists()
        .where(teller.c.seq == last, contains(teller.c.after, named))
        .correlate(audit_events),
    )
