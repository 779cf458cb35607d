"""Judge a list of new keys whole before the first of them is made."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from keyctl.db.queries import directory
from keyctl.errors import (
    AliasTakenError,
    BusyError,
    DatabaseError,
    KeyctlError,
    MalformedRequestError,
    PolicyDeniedError,
    Violation,
)
from keyctl.fields import validate
from keyctl.policy import engine, resolve
from keyctl.requests import GenerateRequest
from keyctl.services import denials
from keyctl.services.authorize.custom_hook import decide
from keyctl.services.authorize.new_keys import NewKey, NewKeys
from keyctl.services.authorize.totals import RunningSums
from keyctl.services.authorize.verdict import Judgement
from keyctl.services.columns import malformed, unknown_columns
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.sinks import named_sink, target_of
from keyctl.services.issue.generate_each import Job
from keyctl.services.issue.order import new_key_id
from keyctl.services.issue.takeover import refused_aliases
from keyctl.services.placed import Placed, refuse_placed
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink, Target

# Columns that are no fields of the request.
_BESIDES: Final = ("deliver", "service_account")
_COLUMNS: Final = (
    "the columns are key_alias, user_id, team_id, max_budget, models, duration, …, as"
    " keyctl schema generate-request has them, and deliver and service_account"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One key of a list: its place there, its request, and the sink that the row names."""

    place: str
    request: GenerateRequest
    service_account: bool = False
    sink: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRow:
    """A row and the verdict on it, or why there is none: its alias is taken, or an owner is missing."""

    row: Row
    verdict: Judgement | None = None
    error: KeyctlError | None = None


def read_rows(bodies: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Row]:
    """Return the rows that these bodies, each with its place, describe.

    Raises:
        MalformedRequestError: With every fault of every row.
    """
    rows, faults = [], []
    columns = unknown_columns(bodies, {*GenerateRequest.model_fields, *_BESIDES})
    left_out = {*_BESIDES, *(item.field for item in columns)}
    for place, body in bodies:
        own = {name: value for name, value in body.items() if name not in left_out}
        try:
            request = validate(GenerateRequest, own, what=place)
        except MalformedRequestError as error:
            faults += [_at(place, item) for item in error.violations]
            continue
        if request.key is not None:
            faults.append(_fault(place, "key", "is not supplied in a list; let keyctl make it"))
        rows.append(
            Row(
                place=place,
                request=request,
                service_account=bool(body.get("service_account")),
                sink=body.get("deliver"),
            )
        )
    twice = Counter(row.request.key_alias for row in rows if row.request.key_alias)
    faults += [
        _fault(row.place, "key_alias", f"{alias!r} is named {twice[alias]} times")
        for row in rows
        if (alias := row.request.key_alias) and twice[alias] > 1
    ]
    if columns or faults:
        raise malformed(bodies, columns, faults, hint=_COLUMNS)
    return rows


@dataclass(frozen=True, slots=True)
class RowsService:
    """Judges lists of new keys; `EachService` makes them."""

    workspace: Workspace
    overrides: tuple[str, ...] = ()

    def judge(self, rows: Sequence[Row]) -> list[JudgedRow]:
        """Return the verdict on each row, on a database in which those before it are made."""
        database = self.workspace.database
        if database.path is not None and not database.path.exists():
            database.upgrade()
        with database.read() as connection:
            now = database.now(connection)
            judge = NewKeys(
                connection=connection,
                workspace=self.workspace,
                caller=self.workspace.caller,
                lookup=directory,
                ledger=RunningSums(now=now),
                now=now,
                lock=False,
                overrides=self.overrides,
            )
            names = [row.request.key_alias for row in rows if row.request.key_alias]
            taken = refused_aliases(
                connection,
                names,
                caller=self.workspace.caller,
                run=run_lock.onlooker(self.workspace.runs_folder),
                now=now,
            )
            judged = [_judged(row, judge, taken) for row in rows]
        return [self._asked(item) for item in judged]

    def jobs(self, judged: Sequence[JudgedRow], sink_of: Callable[[Target], Sink]) -> list[Job]:
        """Return the keys to be made; a row without a sink of its own goes to *sink_of* it.

        Raises:
            PolicyDeniedError: A rule is against a row: none is made.
            KeyctlError: A row names what does not exist: none is made.
        """
        self._refuse(judged)
        jobs = []
        for item in judged:
            if item.verdict is None:
                continue
            target = target_of(item.verdict.key)
            name = item.row.sink
            jobs.append(
                Job(
                    wanted=_wanted(item.row),
                    alias=item.row.request.key_alias or None,
                    sink=sink_of(target) if name is None else named_sink(self.workspace, name),
                    keeps_sink=name is not None,
                    key_id=item.verdict.key.id,
                    target=target,
                )
            )
        return jobs

    def _asked(self, judged: JudgedRow) -> JudgedRow:
        """Ask the custom hook about a row, outside of every transaction."""
        if judged.verdict is None:
            return judged
        try:
            decide(self.workspace.settings, judged.row.request, self.workspace.caller)
            if judged.row.sink is not None:
                named_sink(self.workspace, judged.row.sink)
        except PolicyDeniedError as error:
            found = [*judged.verdict.violations, *error.violations]
            return replace(judged, verdict=replace(judged.verdict, violations=found))
        except KeyctlError as error:
            return replace(judged, verdict=None, error=error)
        return judged

    def _refuse(self, judged: Sequence[JudgedRow]) -> None:
        """Refuse the whole list where a row could never be made; one whose alias is taken is left out."""
        broken = [
            _at(item.row.place, violation)
            for item in judged
            if item.verdict is not None
            for violation in item.verdict.violations
        ]
        if broken:
            with denials.recorded(self.workspace, "key_denied", "key"):
                error = engine.refuse(broken)
                error.is_of_rows = True
                raise error
        refuse_placed(
            Placed(place=item.row.place, error=item.error)
            for item in judged
            if item.error is not None and not isinstance(item.error, AliasTakenError)
        )


def _judged(row: Row, judge: NewKeys, taken: Mapping[str, AliasTakenError]) -> JudgedRow:
    alias = row.request.key_alias or None
    if alias is not None and alias in taken:
        return JudgedRow(row=row, error=taken[alias])
    try:
        verdict = judge.verdict(_wanted(row), new_key_id(), alias)
    except (DatabaseError, BusyError):
        raise
    except KeyctlError as error:
        return JudgedRow(row=row, error=error)
    return JudgedRow(row=row, verdict=verdict)


def _wanted(row: Row) -> NewKey:
    values = resolve.given_values(row.request)
    values.pop("key_alias", None)
    return NewKey(values={**values, "service_account": row.service_account})


def _at(place: str, violation: Violation) -> Violation:
    return replace(violation, message=f"{place}: {violation.field}: {violation.message}")


def _fault(place: str, field: str, message: str) -> Violation:
    return _at(place, Violation(rule="request.value", field=field, message=message))
