"""Judge a change of a key on the state as it would be."""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyctl.config.settings import Settings
from keyctl.db.queries import directory
from keyctl.errors import (
    Violation,
)
from keyctl.fields import validate
from keyctl.policy import engine, models, resolve
from keyctl.policy.facts import Facts
from keyctl.records import Key
from keyctl.requests import UpdateRequest
from keyctl.services import access_groups
from keyctl.services.authorize import totals
from keyctl.services.authorize.verdict import (
    Adding,
    Judgement,
    Lookup,
    Surroundings,
    explaining_lost_owner,
    fill_in,
    load_owners,
    owners_of,
    roles,
)
from keyctl.services.delivery.sinks import leads_elsewhere
from keyctl.services.keys.changed import changed_key, merge
from keyctl.services.keys.lists import ListEdit, resolved
from keyctl.services.tiers import require_tier
from keyctl.services.workspace import Workspace


def judge_patch(
    connection: Connection,
    workspace: Workspace,
    before: Key,
    patch: Mapping[str, Any],
    **options: Any,
) -> Judgement:
    """Return the verdict on a JSON Merge Patch of a key; *options* are those of `judge_change`.

    Raises:
        MalformedRequestError, NotFoundError: Before any rule can be asked.
    """
    values, cleared = read_patch(before, patch)
    return judge_change(connection, workspace, before, values, cleared, **options)


def read_patch(before: Key, patch: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the columns that a patch sets on a key, and those that it empties.

    Raises:
        MalformedRequestError, NotFoundError: It is none, or takes away what is not there.
    """
    patch = resolved(before, patch)
    body = merge(before, patch)
    request = validate(UpdateRequest, body, what="the request", schema="update-request")
    cleared = frozenset(name for name, value in patch.items() if value is None)
    return resolve.given_values(request), cleared


def is_alike(patch: Mapping[str, Any]) -> bool:
    """Tell whether a patch sets the same on every key: nothing of it is merged into what is stored."""
    return not any(isinstance(value, (dict, ListEdit)) for value in patch.values())


def judge_change(
    connection: Connection,
    workspace: Workspace,
    before: Key,
    values: Mapping[str, Any],
    cleared: frozenset[str],
    *,
    overrides: Sequence[str] = (),
    lock: bool = True,
    lookup: Lookup = directory,
    adding: Adding = totals,
    coming: Container[str] = (),
    now: datetime,
) -> Judgement:
    """Return the verdict on setting the columns in *values* and emptying those in *cleared*.

    Raises:
        MalformedRequestError, NotFoundError: Before any rule can be asked.
    """
    settings, caller = workspace.settings, workspace.caller
    changed = changed_key(before, values, cleared, now=now)
    access_groups.require_known(connection, settings, values.get("access_group_ids") or ())
    named = values.keys() | cleared
    if {"allowed_routes", "key_type"} & named:
        changed = resolve.with_default_routes(changed, settings.default_routes)
    with explaining_lost_owner(before):
        changed, around = _placed(connection, settings, changed, named, lock=lock, lookup=lookup)
    if changed.budget_id not in (None, before.budget_id) and changed.budget_id not in coming:
        require_tier(connection, changed.budget_id, lock=lock)
    changed = _overriding(changed, models.lasting_overrides(before, changed))
    moved = _place(changed) != _place(before)
    facts = Facts(
        operation="update",
        key=changed,
        before=before,
        given=frozenset(values) if not moved else _named(changed),
        cleared=cleared,
        moved=moved,
        led_away=leads_elsewhere(settings, before, changed),
        caller=caller,
        team=around.team,
        organization=around.organization,
        user=around.user,
        layers=around.layers,
        now=now,
        **roles(connection, around, lookup=lookup),
    )
    facts, filled = fill_in(facts)
    facts = adding.read(connection, facts)
    violations = engine.evaluate(facts)
    if moved and not caller.is_admin:
        violations += _leaving(connection, settings, facts, before)
    standing, stepped_over = engine.overridden(facts, violations, overrides)
    kept = [*facts.key.overrides, *models.kept_overrides(facts, stepped_over)]
    return Judgement(
        key=_overriding(facts.key, kept),
        filled=filled,
        violations=standing,
        stepped_over=stepped_over,
    )


def _overriding(key: Key, overrides: list[dict[str, Any]]) -> Key:
    # Most have none, and a copy of a key costs as much as half of its rules.
    return key if overrides == key.overrides else replace(key, overrides=overrides)


def _placed(
    connection: Connection,
    settings: Settings,
    changed: Key,
    named: Collection[str],
    *,
    lock: bool,
    lookup: Lookup,
) -> tuple[Key, Surroundings]:
    """Return the key in the organization of its new team, unless the change names one, and its owners."""
    owners = owners_of(changed)
    follows = "team_id" in named and "organization_id" not in named
    if follows:
        owners["organization_id"] = None
    around = load_owners(connection, settings, owners, lock=lock, lookup=lookup)
    if around.organization is not None:
        if changed.organization_id != around.organization.id:
            changed = replace(changed, organization_id=around.organization.id)
    elif follows:
        changed = replace(changed, organization_id=None)
    return changed, around


def _place(key: Key) -> tuple[str | None, str | None]:
    """Return the team and organization that a key was put into; one in a team follows that."""
    return key.team_id, None if key.team_id else key.organization_id


def _leaving(
    connection: Connection, settings: Settings, facts: Facts, before: Key
) -> list[Violation]:
    """Return what speaks against the caller taking the key out of where it is."""
    with explaining_lost_owner(before):
        around = load_owners(connection, settings, owners_of(before), lock=False)
    left = replace(
        facts,
        key=before,
        given=frozenset(),
        cleared=frozenset(),
        moved=False,
        team=around.team,
        organization=around.organization,
        layers=around.layers,
    )
    return engine.evaluate_caller(left)


def _named(key: Key) -> frozenset[str]:
    """Return the fields that a request for this very key would have named."""
    named = {name for name, value in key.columns().items() if value not in (None, [], {}, False)}
    return frozenset(named | key.gateway.keys())
