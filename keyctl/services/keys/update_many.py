"""Change many keys alike: all judged before the first is written, then written in batches."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl.db import queries
from keyctl.errors import (
    AliasTakenError,
    ConflictError,
    DeniedError,
    KeyctlError,
    NotFoundError,
    UnreadableRowError,
    UsageError,
    Violation,
)
from keyctl.policy import engine
from keyctl.policy.facts import Caller
from keyctl.portions import portions
from keyctl.records import Key
from keyctl.services import denials
from keyctl.services.authorize.owners import Roster, around
from keyctl.services.authorize.totals import RunningSums
from keyctl.services.authorize.verdict import Adding, Judgement, Lookup
from keyctl.services.denials import Attempt
from keyctl.services.issue.takeover import require_alias
from keyctl.services.keys.end import BATCH, UNCHANGED, Ended, by_whole_ids, in_batches
from keyctl.services.keys.find import as_live, live_key
from keyctl.services.keys.judge import is_alike, judge_change, read_patch
from keyctl.services.keys.update import note_change
from keyctl.services.periods import begin_periods
from keyctl.services.transaction import Unit, anchor, writing
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class ManyChangesService:
    """Updates many keys with one patch."""

    workspace: Workspace
    overrides: tuple[str, ...] = ()
    reason: str | None = None
    _alike: list[tuple[Mapping[str, Any], tuple[dict[str, Any], frozenset[str]]]] = field(
        default_factory=list
    )

    def judge(
        self, given: Sequence[str], patch: Mapping[str, Any]
    ) -> Generator[tuple[str, Judgement | KeyctlError]]:
        """Yield the verdict on each key, on a database in which those before it are changed.

        Whoever stops before the last closes it: it holds a connection.
        """
        engine.check_overrides(self.overrides)
        if "key_alias" in patch and len(given) > 1:
            raise UsageError("an alias is one key's", hint="name one key, or leave --alias out")
        database = self.workspace.database
        with database.read() as connection:
            now, caller = database.now(connection), self.workspace.caller
            for part in portions(given, BATCH):
                keys = _found(connection, part, caller, lock=False)
                known = [key for key in keys if isinstance(key, Key)]
                roster = around(connection, known, patch, lock=False)
                ledger = RunningSums(now=now, but={key.id for key in known})
                for item, key in zip(part, keys, strict=True):
                    if isinstance(key, KeyctlError):
                        yield item, key
                        continue
                    try:
                        verdict = self._verdict(
                            connection,
                            caller,
                            key,
                            patch,
                            now=now,
                            lookup=roster,
                            adding=ledger,
                            lock=False,
                        )
                        if not verdict.violations:
                            require_alias(connection, verdict.key, key, caller=caller)
                    except (NotFoundError, AliasTakenError) as error:
                        yield item, error
                    else:
                        ledger.count(verdict.key)
                        yield item, verdict

    def update(
        self,
        given: Sequence[str],
        patch: Mapping[str, Any],
        *,
        told: Callable[[int], None] = lambda _: None,
    ) -> list[Ended]:
        """Change what *patch* names of each key; *told* how many are done after each batch.

        Raises:
            PolicyDeniedError: A rule is against one of the changes: none is made.
            NotFoundError: A key, or an owner that the patch names, does not exist: none is changed.
        """
        with (
            denials.recorded(self.workspace, "key_update_denied", "key", given[0] if given else ""),
            closing(self.judge(given, patch)) as judged,
        ):
            _refuse(judged)
        return in_batches(
            self.workspace,
            given,
            "key_update_denied",
            lambda part: self._update_batch(part, patch),
            told=told,
        )

    def _update_batch(self, given: Sequence[str], patch: Mapping[str, Any]) -> list[Ended]:
        ended: list[Ended] = []
        numbers: list[int | None] = []
        try:
            with writing(self.workspace) as unit:
                keys = _found(unit.connection, given, unit.caller, lock=False)
                known = [key for key in keys if isinstance(key, Key)]
                # Owners before keys, in keyctl's order of locks.
                roster = around(unit.connection, known, patch)
                ids = sorted(key.id for key in known)
                fresh_keys = begin_periods(
                    unit,
                    queries.find_keys(unit.connection, ids, lock=True),
                    rollover=self.workspace.settings.budget_rollover,
                )
                locked = {key.id: key for key in fresh_keys}
                ledger = RunningSums(now=unit.now, but=locked)
                rows: dict[str, dict[str, Any]] = {}
                for item, key in zip(given, keys, strict=True):
                    fresh = locked[key.id] if isinstance(key, Key) else key
                    outcome = self._change(unit, item, fresh, patch, roster, ledger, rows)
                    ended.append(outcome)
                    done = outcome.error is None and outcome.result != UNCHANGED
                    numbers.append(len(unit.events) - 1 if done else None)
                queries.update_keys(unit.connection, rows)
        except ConstraintError as error:
            taken = AliasTakenError("the alias is taken by a live key", hint="choose another alias")
            raise taken from error
        return [
            item if number is None else replace(item, audit=anchor(unit.heads[number]))
            for item, number in zip(ended, numbers, strict=True)
        ]

    def _change(
        self,
        unit: Unit,
        given: str,
        key: Key | KeyctlError,
        patch: Mapping[str, Any],
        roster: Roster,
        ledger: RunningSums,
        rows: dict[str, dict[str, Any]],
    ) -> Ended:
        """Change one key of a batch, its columns in *rows*; what is refused by now stops no other."""
        if isinstance(key, KeyctlError):
            return Ended(given=given, result="failed", error=key)
        try:
            verdict = self._verdict(
                unit.connection,
                unit.caller,
                key,
                patch,
                now=unit.now,
                lookup=roster,
                adding=ledger,
                lock=True,
            )
            if verdict.violations:
                raise engine.refuse(list(verdict.violations))
        except DeniedError as error:
            denials.note(unit, Attempt("key_update_denied", "key", key.id), error)
            return Ended(given=given, key_id=key.id, result="failed", error=error)
        except (NotFoundError, ConflictError) as error:
            return Ended(given=given, key_id=key.id, result="failed", error=error)
        ledger.count(verdict.key)
        if verdict.key == key and not verdict.stepped_over:
            return Ended(given=given, key_id=key.id, result=UNCHANGED)
        rows[key.id], warnings = note_change(unit, key, verdict, reason=self.reason)
        self.workspace.warnings.extend(warnings)
        return Ended(given=given, key_id=key.id, result="updated")

    def _verdict(
        self,
        connection: Connection,
        caller: Caller,
        key: Key,
        patch: Mapping[str, Any],
        *,
        lookup: Lookup,
        adding: Adding,
        **options: Any,
    ) -> Judgement:
        workspace = self.workspace
        if caller is not workspace.caller:
            workspace = replace(workspace, caller=caller)
        values, cleared = self._read(key, patch)
        return judge_change(
            connection,
            workspace,
            key,
            values,
            cleared,
            overrides=self.overrides,
            lookup=lookup,
            adding=adding,
            **options,
        )

    def _read(self, key: Key, patch: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
        """Return what *patch* sets and empties of a key; read once where it is the same for all."""
        if not is_alike(patch):
            return read_patch(key, patch)
        if not self._alike or self._alike[-1][0] != patch:
            self._alike.append((patch, read_patch(key, patch)))
        return self._alike[-1][1]


def _found(
    connection: Connection, given: Sequence[str], caller: Caller, *, lock: bool
) -> list[Key | KeyctlError]:
    """Return the key that each of *given* names, or why there is none."""
    known = by_whole_ids(connection, given, lock=lock)
    found: list[Key | KeyctlError] = []
    for item in given:
        try:
            key = known.get(item)
            found.append(
                live_key(connection, item, caller, lock=lock)
                if key is None
                else as_live(key, item, caller)
            )
        except (NotFoundError, UnreadableRowError) as error:
            found.append(error)
    return found


def _refuse(judged: Iterable[tuple[str, Judgement | KeyctlError]]) -> None:
    """Refuse the whole where one change could not be made.

    Raises:
        KeyctlError: What stands against it; of rules, everything that they say.
    """
    broken: list[Violation] = []
    for given, verdict in judged:
        if isinstance(verdict, KeyctlError):
            raise verdict
        broken += [replace(item, message=f"{given}: {item.message}") for item in verdict.violations]
    if broken:
        raise engine.refuse(broken)
