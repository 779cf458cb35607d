"""Keep the groups of models that the configuration names in the database, where gateways find them."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from keyctl.config.settings import Settings
from keyctl.db import queries
from keyctl.errors import AccessGroupNotFoundError

if TYPE_CHECKING:
    from keyctl.services.transaction import Unit


def require_known(connection: Connection, settings: Settings, names: Iterable[str]) -> None:
    """Refuse names of groups that neither the configuration nor an import has named.

    Raises:
        AccessGroupNotFoundError: There is no such group.
    """
    wanted = list(names)
    if not wanted:
        return
    known = {*settings.access_groups, *queries.find_groups(connection)}
    for name in wanted:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            raise AccessGroupNotFoundError(
                f"there is no access group {name!r}",
                hint=f"did you mean {' or '.join(near)}?"
                if near
                else "name it under [access_groups] in the configuration",
            )


def write_configured(unit: "Unit", settings: Settings) -> None:
    """Write those groups of the configuration that the database does not have like that."""
    if not settings.access_groups:
        return
    known = queries.find_groups(unit.connection)
    for name, models in sorted(settings.access_groups.items()):
        if known.get(name) != list(models):
            write_group(unit, name, models, known=known)


def write_group(unit: "Unit", name: str, models: list[str], *, known: dict[str, list[str]]) -> None:
    """Write a group, on record."""
    queries.write_group(unit.connection, name, models, known=known, now=unit.now)
    unit.record(
        "access_group_written",
        "access_group",
        name,
        before={"models": known[name]} if name in known else None,
        after={"models": list(models)},
    )
