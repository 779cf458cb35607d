"""Narrow a question about keys to those that somebody may see."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, false, or_

from keyctl.db.tables import keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """Which keys somebody may see: one key, a user's, and those of teams and organizations."""

    key_id: str | None = None
    user_id: str | None = None
    team_ids: Collection[str] = ()
    organization_ids: Collection[str] = ()


def is_visible(to: Visible) -> ColumnElement[bool]:
    """Return the condition that a key is among those."""
    seen: list[ColumnElement[bool]] = [false()]
    if to.key_id is not None:
        seen.append(keys.c.id == to.key_id)
    if to.user_id is not None:
        seen.append(keys.c.user_id == to.user_id)
    if to.team_ids:
        seen.append(keys.c.team_id.in_(sorted(to.team_ids)))
    if to.organization_ids:
        belongs = keys.c.organization_id.in_(sorted(to.organization_ids))
        seen.append(and_(keys.c.organization_id.is_not(None), belongs))
    return or_(*seen)
