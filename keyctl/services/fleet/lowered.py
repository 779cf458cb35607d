"""Ask what becomes of the keys of those whom the files give a lower role or end, and settle it."""

from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import Connection

from keyctl.config.settings import Settings
from keyctl.db import queries
from keyctl.errors import KeysLeftError
from keyctl.policy.members import PLAIN, is_lower
from keyctl.records import Key, User
from keyctl.services.fleet.model import KeyChange, Lowered, OwnerChange, Plan, Problem, Warned
from keyctl.services.leaving import What, left_behind, names_of, place_columns, settle
from keyctl.services.transaction import Unit

_RULE: Final = "directory.keys_left"
_ENDS: Final = {"block": "blocked", "delete": "deleted", "keep": "kept"}


def note_lowered(connection: Connection, plan: Plan, keys: What | None) -> None:
    """Note who gets a lower role or ends, and what *keys* says of the keys left; a problem if nothing.

    Keys are looked at as they will be: one that gets another owner in the same plan is not left.
    """
    plan.lowered = [item for change in plan.changes for item in _lowered(change)]
    if not plan.lowered:
        return
    planned = {change.key_id: change for change in plan.changes if isinstance(change, KeyChange)}
    for item in plan.lowered:
        where = place_columns(item.place)
        found = queries.keys_left_by(connection, item.user_id, lock=False, **where)
        left = [
            key
            for key in found
            if _stays(planned[key.id].after(key) if key.id in planned else key, item)
        ]
        item.key_ids = tuple(key.id for key in left)
        if left:
            _note(plan, item, left, keys)


def settle_lowered(
    unit: Unit, settings: Settings, lowered: Sequence[Lowered], keys: What | None
) -> None:
    """Do with the keys of each what *keys* says, after all other changes of keys.

    Raises:
        KeysLeftError: There are some, and *keys* says nothing.
    """
    for item in lowered:
        settle(unit, settings, item.user_id, place=item.place, keys=keys)


def _lowered(change: object) -> Iterator[Lowered]:
    """Yield who has less to say after the change of an owner."""
    if not isinstance(change, OwnerChange):
        return
    before, after = change.before, change.after
    if isinstance(before, User) and change.action == "delete":
        # Keys of its own keep a user.  A service account that it may act as does not.
        yield Lowered(entry=None, field=f"users.{before.id}", user_id=before.id, place=None)
    if change.action != "update" or change.entry is None:
        return
    if isinstance(before, User) and isinstance(after, User) and is_lower(after.role, before.role):
        yield Lowered(entry=change.entry, field="user_role", user_id=after.id, place=None)
    for user, (old, role) in change.roles.items():
        if old is not None and role in PLAIN:
            yield Lowered(
                entry=change.entry,
                field=f"members.{user}",
                user_id=user,
                place=(type(after), after.id),
            )


def _stays(key: Key, item: Lowered) -> bool:
    """Tell whether the key, as it will be, is still one that the user leaves."""
    columns = place_columns(item.place)
    return (
        key.deleted_at is None
        and (key.service_account or key.user_id == item.user_id)
        and all(getattr(key, name) == value for name, value in columns.items())
    )


def _note(plan: Plan, item: Lowered, left: Sequence[Key], keys: What | None) -> None:
    if keys is None:
        error: KeysLeftError = left_behind(item.user_id, item.place, left)
        plan.problems.append(Problem(error=error, entry=item.entry, field=item.field, rule=_RULE))
        return
    are = "is" if len(left) == 1 else "are"
    why = "is described no more" if item.entry is None else "gets a lower role"
    plan.warnings.append(
        Warned(
            entry=item.entry,
            field=item.field,
            message=f"{item.user_id!r} {why}: {names_of(left)} {are} {_ENDS[keys]}",
        )
    )
