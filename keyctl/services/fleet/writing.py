"""Write a plan's owners, changes and ends in the transaction that it was made in."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from keyctl.config.settings import Settings
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.fleetfile.document import OWNERS
from keyctl.records import Key, Organization, Principal, Team, User
from keyctl.services import members
from keyctl.services.fleet.lowered import settle_lowered
from keyctl.services.fleet.model import KeyChange, OwnerChange, Plan, TierChange
from keyctl.services.fleet.tiers import write_tiers
from keyctl.services.keys.follow import follow_team
from keyctl.services.keys.update import end_administration, with_blocker
from keyctl.services.leaving import What
from keyctl.services.owners import WORD
from keyctl.services.transaction import Unit, archive, row_of

# What gateways write while they serve: no change of a key, so no reason to plan anew.
_USAGE: Final = frozenset({"spend", "last_used_at", "budget_reset_at"})


class Outdated(Exception):  # noqa: N818  # not an error
    """A key changed since the plan read it: plan again."""


def write(unit: Unit, settings: Settings, plan: Plan, left_keys: What | None) -> None:
    """Write everything but new keys, each with its audit event.

    Raises:
        Outdated: A key is not what it was when it was read.
        KeysLeftError: Who gets a lower role or ends leaves some, and *left_keys* says nothing of them.
    """
    owners = [change for change in plan.changes if isinstance(change, OwnerChange)]
    tiers = [change for change in plan.changes if isinstance(change, TierChange)]
    write_tiers(unit, [change for change in tiers if change.action != "delete"])
    for kind in OWNERS.values():
        _write_owners(unit, [item for item in owners if type(item.after) is kind])
    keys = [change for change in plan.changes if isinstance(change, KeyChange)]
    if left := [key_id for item in plan.lowered for key_id in item.key_ids]:
        # Together with the others, so that all are locked in the order of their ids.
        queries.lock_keys(unit.connection, [*left, *(change.before.id for change in keys)])
    _lock(unit, keys)
    for change in keys:  # first what ends: another key may get its name
        if change.action == "delete":
            archive(unit, change.before, action="key_deleted", reason="described no more")
    _write_keys(unit, keys)
    for owner in owners:
        if isinstance(owner.before, Team) and isinstance(owner.after, Team):
            follow_team(unit, owner.before, owner.after)
    settle_lowered(unit, settings, plan.lowered, left_keys)
    for kind in reversed(OWNERS.values()):
        for owner in owners:
            if owner.action == "delete" and type(owner.after) is kind:
                _end_owner(unit, owner)
    write_tiers(unit, [change for change in tiers if change.action == "delete"])


def _write_owners(unit: Unit, changes: Iterable[OwnerChange]) -> None:
    # One that is adopted and changed is written once, as it will be.
    written: set[str] = set()
    for change in changes:
        after, before = change.after, change.before
        if change.action == "delete":
            continue
        word = WORD[type(after)]
        if before is None:
            directory.create(unit.connection, after)
            unit.record(f"{word}_created", word, after.id, after=row_of(after))
        elif after.id not in written:
            changed = {
                item.name: getattr(after, item.name)
                for item in fields(after)
                if getattr(after, item.name) != getattr(before, item.name)
            }
            if changed.keys() - {"updated_at", "updated_by"}:
                directory.change(unit.connection, type(after), after.id, changed)
                unit.record(
                    f"{word}_updated", word, after.id, before=row_of(before), after=row_of(after)
                )
        written.add(after.id)
        _write_members(unit, change, type(after))


def _write_members(unit: Unit, change: OwnerChange, kind: type[Principal]) -> None:
    for known, member in change.members.values():
        if known is None:
            members.write_new(unit, member)
        else:
            members.write_change(unit, known, member)
    for user, (before, role) in change.roles.items():
        if user in change.members:
            continue  # written whole, its role too
        members.write_role(unit, kind, change.object_id, user, role, before=before)


def _end_owner(unit: Unit, change: OwnerChange) -> None:
    before, after = change.before, change.after
    if before is None:
        return  # nothing was ever there
    kind, word = type(before), WORD[type(before)]
    if kind is User:
        directory.leave_all(unit.connection, before.id)
    elif kind in (Team, Organization):
        directory.remove_member(unit.connection, kind, before.id)
    names = ("deleted_at", "updated_at", "updated_by", *(("email",) if kind is User else ()))
    directory.change(
        unit.connection, kind, before.id, {name: getattr(after, name) for name in names}
    )
    unit.record(
        f"{word}_deleted",
        word,
        before.id,
        before=row_of(before),
        after=row_of(after),
        reason="described no more",
    )


def _lock(unit: Unit, changes: Sequence[KeyChange]) -> None:
    """Lock the keys in the order of their ids, and see that they are what they were."""
    planned = {change.before.id: change.before for change in changes}
    for key in queries.find_keys(unit.connection, sorted(planned), lock=True):
        if _but_usage(key) != _but_usage(planned.pop(key.id)):
            raise Outdated
    if planned:
        raise Outdated


def _but_usage(key: Key) -> dict[str, Any]:
    return {name: value for name, value in key.columns().items() if name not in _USAGE}


def _write_keys(unit: Unit, changes: Sequence[KeyChange]) -> None:
    """Write changed and adopted keys, the ones that set the same columns in one statement."""
    # A key that is adopted and changed has two changes: the second one holds both.
    final = {change.before.id: change for change in changes if change.action == "adopt"}
    final |= {change.before.id: change for change in changes if change.action == "update"}
    rows: dict[str, dict[str, Any]] = {}
    for key_id, change in final.items():
        after = replace(change.after, updated_at=unit.now, updated_by=unit.caller.actor)
        after = with_blocker(unit.caller, change.before, after)
        rows[key_id] = {
            name: value
            for name, value in after.columns().items()
            if value != getattr(change.before, name)
        }
        unit.record("key_updated", "key", key_id, before=row_of(change.before), after=row_of(after))
    queries.update_keys(unit.connection, rows)
    for change in final.values():
        if change.after.expires != change.before.expires:
            queries.bound_secrets(unit.connection, change.after)
        end_administration(unit, change.before, change.after)
