"""Settle what becomes of the keys that somebody leaves behind: blocked, deleted or kept, by name."""

from collections.abc import Sequence
from typing import Any, Final, Literal

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
    left = queries.keys_left_by(unit.connection, user_id, **_where(place))
    if not left or keys == "keep":
        return [{"key_id": key.id, "key_alias": key.key_alias, "result": "kept"} for key in left]
    if keys is None:
        raise _left_behind(user_id, place, left)
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


def _where(place: tuple[type[Principal], str] | None) -> dict[str, str]:
    if place is None:
        return {}
    kind, object_id = place
    return {{Team: "team_id", Organization: "organization_id"}[kind]: object_id}


def _left_behind(
    user_id: str, place: tuple[type[Principal], str] | None, left: Sequence[Key]
) -> KeysLeftError:
    names = [key.id if key.key_alias is None else f"{key.id} ({key.key_alias})" for key in left]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    there = "" if place is None else f" in {place[1]!r}"
    noun = "key" if len(left) == 1 else "keys"
    return KeysLeftError(
        f"user {user_id!r} leaves {len(left)} live {noun} behind{there}:"
        f" {', '.join(names[:_SHOWN])}{more}",
        hint="say what becomes of them: --keys block, --keys delete or --keys keep",
        violations=[
            Violation(
                rule="directory.keys_left",
                field="keys",
                message="live keys are left behind",
                bound=list(CHOICES),
                value=[key.id for key in left],
            )
        ],
    )
