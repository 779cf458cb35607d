"""Plan keys: find the stored key of each description, and judge what is made and changed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from keyctl.db import queries
from keyctl.errors import (
    BusyError,
    KeyctlError,
    MalformedRequestError,
    NotFoundError,
    NotManagedError,
)
from keyctl.fleetfile.described import Fleet
from keyctl.fleetfile.entries import KeyTemplate
from keyctl.policy import engine
from keyctl.policy.facts import Caller
from keyctl.portions import portions
from keyctl.records import Key, Team
from keyctl.services.authorize.new_keys import NewKey, NewKeys
from keyctl.services.authorize.totals import RunningSums
from keyctl.services.authorize.verdict import facts_of
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import target_of
from keyctl.services.fleet.compare import (
    KeyDifference,
    described_fields,
    difference,
    has_alias_in_place,
    shown_fields,
)
from keyctl.services.fleet.match import Matching, is_wanted
from keyctl.services.fleet.model import (
    KeyChange,
    NewKeyChange,
    Outdated,
    Plan,
    Problem,
    Warned,
    stamp_of,
)
from keyctl.services.fleet.world import World
from keyctl.services.issue.order import new_key_id
from keyctl.services.keys.judge import judge_change
from keyctl.services.workspace import Workspace

_PORTION: Final = 500
_KEPT: Final = 1000
_TEMPLATES: Final = 100
_SECRET: Final = "secret"  # noqa: S105  # the name of a field in a plan


@dataclass(slots=True, kw_only=True)
class Matched:
    """Stored keys and their descriptions, what changes by its id and its name.

    `left` is the end of each of the fleet's own that no file describes.
    """

    changed: list[tuple[str, str, KeyTemplate]] = field(default_factory=list)
    made: list[tuple[str, KeyTemplate]] = field(default_factory=list)
    left: list[KeyChange] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class KeyPlanner:
    """Compares keys as files describe them with what is stored, on owners as they will be.

    With *standing*, what does not change is judged too, for warnings only.
    """

    connection: Connection
    workspace: Workspace
    caller: Caller
    world: World
    plan: Plan
    run: Run
    now: datetime
    lock: bool
    standing: bool
    _kept: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def match(self, fleet: Fleet, only: Collection[tuple[str, str]]) -> Matched:
        """Find the stored key of each description; one that is as described is only counted.

        Of keys that no file describes those are noted that are of *only*.
        """
        matching, found = Matching.of(fleet), Matched()
        for key, name in matching.pairs(self.connection):
            if name is None:
                if is_wanted(key, only):
                    found.left.append(self._end(key))
            elif key.confirmed_at is None:
                self._pending(key, matching.by_name[name])
            else:
                self._compare(key, name, matching.by_name[name], found)
        found.made = matching.missing()
        return found

    def judge(self, found: Matched, ended: set[str]) -> None:
        """Note every change and every new key, with the rules that they would break.

        Raises:
            Outdated: A key is not what it was when it was matched.
        """
        changing = {key_id for key_id, _, _ in found.changed} | ended
        ledger = RunningSums(now=self.now, but=changing)
        for some in portions(sorted(found.changed, key=lambda item: item[1]), _PORTION):
            ids = [key_id for key_id, _, _ in some]
            keys = {key.id: key for key in queries.find_keys(self.connection, ids)}
            for key_id, name, template in some:
                if (key := keys.get(key_id)) is None or key.deleted_at is not None:
                    raise Outdated
                self._judge_change(key, name, template, ledger)
        judge = NewKeys(
            connection=self.connection,
            workspace=self.workspace,
            caller=self.caller,
            lookup=self.world,
            ledger=ledger,
            coming=self.world.tiers,
            now=self.now,
            lock=self.lock,
        )
        wanted: dict[int, NewKey] = {}
        for name, template in found.made:
            if id(template) not in wanted:
                if len(wanted) == _TEMPLATES:
                    wanted.clear()
                wanted[id(template)] = NewKey(values=template.values, cleared=template.cleared)
            self._judge_new(name, template, wanted[id(template)], judge)

    def end(self, left: Sequence[KeyChange]) -> None:
        """Note the end of keys that no file describes any more."""
        self.plan.changes += sorted(left, key=lambda change: change.object_id)

    # --- one stored key and its description

    def _end(self, key: Key) -> KeyChange:
        ended = {
            "deleted_at": self.now,
            "updated_at": self.now,
            "updated_by": self.caller.actor,
        }
        return KeyChange(
            action="delete",
            object_type="key",
            object_id=key.key_alias or key.id,
            key_id=key.id,
            values=self._shared(ended),
            stamp=stamp_of(key),
        )

    def _pending(self, key: Key, template: KeyTemplate) -> None:
        """Note a key that another run is making; one that a dead run left makes way for a new one."""
        claim = queries.find_claim(self.connection, key.id)
        if claim is not None and self.run.is_alive(claim, now=self.now):
            error = BusyError(
                f"another run is making key {key.key_alias or key.id!r}", hint="try again later"
            )
            self._problem(template, "", "fleet.busy", error)
        else:
            self.plan.abandoned.append(key)

    def _compare(self, key: Key, name: str, template: KeyTemplate, found: Matched) -> None:
        if not self._is_ours(key, name, template):
            return
        if key.managed_by is None:
            self.plan.changes.append(
                KeyChange(
                    action="adopt",
                    object_type="key",
                    object_id=name,
                    key_id=key.id,
                    entry=template,
                    fields=self._shared({"managed_by": (None, template.fleet)}),
                    values=self._shared({"managed_by": template.fleet}),
                    stamp=stamp_of(key),
                )
            )
        if key.expires is not None and key.expires <= self.now:
            self._warn(template, "expires", f"key {name!r} has expired; it is not made again")
        if self._difference(key, name, template).is_nothing and not _is_to_rotate(key, template):
            self.plan.unchanged += 1
            if self.standing:
                self._warn_of_rules(key, name, template)
        else:
            found.changed.append((key.id, name, template))

    def _is_ours(self, key: Key, name: str, template: KeyTemplate) -> bool:
        if key.managed_by is None and template.entry.adopt != key.id:
            error = NotManagedError(
                f"key {name!r} ({key.id}) is there already, and no fleet has it",
                hint=f"adopt: {key.id} takes it over; keyctl export writes such files",
            )
            self._problem(template, "", "fleet.not_managed", error)
            return False
        if key.managed_by not in (None, template.fleet):
            error = NotManagedError(
                f"key {name!r} ({key.id}) belongs to fleet {key.managed_by!r}",
                hint="describe each object in the files of one fleet",
            )
            self._problem(template, "", "fleet.other_fleet", error)
            return False
        return True

    def _difference(self, key: Key, name: str, template: KeyTemplate) -> KeyDifference:
        """Return how the key differs; its organization is its team's, as it will be."""
        found = difference(key, name if name != template.entry.adopt else None, template)
        named = found.values.keys() | found.cleared
        if key.team_id is not None and not named & {"team_id", "organization_id"}:
            team = self.world.find(self.connection, Team, key.team_id)
            if team is not None and team.organization_id not in (None, key.organization_id):
                return replace(
                    found, values={**found.values, "organization_id": team.organization_id}
                )
        return found

    def _judge_change(
        self, key: Key, name: str, template: KeyTemplate, ledger: RunningSums
    ) -> None:
        wanted = self._difference(key, name, template)
        if wanted.is_nothing and not _is_to_rotate(key, template):
            raise Outdated
        try:
            verdict = judge_change(
                self.connection,
                replace(self.workspace, caller=self.caller),
                key,
                wanted.values,
                wanted.cleared,
                lock=self.lock,
                lookup=self.world,
                adding=ledger,
                coming=self.world.tiers,
                now=self.now,
            )
        except KeyctlError as error:
            self._refused(template, error)
            return
        ledger.count(verdict.key)
        moves = self._moves(key, verdict.key, wanted.sink)
        after = replace(
            verdict.key,
            sink=wanted.sink or key.sink,
            managed_by=template.fleet,
            # Before any rotation that will settle it, which may be staged at this very instant.
            sink_suspect_at=self.now - timedelta.resolution if moves else key.sink_suspect_at,
        )
        fields = shown_fields(key, after)
        rotates = bool(template.entry.rotate) and (moves or key.sink_suspect_at is not None)
        if rotates:
            fields[_SECRET] = ("what the sink may hold is old", "rotated to the sink")
        if moves and not rotates:
            self._warn(
                template,
                "deliver" if wanted.sink else "",
                f"key {name!r} gets another place in its sink: apply needs rotate: true there",
            )
        self.plan.changes.append(
            KeyChange(
                action="update",
                object_type="key",
                object_id=name,
                key_id=key.id,
                entry=template,
                fields=self._shared(fields),
                violations=verdict.violations,
                values=self._shared(_differing(key, after)),
                stamp=stamp_of(key),
                sink=after.sink,
                moves_place=moves,
                rotates=rotates,
            )
        )

    def _shared(self, values: dict[str, Any]) -> Mapping[str, Any]:
        """Return *values*, or the same that are kept already: keys of a fleet mostly change alike."""
        text = repr(values)
        if len(self._kept) < _KEPT:
            return self._kept.setdefault(text, values)
        return self._kept.get(text, values)

    def _moves(self, key: Key, after: Key, sink: str | None) -> bool:
        if sink is not None:
            return True
        renamed = key.key_alias != after.key_alias
        return renamed and has_alias_in_place(self.workspace.settings, key.sink)

    def _judge_new(self, name: str, template: KeyTemplate, wanted: NewKey, judge: NewKeys) -> None:
        nameless = name == template.entry.adopt
        key_id = name if nameless else new_key_id()
        try:
            verdict = judge.verdict(wanted, key_id, None if nameless else name)
        except KeyctlError as error:
            self._refused(template, error)
            return
        self.plan.changes.append(
            NewKeyChange(
                action="create",
                object_type="key",
                object_id=name,
                entry=template,
                fields=self._shared(described_fields(template, verdict.filled)),
                violations=verdict.violations,
                template=template,
                target=target_of(verdict.key, key_id=key_id),
            )
        )

    def _warn_of_rules(self, key: Key, name: str, template: KeyTemplate) -> None:
        """Note the rules that a key breaks although nothing of it changes: they came later."""
        try:
            facts = facts_of(
                self.connection,
                self.workspace.settings,
                self.caller,
                key,
                "update",
                now=self.now,
                lookup=self.world,
            )
        except NotFoundError:
            return  # its owner is gone: that is another command's finding
        for violation in engine.evaluate(facts):
            self._warn(
                template,
                violation.field,
                f"key {name!r} stays, though {violation.rule} would refuse it today: {violation.message}",
            )

    def _refused(self, template: KeyTemplate, error: KeyctlError) -> None:
        fields = [item.field for item in error.violations] or [_missing_field(error)]
        rule = "fleet.missing" if isinstance(error, NotFoundError) else "fleet.value"
        if isinstance(error, MalformedRequestError) and error.violations:
            rule = error.violations[0].rule
        known = [(item.entry, item.rule, str(item.error)) for item in self.plan.problems]
        if (template, rule, str(error)) not in known:  # once for all that a template counts
            self._problem(template, fields[0], rule, error)

    def _problem(self, template: KeyTemplate, name: str, rule: str, error: KeyctlError) -> None:
        self.plan.problems.append(Problem(error=error, entry=template, field=name, rule=rule))

    def _warn(self, template: KeyTemplate, name: str, message: str) -> None:
        self.plan.warnings.append(Warned(entry=template, field=name, message=message))


def _differing(before: Key, after: Key) -> dict[str, Any]:
    return {
        name: value for name, value in after.columns().items() if value != getattr(before, name)
    }


def _is_to_rotate(key: Key, template: KeyTemplate) -> bool:
    return bool(template.entry.rotate) and key.sink_suspect_at is not None


def _missing_field(error: KeyctlError) -> str:
    return f"{error.code.removesuffix('_not_found')}_id" if isinstance(error, NotFoundError) else ""
