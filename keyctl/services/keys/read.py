"""Find keys by whatever a person knows of them, list them, and show what they may do."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, false, or_

from keyctl import fields, keystring, views
from keyctl.db import queries
from keyctl.db.queries import KeyFilter, directory
from keyctl.db.tables import keys as table
from keyctl.errors import (
    AmbiguousKeyError,
    KeyNotFoundError,
    UnreadableRowError,
    UsageError,
)
from keyctl.policy.facts import Caller
from keyctl.records import Key, Secret, User
from keyctl.services.callers import OVERSEERS, require_route
from keyctl.services.keys.effective import effective
from keyctl.services.workspace import Workspace

# A beginning of an id stands for it from so many characters on, `key_` among them.
SHORTEST_BEGINNING: Final = 8
LENGTH_OF_ID: Final = 24
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class KeyService:
    """Reads keys, as far as the caller may see them."""

    workspace: Workspace

    def info(self, given: str) -> dict[str, Any]:
        """Return the key that *given* names, with its secrets and what it may do in effect.

        A deleted one answers to its id.

        Raises:
            KeyNotFoundError: There is none that the caller may see.
        """
        require_route(self.workspace, "key_read", "key")
        database = self.workspace.database
        with database.read() as connection:
            key = find(connection, given, caller=self.workspace.caller)
            if not may_see(self.workspace.caller, key):
                raise not_found(given)
            secrets = queries.secrets_of(connection, key.id)
            now = database.now(connection)
            return {
                **views.info_view(key, secrets, now=now),
                "effective": effective(connection, key, secrets, now=now),
            }

    def issued_by(self, wanted: KeyFilter, given: str) -> KeyFilter:
        """Return *wanted* narrowed to keys that a key, or a user, took a secret of.

        Raises:
            KeyNotFoundError: *given* is neither a user nor a key that the caller may see.
        """
        with self.workspace.database.read() as connection:
            is_user = directory.known(connection, User, [given])
            if is_user and not given.startswith(("key_", "sk-")):
                return replace(wanted, issued_by=f"user:{given}")
            key = find(connection, given, caller=self.workspace.caller)
        if not may_see(self.workspace.caller, key):
            raise not_found(given)
        return replace(wanted, issued_with=key.id)

    def sink_of(self, given: str) -> str | None:
        """Return the name of the sink that the key *given* has, None for none.

        Raises:
            KeyNotFoundError: There is none that the caller may see.
        """
        with self.workspace.database.read() as connection:
            key = find(connection, given, caller=self.workspace.caller)
        if not may_see(self.workspace.caller, key):
            raise not_found(given)
        return key.sink

    def page(
        self, wanted: KeyFilter, *, after: str | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return one page of keys and the cursor of the next one, None at the end.

        A key that cannot be read is left out, and noted in the workspace.

        Raises:
            UsageError: *after* is no cursor.
        """
        require_route(self.workspace, "key_list", "key")
        database = self.workspace.database
        with database.read() as connection:
            now = database.now(connection)
            rows = queries.list_keys(
                connection,
                replace(wanted, visible=visible_to(self.workspace.caller)),
                now=now,
                after=None if after is None else _from_cursor(after),
                limit=limit + 1,
            )
            page = [item for item in rows[:limit] if isinstance(item, Key)]
            newest: dict[str, str] = {}
            for secret in queries.readable_secrets_of(connection, *(key.id for key in page)):
                if isinstance(secret, Secret):
                    newest.setdefault(secret.key_id, secret.id)
            shown = [views.key_view(key, now=now, public_id=newest.get(key.id)) for key in page]
        self.workspace.unreadable.extend(
            item for item in rows[:limit] if isinstance(item, UnreadableRowError)
        )
        return shown, _next_cursor(rows[:limit]) if len(rows) > limit else None

    def names(self, given: Sequence[str]) -> list[str]:
        """Return what people call these keys: the alias where there is one; what is not there is left as it is."""
        found = []
        with self.workspace.database.read() as connection:
            for item in given:
                try:
                    key = find(connection, item, caller=self.workspace.caller)
                except KeyNotFoundError:
                    found.append("-" if keystring.looks_secret(item) else item)
                else:
                    visible = may_see(self.workspace.caller, key)
                    found.append((key.key_alias or key.id) if visible else item)
        return found

    def every(self, wanted: KeyFilter, *, batch: int = 500) -> Iterator[dict[str, Any]]:
        """Yield all keys, page by page, so that a million of them need no memory."""
        after = None
        while True:
            page, after = self.page(wanted, after=after, limit=batch)
            yield from page
            if after is None:
                return


def find(
    connection: Connection,
    given: str,
    *,
    lock: bool = False,
    caller: Caller | None = None,
) -> Key:
    """Return the key that *given* names: an id or its beginning, an alias, ``sk-<id>``, a key string from stdin.

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
    """Tell whether the caller may see *key*.  Null never equals null."""
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


def visible_to(caller: Caller) -> ColumnElement[bool] | None:
    """Return which keys are listed, as SQL: what `may_see` shows; None where the caller sees everything.

    A plain member's grant to list is one of its own.
    """
    if caller.role in OVERSEERS:
        return None
    seen: list[ColumnElement[bool]] = [false()]
    if caller.key is not None:
        seen.append(table.c.id == caller.key.id)
    if caller.user_id is not None:
        seen.append(table.c.user_id == caller.user_id)
    if caller.service_team is not None:
        seen.append(table.c.team_id == caller.service_team)
    administered = [team for team, role in caller.team_roles.items() if role == "admin"]
    administered += [team for team, allowed in caller.team_grants.items() if "/key/list" in allowed]
    if administered:
        seen.append(table.c.team_id.in_(administered))
    overseen = [org for org, role in caller.organization_roles.items() if role == "org_admin"]
    if overseen:
        seen.append(
            and_(table.c.organization_id.is_not(None), table.c.organization_id.in_(overseen))
        )
    return or_(*seen)


def _next_cursor(page: Sequence[Key | UnreadableRowError]) -> str | None:
    """Return where the page after this one begins: behind its last key whose place is known."""
    for item in reversed(page):
        if isinstance(item, Key):
            return _cursor(item.created_at, item.id)
        created_at = item.known.get("created_at")
        if isinstance(created_at, datetime):
            return _cursor(created_at, item.object_id)
    return None


def _cursor(created_at: datetime, key_id: str) -> str:
    text = f"{created_at.isoformat()} {key_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _from_cursor(text: str) -> tuple[datetime, str]:
    try:
        padded = text + "=" * (-len(text) % 4)
        moment, _, key_id = base64.urlsafe_b64decode(padded.encode()).decode().partition(" ")
        return fields.parse_instant(moment), key_id
    except (ValueError, binascii.Error, UnicodeError):
        raise UsageError(
            "--after is not a cursor that keyctl list printed", hint="take it from `next`"
        ) from None
