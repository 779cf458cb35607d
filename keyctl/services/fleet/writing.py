"""Write a plan's owners, changes and ends in the transaction that it was made in."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from keyctl.config.settings import Settings
from keyctl.db import queries
from keyctl.db.queries import directory
from keyctl.fleetfile.document import OWNERS
from keyctl.portions import portions
from keyctl.records import Key, Organization, Principal, Team, User
from keyctl.services import members
from keyctl.services.fleet.lowered import settle_lowered
from keyctl.services.fleet.model import KeyChange, Outdated, OwnerChange, Plan, TierChange, stamp_of
from keyctl.services.fleet.tiers import write_tiers
from keyctl.services.keys.follow import follow_team
from keyctl.services.keys.update import end_administration, with_blocker
from keyctl.services.leaving import What
from keyctl.services.owners import WORD
from keyctl.services.periods import begin_periods, time_anew
from keyctl.services.transaction import Unit, archive_many, row_of

_PORTION: Final = 500


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
        _write_owners(unit, settings, [item for item in owners if type(item.after) is kind])
    keys = [change for change in plan.changes if isinstance(change, KeyChange)]
    left = {key_id for item in plan.lowered for key_id in item.key_ids}
    # All together, so that they are locked in the order of their ids.
    queries.lock_keys(unit.connection, [*left.union(change.key_id for change in keys)])
    # First what ends: another key may get its name.
    for some in _current(unit, (change for change in keys if change.action == "delete")):
        ended = [key for _, key in some]
        archive_many(unit, ended, action="key_deleted", reason="described no more")
    _write_keys(unit, settings, keys)
    for owner in owners:
        if isinstance(owner.before, Team) and isinstance(owner.after, Team):
            follow_team(unit, owner.before, owner.after)
    settle_lowered(unit, settings, plan.lowered, left_keys)
    for kind in reversed(OWNERS.values()):
        for owner in owners:
            if owner.action == "delete" and type(owner.after) is kind:
                _end_owner(unit, owner)
    write_tiers(unit, [change for change in tiers if change.action == "delete"])


def _write_owners(unit: Unit, settings: Settings, changes: Iterable[OwnerChange]) -> None:
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
                (before,) = begin_periods(unit, [before], rollover=settings.budget_rollover)
                directory.change(unit.connection, type(after), after.id, changed)
                unit.record(
                    f"{word}_updated", word, after.id, before=row_of(before), after=row_of(after)
                )
                time_anew(unit, before, after)
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


def _current(unit: Unit, changes: Iterable[KeyChange]) -> Iterator[list[tuple[KeyChange, Key]]]:
    """Yield the changes in portions, each with the stored key, which is locked by now.

    Raises:
        Outdated: A key is not what it was when it was judged.
    """
    for some in portions(changes, _PORTION):
        ids = [change.key_id for change in some]
        found = {key.id: key for key in queries.find_keys(unit.connection, ids)}
        for change in some:
            if change.key_id not in found or stamp_of(found[change.key_id]) != change.stamp:
                raise Outdated
        yield [(change, found[change.key_id]) for change in some]


def _write_keys(unit: Unit, settings: Settings, changes: Sequence[KeyChange]) -> None:
    """Write changed and adopted keys, the ones that set the same columns in one statement."""
    # A key that is adopted and changed has two changes: the second one holds both.
    adopted = {item.key_id: item for item in changes if item.action == "adopt"}
    updated = (item for item in changes if item.action == "update")
    if adopted:
        adopted.update((item.key_id, item) for item in updated)
    for some in _current(unit, adopted.values() if adopted else updated):
        rows: dict[str, dict[str, Any]] = {}
        written: list[tuple[Key, Key]] = []
        begun = begin_periods(unit, [key for _, key in some], rollover=settings.budget_rollover)
        for (change, _), before in zip(some, begun, strict=True):
            after = replace(change.after(before), updated_at=unit.now, updated_by=unit.caller.actor)
            after = with_blocker(unit.caller, before, after)
            rows[before.id] = {
                name: value
                for name, value in after.columns().items()
                if value != getattr(before, name)
            }
            written.append((before, after))
            time_anew(unit, before, after)
            unit.record("key_updated", "key", before.id, before=row_of(before), after=row_of(after))
        queries.update_keys(unit.connection, rows)
        for before, after in written:
            if after.expires != before.expires:
                queries.bound_secrets(unit.connection, after)
            end_administration(unit, before, after)
