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
    """One key of a list: its place there, what it asks for, and the sink that it names.

    The request is made anew each time: it has every field there is, and takes ten times as much memory as
    what the row says.
    """

    place: str
    body: Mapping[str, Any]
    service_account: bool = False
    sink: str | None = None

    @property
    def alias(self) -> str | None:
        """Return the alias that the row names."""
        return self.body.get("key_alias") or None

    @property
    def request(self) -> GenerateRequest:
        """Return the request, which is known to be well formed."""
        return validate(GenerateRequest, self.body, what=self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRow:
    """A row and what rules say of it, or why none was asked: its alias is taken, or an owner is missing.

    `target` names the key that it would be, with an id of its own.
    """

    row: Row
    target: Target | None = None
    violations: tuple[Violation, ...] = ()
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
            validate(GenerateRequest, own, what=place)
        except MalformedRequestError as error:
            faults += [_at(place, item) for item in error.violations]
            continue
        if own.get("key") is not None:
            faults.append(_fault(place, "key", "is not supplied in a list; let keyctl make it"))
        rows.append(
            Row(
                place=place,
                body=own,
                service_account=bool(body.get("service_account")),
                sink=body.get("deliver"),
            )
        )
    twice = Counter(row.alias for row in rows if row.alias)
    faults += [
        _fault(row.place, "key_alias", f"{alias!r} is named {twice[alias]} times")
        for row in rows
        if (alias := row.alias) and twice[alias] > 1
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
            names = [row.alias for row in rows if row.alias]
            taken = refused_aliases(
                connection,
                names,
                caller=self.workspace.caller,
                run=run_lock.onlooker(self.workspace.runs_folder),
                now=now,
            )
            judged = [_judged(row, judge, taken) for row in rows]
        return [self._asked(item) for item in judged]

    def jobs(self, judged: Sequence[JudgedRow], sink_of: Callable[[Target], Sink]) -> Sequence[Job]:
        """Return the keys to be made; a row without a sink of its own goes to *sink_of* it.

        Raises:
            PolicyDeniedError: A rule is against a row: none is made.
            KeyctlError: A row names what does not exist: none is made.
        """
        self._refuse(judged)
        made = [(item.row, item.target) for item in judged if item.target is not None]
        return _RowJobs(self.workspace, made, sink_of)

    def _asked(self, judged: JudgedRow) -> JudgedRow:
        """Ask the custom hook about a row, outside of every transaction."""
        if judged.error is not None:
            return judged
        try:
            decide(self.workspace.settings, judged.row.request, self.workspace.caller)
            if judged.row.sink is not None:
                named_sink(self.workspace, judged.row.sink)
        except PolicyDeniedError as error:
            return replace(judged, violations=(*judged.violations, *error.violations))
        except KeyctlError as error:
            return JudgedRow(row=judged.row, error=error)
        return judged

    def _refuse(self, judged: Sequence[JudgedRow]) -> None:
        """Refuse the whole list where a row could never be made; one whose alias is taken is left out."""
        broken = [
            _at(item.row.place, violation) for item in judged for violation in item.violations
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


class _RowJobs(Sequence[Job]):
    """A job for each row, made anew each time: a hundred thousand are never there at once."""

    def __init__(
        self,
        workspace: Workspace,
        made: Sequence[tuple[Row, Target]],
        sink_of: Callable[[Target], Sink],
    ) -> None:
        self._workspace = workspace
        self._made = made
        self._sink_of = sink_of

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._job(*item) for item in self._made[place]]
        return self._job(*self._made[place])

    def _job(self, row: Row, target: Target) -> Job:
        return Job(
            wanted=_wanted(row),
            alias=row.alias,
            sink=self._sink_of(target)
            if row.sink is None
            else named_sink(self._workspace, row.sink),
            keeps_sink=row.sink is not None,
            key_id=str(target.key_id),
            target=target,
        )


def _judged(row: Row, judge: NewKeys, taken: Mapping[str, AliasTakenError]) -> JudgedRow:
    alias = row.alias
    if alias is not None and alias in taken:
        return JudgedRow(row=row, error=taken[alias])
    try:
        verdict = judge.verdict(_wanted(row), new_key_id(), alias)
    except (DatabaseError, BusyError):
        raise
    except KeyctlError as error:
        return JudgedRow(row=row, error=error)
    return JudgedRow(row=row, target=target_of(verdict.key), violations=tuple(verdict.violations))


def _wanted(row: Row) -> NewKey:
    values = resolve.given_values(row.request)
    values.pop("key_alias", None)
    return NewKey(values={**values, "service_account": row.service_account})


def _at(place: str, violation: Violation) -> Violation:
    return replace(violation, message=f"{place}: {violation.field}: {violation.message}")


def _fault(place: str, field: str, message: str) -> Violation:
    return _at(place, Violation(rule="request.value", field=field, message=message))
