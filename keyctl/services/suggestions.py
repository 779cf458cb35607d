"""Find the names that somebody meant who asked for one that is not there."""

from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import Connection

from keyctl import keystring
from keyctl.db.queries import audit, directory, listing, tiers
from keyctl.errors import (
    ActorNotFoundError,
    BudgetNotFoundError,
    IssuerNotFoundError,
    KeyNotFoundError,
    ModelNotFoundError,
    NotFoundError,
    OrganizationNotFoundError,
    TagNotFoundError,
    TeamNotFoundError,
    UserNotFoundError,
)
from keyctl.nearest import MOST_SEARCHED, meant
from keyctl.records import Organization, Team, User
from keyctl.services.callers import OVERSEERS
from keyctl.services.workspace import Workspace

_Names = Callable[[Connection], Iterable[str]]

_KNOWN: Final[dict[type[NotFoundError], _Names]] = {
    TeamNotFoundError: lambda found: directory.ids(found, Team, limit=MOST_SEARCHED),
    UserNotFoundError: lambda found: directory.ids(found, User, limit=MOST_SEARCHED),
    OrganizationNotFoundError: lambda found: directory.ids(
        found, Organization, limit=MOST_SEARCHED
    ),
    KeyNotFoundError: lambda found: listing.aliases(found, limit=MOST_SEARCHED),
    IssuerNotFoundError: lambda found: [
        *directory.ids(found, User, limit=MOST_SEARCHED),
        *listing.aliases(found, limit=MOST_SEARCHED),
    ],
    ActorNotFoundError: lambda found: audit.actors(found, limit=MOST_SEARCHED),
    BudgetNotFoundError: tiers.tier_ids,
    ModelNotFoundError: listing.models_in_use,
    TagNotFoundError: lambda found: listing.tags_in_use(found, limit=MOST_SEARCHED),
}


def add_nearest(workspace: Workspace, error: NotFoundError) -> None:
    """Put the nearest names before the hint of *error*, for who may see all of them."""
    names, given = _KNOWN.get(type(error)), error.given
    if names is None or given is None or workspace.caller.role not in OVERSEERS:
        return
    if keystring.looks_secret(given):
        return
    with workspace.database.read() as connection:
        error.hint = meant(given, list(names(connection)), otherwise=error.hint or "")


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
