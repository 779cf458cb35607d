"""Find one key by what a person gives for it, unless the caller may not see it."""

from typing import Final

from sqlalchemy import Connection

from keyctl import keystring
from keyctl.db import queries
from keyctl.errors import (
    AmbiguousKeyError,
    KeyNotFoundError,
)
from keyctl.policy.facts import Caller
from keyctl.records import Key
from keyctl.services.identity import OVERSEERS

# A beginning of an id stands for it from so many characters on, `key_` among them.
SHORTEST_BEGINNING: Final = 8
LENGTH_OF_ID: Final = 24
_SHOWN: Final = 10


def find(
    connection: Connection,
    given: str,
    *,
    lock: bool = False,
    caller: Caller | None = None,
) -> Key:
    """Return the key that *given* names: an id or its beginning, an alias, a secret, a key string from stdin.

    A secret is named by its id, or by ``sk-<id>`` as logs show it; an alias of that name goes first.
    A beginning is compared with the ids of keys that *caller* may see, without one it names nothing.

    Raises:
        KeyNotFoundError: There is none.  A key string is not repeated.
        AmbiguousKeyError: Several ids begin so.
    """
    key: Key | None
    if given.startswith("key_"):
        key = queries.find_key(connection, given, lock=lock)
        if key is None and caller is not None and SHORTEST_BEGINNING <= len(given) < LENGTH_OF_ID:
            key = _beginning(connection, given, caller, lock=lock)
    elif given.startswith("sk-"):
        handle, parsed = keystring.public_handle(given), keystring.parse(given)
        secret = None
        if handle is not None:
            secret = queries.find_secret(connection, handle)
        elif parsed is not None:
            secret = queries.find_secret_by_lookup(connection, parsed.lookup)
        key = queries.find_key(connection, secret.key_id, lock=lock) if secret else None
    else:
        key = queries.find_key_by_alias(connection, given, lock=lock)
        if key is None and keystring.public_handle(f"{keystring.PREFIX}{given}"):
            secret = queries.find_secret(connection, given)
            key = queries.find_key(connection, secret.key_id, lock=lock) if secret else None
    if key is None:
        raise not_found(given)
    return key


def _beginning(connection: Connection, given: str, caller: Caller, *, lock: bool) -> Key | None:
    found = queries.keys_beginning(connection, given, visible_to(caller), limit=_SHOWN + 1)
    if len(found) > 1:
        names = [f"{key_id} ({alias})" if alias else key_id for key_id, alias in found]
        more = ", …" if len(found) > _SHOWN else ""
        raise AmbiguousKeyError(
            f"several keys begin with {given!r}: {', '.join(names[:_SHOWN])}{more}",
            hint="give more of the id",
        )
    if not found:
        return None
    return queries.find_key(connection, found[0][0], lock=lock)


def not_found(given: str) -> KeyNotFoundError:
    """Return the error for a key that is not there, or not for the caller to see."""
    shown = "with that key string" if keystring.looks_secret(given) else repr(given)
    return KeyNotFoundError(
        f"there is no key {shown}",
        hint="keyctl list shows them; deleted keys answer to their id",
        given=given,
    )


def may_see(caller: Caller, key: Key) -> bool:
    """Tell whether the caller may see *key*.  A missing id equals no other missing id."""
    if caller.role in OVERSEERS:
        return True
    if caller.key is not None and caller.key.id == key.id:
        return True
    if caller.user_id is not None and caller.user_id == key.user_id:
        return True
    if caller.service_team is not None and caller.service_team == key.team_id:
        return True
    if key.team_id is not None and caller.team_roles.get(key.team_id) == "admin":
        return True
    if key.team_id is not None and "/key/info" in caller.team_grants.get(key.team_id, ()):
        return True
    return caller.administers_organization(key.organization_id)


def visible_to(caller: Caller) -> "queries.Visible | None":
    """Return which keys are listed: what `may_see` shows; None where the caller sees everything.

    A plain member lists a team's keys only with the grant `/key/list`; with `/key/info` alone, single keys are shown.
    """
    if caller.role in OVERSEERS:
        return None
    teams = {team for team, role in caller.team_roles.items() if role == "admin"}
    teams |= {team for team, allowed in caller.team_grants.items() if "/key/list" in allowed}
    if caller.service_team is not None:
        teams.add(caller.service_team)
    return queries.Visible(
        key_id=None if caller.key is None else caller.key.id,
        user_id=caller.user_id,
        team_ids=teams,
        organization_ids={
            organization
            for organization, role in caller.organization_roles.items()
            if role == "org_admin"
        },
    )


def live_key(connection: Connection, given: str, caller: Caller, *, lock: bool = True) -> Key:
    """Return the key that *given* names, unless it is deleted or the caller may not see it.

    Raises:
        KeyNotFoundError: There is none.
    """
    return as_live(find(connection, given, lock=lock, caller=caller), given, caller)


def as_live(key: Key, given: str, caller: Caller) -> Key:
    """Return *key*, unless it is deleted or the caller may not see it.

    Raises:
        KeyNotFoundError: It is, or may not be seen.
    """
    if not may_see(caller, key):
        raise not_found(given)
    if key.deleted_at is not None:
        raise KeyNotFoundError(
            f"key {key.id} is deleted", hint="a deleted key stays deleted; generate another"
        )
    return key
