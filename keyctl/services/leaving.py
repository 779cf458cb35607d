"""Settle what becomes of the keys that somebody leaves behind: blocked, deleted or kept, by name."""

from collections.abc import Sequence
from typing import Any, Final, Literal

from sqlalchemy import Connection

from keyctl.config.settings import Settings
from keyctl.db import queries
from keyctl.errors import KeysLeftError, Violation
from keyctl.policy import engine
from keyctl.policy.facts import Operation
from keyctl.records import Key, Organization, Principal, Team
from keyctl.services.authorize.verdict import facts_of
from keyctl.services.keys.end import set_blocked
from keyctl.services.transaction import Unit, archive

What = Literal["block", "delete", "keep"]
CHOICES: Final[tuple[What, ...]] = ("block", "delete", "keep")
_SHOWN: Final = 20


def settle(
    unit: Unit,
    settings: Settings,
    user_id: str,
    *,
    place: tuple[type[Principal], str] | None,
    keys: What | None,
) -> list[dict[str, Any]]:
    """Do with the keys of a user in *place*, None for everywhere, what *keys* says; return what became of each.

    They are the user's live keys there, and the service accounts there that somebody may act as
    with a secret which the user took.

    Raises:
        KeysLeftError: There are some, and *keys* says nothing.
        PolicyDeniedError: One is not the caller's to block or to delete.
    """
    left = left_by(unit.connection, user_id, place=place, keys=keys)
    if not left or keys == "keep":
        return [{"key_id": key.id, "key_alias": key.key_alias, "result": "kept"} for key in left]
    done = []
    operation: Operation = "block" if keys == "block" else "delete"
    for key in left:
        facts = facts_of(unit.connection, settings, unit.caller, key, operation, now=unit.now)
        if violations := engine.evaluate_caller(facts):
            raise engine.refuse(violations)
        if keys == "block":
            result = set_blocked(unit, key, blocked=True)
        else:
            archive(unit, key, action="key_deleted")
            result = "deleted"
        done.append({"key_id": key.id, "key_alias": key.key_alias, "result": result})
    return done


def left_by(
    connection: Connection,
    user_id: str,
    *,
    place: tuple[type[Principal], str] | None,
    keys: What | None,
    lock: bool = True,
) -> list[Key]:
    """Return the keys that a user leaves behind in *place*, None for everywhere.

    Raises:
        KeysLeftError: There are some, and *keys* says nothing.
    """
    left = queries.keys_left_by(connection, user_id, lock=lock, **place_columns(place))
    if left and keys is None:
        raise left_behind(user_id, place, left)
    return left


def without_owner(connection: Connection, user_id: str) -> list[str]:
    """Return what is to be said of the keys of a user who is deleted now while they are kept."""
    if not (own := queries.keys_kept_for(connection, user_id)):
        return []
    works, it_gets = ("works", "it gets") if len(own) == 1 else ("work", "they get")
    lost = f"{names_of(own)} {works} no more until {it_gets} another owner"
    return [f"{lost}: keyctl update KEY --user NEW"]


def refuse_revival(connection: Connection, user_id: str) -> None:
    """Refuse a new user of this id while keys that a deleted one left would begin to work with it.

    Who had their key strings may have left for good.  Blocked keys stay blocked, so they may stay.

    Raises:
        KeysLeftError: There are such keys.
    """
    if not (kept := queries.keys_kept_for(connection, user_id)):
        return
    noun = "key" if len(kept) == 1 else "keys"
    raise KeysLeftError(
        f"an earlier user {user_id!r} left {len(kept)} live {noun},"
        f" which would work again: {names_of(kept)}",
        hint="first keyctl block KEY (unblock lets it in again), keyctl delete KEY,"
        " or keyctl update KEY --user NEW",
        violations=[_violation(kept)],
    )


def place_columns(place: tuple[type[Principal], str] | None) -> dict[str, str]:
    """Return what a key in *place* has in its columns; nothing for everywhere."""
    if place is None:
        return {}
    kind, object_id = place
    return {{Team: "team_id", Organization: "organization_id"}[kind]: object_id}


def left_behind(
    user_id: str, place: tuple[type[Principal], str] | None, left: Sequence[Key]
) -> KeysLeftError:
    """Return the error that asks what becomes of the keys that a user leaves."""
    there = "" if place is None else f" in {place[1]!r}"
    noun = "key" if len(left) == 1 else "keys"
    return KeysLeftError(
        f"user {user_id!r} leaves {len(left)} live {noun} behind{there}: {names_of(left)}",
        hint="say what becomes of them: --keys block, --keys delete or --keys keep",
        violations=[_violation(left)],
    )


def names_of(keys: Sequence[Key]) -> str:
    """Return the ids and aliases of keys for a sentence, the first twenty of many."""
    names = [key.id if key.key_alias is None else f"{key.id} ({key.key_alias})" for key in keys]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _violation(keys: Sequence[Key]) -> Violation:
    return Violation(
        rule="directory.keys_left",
        field="keys",
        message="live keys are left behind",
        bound=list(CHOICES),
        value=[key.id for key in keys],
    )
