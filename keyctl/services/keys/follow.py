"""Let the keys of a team follow it to another organization: they belong to it through the team."""

from dataclasses import replace

from keyctl.db import queries
from keyctl.records import Team
from keyctl.services.transaction import Unit, row_of


def follow_team(unit: Unit, before: Team, after: Team) -> int:
    """Give the keys of a team that moved its new organization, in the same transaction; return how many.

    Left where it was, a key would go on spending the old organization's budget, and no change of
    it would be allowed: a key of a team names that team's organization or none.
    """
    old, new = before.organization_id, after.organization_id
    if old == new:
        return 0
    moved = 0
    for key in queries.keys_of_team(unit.connection, after.id):
        # Of a team without an organization, a key may have one of its own.
        if key.organization_id == new or (new is None and key.organization_id != old):
            continue
        changed = replace(
            key, organization_id=new, updated_at=unit.now, updated_by=unit.caller.actor
        )
        queries.update_key(
            unit.connection,
            key.id,
            organization_id=new,
            updated_at=changed.updated_at,
            updated_by=changed.updated_by,
        )
        unit.record(
            "key_updated",
            "key",
            key.id,
            before=row_of(key),
            after=row_of(changed),
            reason=f"its team {after.id} moved",
        )
        moved += 1
    return moved
