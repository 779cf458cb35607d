"""Refuse a filter that names what does not exist: an empty answer would read as success."""

import shlex
from dataclasses import replace

from sqlalchemy import Connection

from keyctl.db.queries import KeyFilter, directory, listing
from keyctl.db.queries.spent_keys import keys_past_a_meter
from keyctl.errors import KeyNotFoundError, ModelNotFoundError, TagNotFoundError
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Principal, Team, User
from keyctl.services.keys.find import visible_to
from keyctl.services.workspace import Workspace

_OWNERS: tuple[tuple[str, type[Principal]], ...] = (
    ("team_id", Team),
    ("user_id", User),
    ("organization_id", Organization),
)


def checked(workspace: Workspace, wanted: KeyFilter) -> KeyFilter:
    """Return *wanted*, limited to what the caller may see, with what it asks for looked up.

    Raises:
        NotFoundError: It names what does not exist.
    """
    limited = replace(wanted, visible=visible_to(workspace.caller))
    with workspace.database.read() as connection:
        _require_known(connection, workspace.caller, limited)
        if limited.over_budget:
            past = keys_past_a_meter(connection, now=workspace.database.now(connection))
            limited = replace(limited, past_a_meter=past)
    return limited


def _require_known(connection: Connection, caller: Caller, wanted: KeyFilter) -> None:
    """Check every name in *wanted*; what has a `*` in it may fit nothing, except owners.

    Raises:
        NotFoundError: The first that is not there, or not for the caller to see.
    """
    for name, kind in _OWNERS:
        if getattr(wanted, name) is not None:
            _require_owner(connection, caller, wanted, name, kind)
    if wanted.key_alias is not None and "*" not in wanted.key_alias:
        _require_alias(connection, wanted)
    if wanted.tag is not None and not listing.has_keys(connection, wanted, "tag"):
        raise TagNotFoundError(
            f"no key has the tag {wanted.tag!r}",
            hint="keyctl list --columns key_id,tags shows them",
            given=wanted.tag,
        )
    if wanted.model is not None and wanted.model not in listing.models_in_use(connection):
        raise ModelNotFoundError(
            f"no key, team, user or organization names the model {wanted.model!r}",
            hint="keyctl list --columns key_id,models shows them",
            given=wanted.model,
        )


def _require_owner(
    connection: Connection, caller: Caller, wanted: KeyFilter, name: str, kind: type[Principal]
) -> None:
    from keyctl.services.owners import may_see, missing  # noqa: PLC0415  # most lists name no owner

    given = getattr(wanted, name)
    found = directory.matching(connection, kind, given)
    # Who administers a team may ask for its members' keys without seeing the members.
    if not any(may_see(caller, record) for record in found) and not (
        found and listing.has_keys(connection, wanted, name)
    ):
        raise missing(kind, given)


def _require_alias(connection: Connection, wanted: KeyFilter) -> None:
    if listing.has_keys(connection, wanted, "key_alias"):
        return
    if listing.has_keys(connection, wanted, "key_alias", deleted=True):
        if wanted.state == "deleted":
            return
        name = shlex.quote(wanted.key_alias or "")
        raise KeyNotFoundError(
            f"there is no key {wanted.key_alias!r} any more",
            hint=f"a deleted key had it: keyctl list --state deleted --alias {name}",
        )
    pattern = shlex.quote(f"*{wanted.key_alias}*")
    raise KeyNotFoundError(
        f"there is no key {wanted.key_alias!r}",
        hint=f"a part of an alias finds it: keyctl list --alias {pattern}",
        given=wanted.key_alias,
    )
