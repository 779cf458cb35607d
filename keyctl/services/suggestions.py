"""Find the names that somebody meant who asked for one that is not there."""

from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import Connection

from keyctl import keystring
from keyctl.db import queries
from keyctl.db.queries import audit, directory, listing, tiers
from keyctl.errors import (
    ActorNotFoundError,
    BudgetNotFoundError,
    FleetNotFoundError,
    IssuerNotFoundError,
    KeyNotFoundError,
    ModelNotFoundError,
    NotFoundError,
    OrganizationNotFoundError,
    SpenderNotFoundError,
    TagNotFoundError,
    TeamNotFoundError,
    UserNotFoundError,
)
from keyctl.nearest import MOST_SEARCHED, meant
from keyctl.records import Key, Organization, Team, User
from keyctl.services.identity import OVERSEERS
from keyctl.services.keys.find import may_see
from keyctl.services.workspace import Workspace

_Names = Callable[[Connection], Iterable[str]]

_KNOWN: Final[dict[type[NotFoundError], _Names]] = {
    TeamNotFoundError: lambda found: directory.ids(found, Team, limit=MOST_SEARCHED),
    UserNotFoundError: lambda found: directory.ids(found, User, limit=MOST_SEARCHED),
    OrganizationNotFoundError: lambda found: directory.ids(
        found, Organization, limit=MOST_SEARCHED
    ),
    KeyNotFoundError: lambda found: listing.aliases(found, limit=MOST_SEARCHED),
    SpenderNotFoundError: lambda found: [
        *listing.aliases(found, limit=MOST_SEARCHED),
        *(
            name
            for kind in (Team, User, Organization)
            for name in directory.ids(found, kind, limit=MOST_SEARCHED)
        ),
    ],
    IssuerNotFoundError: lambda found: [
        *directory.ids(found, User, limit=MOST_SEARCHED),
        *listing.aliases(found, limit=MOST_SEARCHED),
    ],
    ActorNotFoundError: lambda found: audit.actors(found, limit=MOST_SEARCHED),
    BudgetNotFoundError: tiers.tier_ids,
    FleetNotFoundError: directory.fleets,
    ModelNotFoundError: listing.models_in_use,
    TagNotFoundError: lambda found: listing.tags_in_use(found, limit=MOST_SEARCHED),
}
# An alias that a deleted key had is told as that.
_OF_KEYS: Final = (KeyNotFoundError, SpenderNotFoundError)


def add_nearest(workspace: Workspace, error: NotFoundError) -> None:
    """Put the nearest names before the hint of *error*, for who may see all of them.

    Of an alias that a deleted key had, say so instead, to who may see that key.
    """
    names, given = _KNOWN.get(type(error)), error.given
    if names is None or given is None or keystring.looks_secret(given):
        return
    with workspace.database.read() as connection:
        if type(error) in _OF_KEYS and (key := _deleted(connection, workspace, given)):
            error.message = (
                f"key {given!r} was deleted at {key.deleted_at:%Y-%m-%dT%H:%M:%SZ}: {key.id}"
            )
            error.hint = f"a deleted key answers to its id: keyctl info {key.id}"
            return
        if workspace.caller.role not in OVERSEERS:
            return
        error.hint = meant(given, list(names(connection)), otherwise=error.hint or "")


def _deleted(connection: Connection, workspace: Workspace, alias: str) -> Key | None:
    """Return the deleted key that had this alias last, unless the caller may not see it."""
    # Here, once for a command that failed: no index leads to the aliases of deleted keys.
    key = queries.find_last_deleted(connection, alias)
    return key if key is not None and may_see(workspace.caller, key) else None


def owners_named(workspace: Workspace, word: str) -> list[tuple[str, str]]:
    """Return which option of a list *word* could be the value of, with the value."""
    if workspace.caller.role not in OVERSEERS:
        return []
    with workspace.database.read() as connection:
        found = [
            (flag, word)
            for flag, kind in (("--team", Team), ("--user", User), ("--org", Organization))
            if directory.known(connection, kind, [word])
        ]
        if listing.has_keys(connection, listing.KeyFilter(key_alias=word), "key_alias"):
            found.append(("--alias", word))
    return found
