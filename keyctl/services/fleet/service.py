"""Plan fleets and apply them: owners and changes at once, then new keys in batches."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl.db.queries.audit import Head, find_head, lock_head
from keyctl.errors import (
    BudgetNotFoundError,
    BusyError,
    ConflictError,
    KeyctlError,
    NotFoundError,
    OrganizationNotFoundError,
    PlanOutdatedError,
    TeamNotFoundError,
    UsageError,
    UserNotFoundError,
    Violation,
)
from keyctl.fleetfile.described import Fleet
from keyctl.fleetfile.faults import dotted
from keyctl.nearest import MOST_SEARCHED, nearest
from keyctl.policy import engine
from keyctl.records import Organization, Record, Team, Tier, User
from keyctl.services import denials
from keyctl.services.callers import require_admin, require_overseer
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import named_sink
from keyctl.services.fleet.jobs import NewKeyJobs, no_sink
from keyctl.services.fleet.model import Change, KeyChange, NewKeyChange, Outdated, Plan, Problem
from keyctl.services.fleet.planner import (
    TAKEN,
    FleetOrder,
    check_places,
    first_error,
    make_plan,
)
from keyctl.services.fleet.writing import write
from keyctl.services.issue.generate_each import Done, EachService
from keyctl.services.issue.takeover import taken_aliases
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.transaction import writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Sink, Target

_TRIES: Final = 20
_KINDS: Final[dict[type[KeyctlError], type[Record]]] = {
    OrganizationNotFoundError: Organization,
    TeamNotFoundError: Team,
    UserNotFoundError: User,
    BudgetNotFoundError: Tier,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What `apply` has begun: the plan that was written, and the keys yet to be made and rotated.

    `keys` makes them while it is read, and says of each what became of it.
    """

    plan: Plan
    keys: Iterator[Done]
    rotated: Iterator[tuple[str, dict[str, Any] | KeyctlError]] = field(
        default_factory=lambda: iter(())
    )


@dataclass(frozen=True, slots=True)
class FleetService:
    """Plans and applies what files describe.  `apply` is one transaction, and two for each batch of keys."""

    workspace: Workspace

    def plan(self, order: FleetOrder) -> Plan:
        """Return what the files would change, and write nothing.

        Raises:
            DeniedError: The caller is neither an admin nor an admin viewer.
            KeyctlError: The files cannot be applied, with every problem of every object.
        """
        require_overseer(self.workspace, "plans of a fleet", "fleet")
        with run_lock.begun(self.workspace.runs_folder) as run:
            return self._preview(order, run, standing=True)

    def apply(
        self,
        order: FleetOrder,
        *,
        head: Head | None = None,
        ends: int | None = None,
        sink_of: Callable[[Target], Sink] | None = None,
        agreed: Callable[[Plan], None] = lambda _: None,
    ) -> Applied:
        """Write owners, changes and ends in one transaction, and return what is left to be made.

        With *head* the audit head must be that one still; *ends* is how many objects `prune` must
        end.  Keys without a sink of their own go to *sink_of* them.  *agreed* is told the plan
        before anything is written, and raises where it is not to be.

        Raises:
            PolicyDeniedError: A change or a new key breaks a rule; nothing is written.
            PlanOutdatedError: The world moved on; nothing is written.
            KeyctlError: The files cannot be applied.
        """
        require_admin(self.workspace, "apply a fleet", "fleet_apply_denied", "fleet")
        with run_lock.begun(self.workspace.runs_folder) as run:
            path = self.workspace.database.path
            if path is not None and not path.exists():
                self.workspace.database.upgrade()
            with denials.recorded(self.workspace, "fleet_apply_denied", "fleet", _named(order)):
                preview = self._preview(order, run, standing=False)
                if preview.abandoned:
                    self._clear(preview, run)
                if head is not None and preview.head != head:
                    raise _outdated()
                _refuse(preview, ends=ends, has_sink=sink_of is not None)
                agreed(preview)
                del preview  # it may hold a hundred thousand changes, as the next one does
                plan = self._written(order, run, head=head, ends=ends, has_sink=sink_of is not None)
        made = [change for change in plan.changes if isinstance(change, NewKeyChange)]
        return Applied(
            plan=plan,
            keys=EachService(self.workspace).generate(
                NewKeyJobs(workspace=self.workspace, made=made, sink_of=sink_of)
            ),
            rotated=self._rotated(plan),
        )

    def record_drift(self, order: FleetOrder, plan: Plan) -> None:
        """Put on record that the stored state is not what the files describe, so that hooks hear of it.

        Raises:
            DeniedError: The caller is not an admin.
        """
        require_admin(self.workspace, "record a drift", "fleet_apply_denied", "fleet")
        with writing(self.workspace) as unit:
            unit.record("fleet_drifted", "fleet", _named(order), after=plan.summary())

    def _preview(self, order: FleetOrder, run: Run, *, standing: bool) -> Plan:
        for _ in range(_TRIES):
            plan = self._looked(order, run, standing=standing)
            check_places(self.workspace, plan)
            # A place that is taken may be taken by another run, which made the key meanwhile.
            if all(problem.rule != TAKEN for problem in plan.problems) or self._is_now(plan.head):
                refuse_problems(order, plan)
                return plan
        raise _others()

    def _looked(self, order: FleetOrder, run: Run, *, standing: bool) -> Plan:
        database = self.workspace.database
        with database.read(snapshot=True) as connection:
            return make_plan(
                connection,
                self.workspace,
                order,
                run,
                lock=False,
                standing=standing,
                now=database.now(connection),
            )

    def _is_now(self, head: Head) -> bool:
        with self.workspace.database.read() as connection:
            return find_head(connection) == head

    def _clear(self, preview: Plan, run: Run) -> None:
        """Archive what dead runs left half made, so that its place in a sink is free again."""
        aliases = [key.key_alias for key in preview.abandoned if key.key_alias is not None]
        with writing(self.workspace) as unit:
            taken_aliases(unit, aliases, run)

    def _written(
        self,
        order: FleetOrder,
        run: Run,
        *,
        head: Head | None,
        ends: int | None,
        has_sink: bool,
    ) -> Plan:
        """Plan on facts that nobody changes meanwhile, and write what can be written at once."""
        for _ in range(_TRIES):
            try:
                with writing(self.workspace) as unit:
                    plan = make_plan(
                        unit.connection,
                        self.workspace,
                        order,
                        run,
                        lock=True,
                        standing=False,
                        now=unit.now,
                    )
                    refuse_problems(order, plan)
                    _refuse(plan, ends=ends, has_sink=has_sink)
                    write(unit, self.workspace.settings, plan, order.keys)
                    # Last in keyctl's order of locks: from here to the commit nobody moves it.
                    if head is not None and lock_head(unit.connection) != head:
                        raise _outdated()
            except (Outdated, ConstraintError):
                continue  # somebody changed one of these keys, or took a name, since it was read
            else:
                return plan
        raise _others()

    def _rotated(self, plan: Plan) -> Iterator[tuple[str, dict[str, Any] | KeyctlError]]:
        """Rotate the keys whose sink keeps them elsewhere now, each to its sink."""
        for change in plan.changes:
            if not isinstance(change, KeyChange) or not change.rotates:
                continue
            try:
                sink = named_sink(self.workspace, change.sink or "")
                answer = RotateService(self.workspace).rotate(
                    RotateOrder(given=change.key_id), sink
                )
            except KeyctlError as error:
                yield change.object_id, error
            else:
                yield change.object_id, answer


def refuse_problems(order: FleetOrder, plan: Plan) -> None:
    """Raise every problem of *plan* at once.

    Raises:
        KeyctlError: Of the kind that says best why there is no plan.
    """
    if not plan.problems:
        return
    written = [(item.entry, item.field) for item in plan.problems if item.entry is not None]
    places = order.fleet.places(written)
    violations = [
        Violation(
            rule=problem.rule,
            field=_path(problem),
            message=_likened(order.fleet, problem.error)
            if problem.entry is None
            else f"{next(places)}: {_likened(order.fleet, problem.error)}",
        )
        for problem in plan.problems
    ]
    first = first_error(plan.problems)
    index = next(i for i, item in enumerate(plan.problems) if item.error is first)
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    # The first one, with the others beside it: its class says the exit status.
    error = copy(first)
    error.message = f"{violations[index].message}{more}"
    error.args = (error.message,)
    error.violations = tuple(violations)
    if isinstance(error, NotFoundError) and _likened(order.fleet, first) != first.message:
        error.given = (
            None  # what is stored is looked through only where nothing described is like it
        )
    raise error


def _likened(fleet: Fleet, error: KeyctlError) -> str:
    """Return what *error* says, with the described names that are like the one that is not there."""
    kind = _KINDS.get(type(error))
    if kind is None or not isinstance(error, NotFoundError) or error.given is None:
        return error.message
    owners = (item.name for item in fleet.owners if item.kind is kind)
    described = (item.name for item in fleet.tiers) if kind is Tier else owners
    found = nearest(error.given, islice(described, MOST_SEARCHED))
    return f"{error.message} (did you mean {' or '.join(found)}?)" if found else error.message


def _path(problem: Problem) -> str:
    """Return the dotted path of what a problem is about."""
    if problem.entry is None:
        return problem.field
    field = [problem.field] if problem.field else []
    return dotted((problem.entry.section, problem.entry.name, *field))


def placed_violations(order: FleetOrder, changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Return each violation of *changes* with the file and line of its field."""
    found = [
        (change, violation)
        for change in changes
        for violation in change.violations
        if change.entry is not None
    ]
    places = order.fleet.places(
        [(change.entry, violation.field) for change, violation in found if change.entry]
    )
    return [
        {
            "object_type": change.object_type,
            "object_id": change.object_id,
            "rule": violation.rule,
            "field": violation.field,
            "message": violation.message,
            "bound": violation.bound,
            "value": violation.value,
            "file": place.file,
            "line": place.line,
        }
        for (change, violation), place in zip(found, places, strict=True)
    ]


def _refuse(plan: Plan, *, ends: int | None, has_sink: bool) -> None:
    ended = sum(change.action == "delete" for change in plan.changes)
    if ends is not None and ended != ends:
        raise UsageError(
            f"--expect-count {ends}, but {ended} objects would end; nothing was changed",
            hint="look with keyctl plan --prune",
        )
    for change in plan.changes:
        if (
            isinstance(change, NewKeyChange)
            and change.template.entry.deliver is None
            and not has_sink
        ):
            raise no_sink(change)
        if isinstance(change, KeyChange) and change.moves_place and not change.rotates:
            raise UsageError(
                f"keys.{change.object_id}: the sink would keep the key elsewhere, and nothing would be there",
                hint="rotate: true gives the key a new secret, delivered to the new place",
            )
    if plan.is_denied:
        raise engine.refuse([item for change in plan.changes for item in change.violations])


def _others() -> KeyctlError:
    return BusyError("others keep changing what these files describe", hint="try again")


def _outdated() -> ConflictError:
    return PlanOutdatedError(
        "the database changed since the plan was made; nothing was written",
        hint="make a new plan, review it, and apply that one",
    )


def _named(order: FleetOrder) -> str:
    return ", ".join(sorted(order.fleet.names))
