"""Change a key's settings, through the one policy path, judged as the key would be."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import keystring, views
from keyctl.db import queries
from keyctl.db.failures import broken_constraint
from keyctl.errors import (
    AliasTakenError,
    SecretNotFoundError,
)
from keyctl.lifecycle import authenticates
from keyctl.policy import engine, issuing
from keyctl.policy.facts import Caller
from keyctl.records import Key, Secret
from keyctl.services import denials
from keyctl.services.authorize.owners import around
from keyctl.services.authorize.verdict import Judgement
from keyctl.services.callers import check_route
from keyctl.services.issue.takeover import require_alias
from keyctl.services.keys.find import live_key
from keyctl.services.keys.judge import judge_patch, read_patch
from keyctl.services.limit_warnings import warnings_about_limits, warnings_about_spent
from keyctl.services.periods import begin_periods, time_anew
from keyctl.services.transaction import Unit, anchor, row_of, writing
from keyctl.services.workspace import Workspace


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
                seen = live_key(unit.connection, given, unit.caller, lock=False)
                attempt.object_id = seen.id
                before = self._locked(unit, seen, patch)
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
                require_alias(unit.connection, verdict.key, before, caller=unit.caller)
                ended = write_change(unit, before, verdict, reason=reason)
                self.workspace.warnings.extend(ended)
                self.workspace.warnings.extend(_warnings(unit, verdict.key, patch))
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

    def _locked(self, unit: Unit, seen: Key, patch: Mapping[str, Any]) -> Key:
        """Return a key as it is now, locked behind its owners, those that *patch* names included."""
        read_patch(seen, patch)  # what is malformed is not looked up
        around(unit.connection, [seen], patch)
        key = live_key(unit.connection, seen.id, unit.caller)
        rollover = self.workspace.settings.budget_rollover
        return begin_periods(unit, [key], rollover=rollover)[0]

    def dry_run(
        self, given: str, patch: Mapping[str, Any], *, overrides: tuple[str, ...] = ()
    ) -> Judgement:
        """Return the whole verdict on the change and write nothing."""
        engine.check_overrides(overrides)
        database = self.workspace.database
        with database.read() as connection:
            caller = self.workspace.caller
            before = live_key(connection, given, caller, lock=False)
            now = database.now(connection)
            verdict = judge_patch(
                connection, self.workspace, before, patch, overrides=overrides, now=now, lock=False
            )
            if not verdict.violations:
                require_alias(connection, verdict.key, before, caller=caller)
            return verdict

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
        raised = {} if head is None else {"administers": {"before": False, "after": True}}
        return {
            **views.info_view(key, secrets, now=unit.now),
            "changes": raised,
            "filled": [],
            "audit": anchor(head) if head else None,
        }


def write_change(unit: Unit, before: Key, verdict: Judgement, *, reason: str | None) -> list[str]:
    """Write the changed key and its audit event, and return warnings; its secrets end when it does."""
    values, warnings = note_change(unit, before, verdict, reason=reason)
    queries.update_key(unit.connection, before.id, **values)
    return warnings


def note_change(
    unit: Unit, before: Key, verdict: Judgement, *, reason: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Record the change of a key, let its secrets end when it does; return the columns to write, and warnings."""
    after = replace(verdict.key, updated_at=unit.now, updated_by=unit.caller.actor)
    after = with_blocker(unit.caller, before, after)
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
    time_anew(unit, before, after)
    warnings = [
        f"secret {secret_id} of key {before.id} administers no more; an admin whose key does not end"
        f" gives that back: keyctl update {before.id} --administers {secret_id}"
        for secret_id in end_administration(unit, before, after)
    ]
    changed = {
        name: value for name, value in after.columns().items() if value != getattr(before, name)
    }
    return {**changed, "updated_at": unit.now}, warnings


def _warnings(unit: Unit, key: Key, patch: Mapping[str, Any]) -> list[str]:
    """Return what a person should know about the limits that *patch* has given a key."""
    spent = warnings_about_spent(unit.connection, key, patch.keys(), now=unit.now)
    return [*warnings_about_limits(key, patch.keys()), *spent]


def with_blocker(caller: Caller, before: Key, after: Key) -> Key:
    """Return *after* with who blocked it: an admin, if that changed now and the caller is one."""
    if after.blocked == before.blocked:
        return after
    return replace(after, blocked_by_admin=after.blocked and caller.is_admin)


def end_administration(unit: Unit, before: Key, after: Key) -> list[str]:
    """End the right of a key's secrets to act as a caller, where the change ends it; return their ids."""
    ended: list[str] = []
    if not issuing.change_ends_administration(unit.caller, before, after):
        return ended
    for secret in queries.secrets_of(unit.connection, before.id):
        if secret.administers and secret.state != "revoked":
            queries.update_secret(unit.connection, secret.id, administers=False)
            _record_administers(unit, before, secret, administers=False)
            ended.append(secret.id)
    return ended


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
