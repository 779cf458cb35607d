"""Change a key's settings, through the one policy path, judged as the key would be."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import durations, keystring, views
from keyctl.config.settings import Settings
from keyctl.db import queries
from keyctl.db.failures import broken_constraint
from keyctl.db.queries import directory
from keyctl.errors import (
    AliasTakenError,
    KeyNotFoundError,
    MalformedRequestError,
    SecretNotFoundError,
    Violation,
)
from keyctl.fields import validate
from keyctl.lifecycle import authenticates
from keyctl.policy import engine, issuing, models, resolve
from keyctl.policy.facts import Caller, Facts
from keyctl.records import Key, Secret
from keyctl.requests import UpdateRequest
from keyctl.services import access_groups, denials
from keyctl.services.authorize import totals
from keyctl.services.authorize.verdict import Adding, Lookup, Verdict, fill_in, load_owners, roles
from keyctl.services.callers import check_route
from keyctl.services.keys.lists import resolved
from keyctl.services.keys.read import find, may_see, not_found
from keyctl.services.limit_warnings import warnings_about_limits
from keyctl.services.tiers import require_tier
from keyctl.services.transaction import Unit, anchor, row_of, writing
from keyctl.services.workspace import Workspace

# What an own column becomes when it is cleared, where that is not null.
_EMPTY: Final[dict[str, Any]] = {
    "models": [],
    "budget_limits": [],
    "model_max_budget": {},
    "budget_fallbacks": {},
    "model_tpm_limit": {},
    "model_rpm_limit": {},
    "allowed_routes": [],
    "permissions": {},
    "guardrails": [],
    "tags": [],
    "metadata": {},
    "blocked": False,
    "auto_rotate": False,
    "send_invite_email": False,
    "spend": 0,
    "key_type": "default",
}
_COLUMNS: Final = frozenset(item.name for item in fields(Key))
# Objects that a patch changes name by name; everything else it replaces.
_MERGED: Final = frozenset({"metadata", "permissions", "model_tpm_limit", "model_rpm_limit"})


@dataclass(frozen=True, slots=True)
class ChangeService:
    """Updates keys.  `update` is one transaction."""

    workspace: Workspace

    def update(
        self,
        given: str,
        patch: Mapping[str, Any],
        *,
        overrides: tuple[str, ...] = (),
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Change what *patch* names, null clearing a field, and return the key's view.

        A JSON Merge Patch (RFC 7396) on the fields of a request; a `ListEdit` as a value adds to
        a list and takes from it.  `changes` of the view has each field that differs.

        Raises:
            MalformedRequestError: The patch is not well formed.
            KeyNotFoundError: There is no live key *given* that the caller may see.
            PolicyDeniedError: The key as it would be breaks rules.
            AliasTakenError: Another live key has the alias.
        """
        engine.check_overrides(overrides)
        try:
            with (
                denials.recorded(self.workspace, "key_update_denied", "key", given) as attempt,
                writing(self.workspace) as unit,
            ):
                before = live_key(unit.connection, given, unit.caller)
                attempt.object_id = before.id
                verdict = judge_patch(
                    unit.connection,
                    replace(self.workspace, caller=unit.caller),
                    before,
                    patch,
                    overrides=overrides,
                    now=unit.now,
                )
                if verdict.violations:
                    raise engine.refuse(list(verdict.violations))
                write_change(unit, before, verdict, reason=reason)
                self.workspace.warnings.extend(warnings_about_limits(verdict.key, patch.keys()))
                secrets = queries.secrets_of(unit.connection, before.id)
        except ConstraintError as error:
            if broken_constraint(error) == "uq_keys_key_alias":
                raise AliasTakenError(
                    f"alias {patch['key_alias']!r} is taken by a live key",
                    hint="choose another alias",
                ) from error
            raise
        head = unit.heads[-1]
        return {
            **views.info_view(verdict.key, secrets, now=unit.now),
            "changes": views.changes(before, verdict.key, now=unit.now),
            "filled": [
                {"field": item.field, "value": item.value, "source": item.source}
                for item in verdict.filled
            ],
            "audit": anchor(head),
        }

    def dry_run(
        self, given: str, patch: Mapping[str, Any], *, overrides: tuple[str, ...] = ()
    ) -> Verdict:
        """Return the whole verdict on the change and write nothing."""
        engine.check_overrides(overrides)
        database = self.workspace.database
        with database.read() as connection:
            caller = self.workspace.caller
            before = live_key(connection, given, caller, lock=False)
            now = database.now(connection)
            return judge_patch(
                connection, self.workspace, before, patch, overrides=overrides, now=now, lock=False
            )

    def let_administer(self, given: str, secret_id: str) -> dict[str, Any]:
        """Say that a secret of a key may be used as a caller, and return the key's view; for admins.

        Raises:
            KeyNotFoundError, SecretNotFoundError: There is no such key, or no such secret of it.
            PolicyDeniedError: The caller is no admin, or their own key ends sooner.
        """
        with (
            denials.recorded(self.workspace, "key_update_denied", "key", given) as attempt,
            writing(self.workspace) as unit,
        ):
            check_route(unit.caller, "key_update")
            key = live_key(unit.connection, given, unit.caller)
            attempt.object_id = key.id
            secret = _secret_of(unit, key, secret_id)
            issuing.check_may_raise(unit.caller, secret.not_after)
            if not secret.administers:
                queries.update_secret(
                    unit.connection, secret.id, administers=True, **issuing.issuer_of(unit.caller)
                )
                _record_administers(unit, key, secret, administers=True)
            secrets = queries.secrets_of(unit.connection, key.id)
        head = unit.heads[-1] if unit.heads else None
        view = views.info_view(key, secrets, now=unit.now)
        return {**view, "filled": [], "audit": anchor(head) if head else None}


def judge_patch(
    connection: Connection,
    workspace: Workspace,
    before: Key,
    patch: Mapping[str, Any],
    **options: Any,
) -> Verdict:
    """Return the verdict on a JSON Merge Patch of a key; *options* are those of `judge_change`.

    Raises:
        MalformedRequestError, NotFoundError: Before any rule can be asked.
    """
    patch = resolved(before, patch)
    merged = _merge(before, patch)
    request = validate(UpdateRequest, merged, what="the request", schema="update-request")
    values = resolve.given_values(request)
    cleared = frozenset(name for name, value in patch.items() if value is None)
    return judge_change(connection, workspace, before, values, cleared, **options)


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
) -> Verdict:
    """Return the verdict on setting the columns in *values* and emptying those in *cleared*.

    Raises:
        MalformedRequestError, NotFoundError: Before any rule can be asked.
    """
    settings, caller = workspace.settings, workspace.caller
    changed = _changed(before, values, cleared, now=now)
    access_groups.require_known(connection, settings, values.get("access_group_ids") or ())
    if {"allowed_routes", "key_type"} & {*values, *cleared}:
        changed = resolve.with_default_routes(changed, settings.default_routes)
    owners = {
        "team_id": changed.team_id,
        "user_id": changed.user_id,
        "organization_id": changed.organization_id,
    }
    named = values.keys() | cleared
    follows = "team_id" in named and "organization_id" not in named
    if follows:
        owners["organization_id"] = None  # it comes from the new team
    around = load_owners(connection, settings, owners, lock=lock, lookup=lookup)
    if around.organization is not None:
        changed = replace(changed, organization_id=around.organization.id)
    elif follows:
        changed = replace(changed, organization_id=None)
    if changed.budget_id not in (None, before.budget_id) and changed.budget_id not in coming:
        require_tier(connection, changed.budget_id, lock=lock)
    changed = replace(changed, overrides=models.lasting_overrides(before, changed))
    moved = changed.team_id != before.team_id
    facts = Facts(
        operation="update",
        key=changed,
        before=before,
        given=frozenset(values) if not moved else _named(changed),
        cleared=cleared,
        moved=moved,
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
    return Verdict(
        key=replace(facts.key, overrides=kept),
        filled=filled,
        violations=standing,
        stepped_over=stepped_over,
    )


def _leaving(
    connection: Connection, settings: Settings, facts: Facts, before: Key
) -> list[Violation]:
    """Return what speaks against the caller taking the key out of the team it is in."""
    owners = {
        "team_id": before.team_id,
        "user_id": before.user_id,
        "organization_id": before.organization_id,
    }
    around = load_owners(connection, settings, owners, lock=False)
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


def empty_value(name: str) -> Any:
    """Return what the column *name* is when it is cleared."""
    return _EMPTY.get(name)


def emptied(key: Key, names: frozenset[str], *, now: datetime) -> Key:
    """Return *key* with these fields emptied, and what follows from that."""
    return _changed(key, {}, names, now=now)


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


def write_change(unit: Unit, before: Key, verdict: Verdict, *, reason: str | None) -> None:
    """Write the changed key and its audit event; its secrets end when it does."""
    after = replace(verdict.key, updated_at=unit.now, updated_by=unit.caller.actor)
    after = with_blocker(unit.caller, before, after)
    changed = {
        name: value for name, value in after.columns().items() if value != getattr(before, name)
    }
    queries.update_key(unit.connection, before.id, **{**changed, "updated_at": unit.now})
    if after.expires != before.expires:
        queries.bound_secrets(unit.connection, after)
    for violation in verdict.stepped_over:
        unit.record(
            "rule_overridden",
            "key",
            before.id,
            after={"rule": violation.rule, "field": violation.field},
            reason=reason,
        )
    unit.record("key_updated", "key", before.id, before=row_of(before), after=row_of(after))
    end_administration(unit, before, after)


def with_blocker(caller: Caller, before: Key, after: Key) -> Key:
    """Return *after* with who blocked it: an admin, if that changed now and the caller is one."""
    if after.blocked == before.blocked:
        return after
    return replace(after, blocked_by_admin=after.blocked and caller.is_admin)


def end_administration(unit: Unit, before: Key, after: Key) -> None:
    """End the right of a key's secrets to act as a caller, where the change from *before* ends it."""
    if not issuing.change_ends_administration(unit.caller, before, after):
        return
    for secret in queries.secrets_of(unit.connection, before.id):
        if secret.administers and secret.state != "revoked":
            queries.update_secret(unit.connection, secret.id, administers=False)
            _record_administers(unit, before, secret, administers=False)


def _record_administers(unit: Unit, key: Key, secret: Secret, *, administers: bool) -> None:
    unit.record(
        "secret_administers_changed",
        "key",
        key.id,
        before={"secret_id": secret.id, "administers": secret.administers},
        after={"secret_id": secret.id, "administers": administers},
    )


def _secret_of(unit: Unit, key: Key, given: str) -> Secret:
    secret = queries.find_secret(unit.connection, keystring.public_handle(given) or given)
    if secret is None or secret.key_id != key.id or not authenticates(secret, now=unit.now):
        raise SecretNotFoundError(
            f"key {key.id} has no secret {given!r} that authenticates",
            hint=f"keyctl info {key.id} lists them",
        )
    return secret


def _merge(before: Key, patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that *patch* gives a value, objects merged into what is stored."""
    merged: dict[str, Any] = {}
    for name, value in patch.items():
        stored = getattr(before, name, None) if name in _MERGED else None
        merged[name] = (
            _merge_patch(stored, value)
            if isinstance(stored, dict) and isinstance(value, dict)
            else value
        )
    return merged


def _merge_patch(stored: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return *stored* with *patch* applied, after RFC 7396, section 2."""
    result = dict(stored)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            inner = result.get(name)
            result[name] = _merge_patch(inner if isinstance(inner, dict) else {}, value)
        else:
            result[name] = value
    return result


def _changed(
    before: Key, values: Mapping[str, Any], cleared: frozenset[str], *, now: datetime
) -> Key:
    """Return *before* with *values* set and *cleared* emptied, and what follows from them."""
    unknown = cleared - UpdateRequest.model_fields.keys()
    if unknown:
        name = min(unknown)
        raise MalformedRequestError(
            f"the request is malformed: {name!r} is not a field that can be cleared",
            hint="keyctl schema update-request prints what is accepted",
            violations=[
                Violation(rule="request.unknown_field", field=name, message="is not a known field")
            ],
        )
    columns = {name: value for name, value in values.items() if name in _COLUMNS}
    columns.update({name: _EMPTY.get(name) for name in cleared if name in _COLUMNS})
    gateway = {name: value for name, value in before.gateway.items() if name not in cleared}
    gateway.update({name: values[name] for name in resolve.GATEWAY_FIELDS if name in values})
    columns["gateway"] = gateway
    if "key_type" in values:
        columns.update(resolve.routes_of(values))
    columns.update(_expiry(values, cleared, now=now))
    key = replace(before, **columns)
    if "key_alias" in values:
        key = replace(key, key_alias=values["key_alias"] or None)
    if "budget_duration" in values or "budget_duration" in cleared:
        period = key.budget_duration
        key = replace(
            key,
            budget_anchor_at=now if period else None,
            budget_reset_at=durations.next_reset(period, anchor=now, now=now) if period else None,
        )
    return _rotation(key, before, now=now)


def _expiry(values: Mapping[str, Any], cleared: frozenset[str], *, now: datetime) -> dict[str, Any]:
    if "duration" in values:
        expires = durations.parse_duration(values["duration"]).after(now)
        return {"duration": values["duration"], "expires": expires}
    if "expires" in values:
        return {"duration": None, "expires": resolve.future(values["expires"], now)}
    if cleared & {"duration", "expires"}:
        return {"duration": None, "expires": None}
    return {}


def _rotation(key: Key, before: Key, *, now: datetime) -> Key:
    if not key.auto_rotate and key.rotation_interval is not None and before.auto_rotate:
        key = replace(key, rotation_interval=None)  # switched off: the interval goes with it
    if key.auto_rotate != (key.rotation_interval is not None):
        raise MalformedRequestError(
            "the request is malformed: auto_rotate and rotation_interval are only set together",
            hint="give both, or clear both",
            violations=[
                Violation(
                    rule="request.value",
                    field="rotation_interval",
                    message="auto_rotate and rotation_interval are only set together",
                )
            ],
        )
    if key.rotation_interval == before.rotation_interval:
        return key
    due = None
    if key.rotation_interval is not None:
        due = durations.parse_duration(key.rotation_interval).after(now)
    return replace(key, key_rotation_at=due)


def _named(key: Key) -> frozenset[str]:
    """Return the fields that a request for this very key would have named."""
    named = {name for name, value in key.columns().items() if value not in (None, [], {}, False)}
    return frozenset(named | key.gateway.keys())
