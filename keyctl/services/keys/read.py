"""Find keys by whatever a person knows of them, list them, and show what they may do."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from keyctl import keystring, money, views
from keyctl.db import queries
from keyctl.db.queries import KeyFilter, directory
from keyctl.errors import (
    IssuerNotFoundError,
    KeyNotFoundError,
    UnreadableRowError,
    UsageError,
)
from keyctl.moments import parse_instant
from keyctl.records import Key, Secret, User
from keyctl.services.keys.find import find, may_see, not_found, visible_to
from keyctl.services.workspace import Workspace


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
        from keyctl.services.keys.effective import effective  # noqa: PLC0415  # no list needs it

        _require_route(self.workspace, "key_read", "key")
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
            try:
                key = find(connection, given, caller=self.workspace.caller)
            except KeyNotFoundError:
                raise _no_issuer(given) from None
        if not may_see(self.workspace.caller, key):
            raise _no_issuer(given)
        return replace(wanted, issued_with=key.id)

    def working_issued(self, key_ids: Sequence[str]) -> dict[str, int]:
        """Return for each of these keys how many others were made with it and still work; 0 is left out.

        Only keys that the caller may see count.
        """
        with self.workspace.database.read() as connection:
            now = self.workspace.database.now(connection)
            visible = visible_to(self.workspace.caller)
            return queries.count_working_issued(connection, key_ids, visible, now=now)

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
        _require_route(self.workspace, "key_list", "key")
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

    def some_fields(
        self, wanted: KeyFilter, names: Sequence[str], *, after: str | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return what `page` does with these fields of each key and no others, for very many keys.

        A key is left out only where one of these fields cannot be read.

        Raises:
            UsageError: *after* is no cursor.
        """
        _require_route(self.workspace, "key_list", "key")
        limited = replace(wanted, visible=visible_to(self.workspace.caller))
        place = None if after is None else _from_cursor(after)
        columns = [name for name in names if name not in ("key_id", "state")]
        with self.workspace.database.read() as connection:
            now = self.workspace.database.now(connection)
            rows = queries.list_fields(
                connection, limited, columns, now=now, after=place, limit=limit + 1
            )
        if rows is None:  # which row it is, the whole page tells
            return self.page(wanted, after=after, limit=limit)
        amounts = [name for name in views.MONEY if name in columns]
        for row in rows:
            row["key_id"] = row["id"]
            for name in amounts:
                if row[name]:
                    row[name] = money.dollars(row[name])
        last = rows[limit - 1] if len(rows) > limit else None
        return rows[:limit], None if last is None else _cursor(last["created_at"], last["id"])

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


def _no_issuer(given: str) -> IssuerNotFoundError:
    error = not_found(given)
    return IssuerNotFoundError(
        error.message.replace("no key ", "no key or user "),
        hint="keyctl list and keyctl user list show them",
        given=error.given,
    )


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
        return parse_instant(moment), key_id
    except (ValueError, binascii.Error, UnicodeError):
        raise UsageError(
            "--after is not a cursor that keyctl list printed", hint="take it from `next`"
        ) from None


def _require_route(workspace: Workspace, action: str, object_type: str) -> None:
    """Let the caller read if their key may call the route of *action*.

    The local operator has no key: a list does not import the rules for it.

    Raises:
        PolicyDeniedError: It may not; that goes on record where that is possible.
    """
    if workspace.caller.key is None:
        return
    from keyctl.services.callers import require_route  # noqa: PLC0415

    require_route(workspace, action, object_type)
