"""Make a plan: what some files would change, judged on the state as it would be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from keyctl.db.queries import audit, directory
from keyctl.db.queries.tiers import managed_tiers
from keyctl.errors import DeliveryError, KeyctlError, PolicyDeniedError, UsageError
from keyctl.fleetfile.described import Fleet
from keyctl.fleetfile.entries import Entry, KeyTemplate, OwnerEntry, TierEntry
from keyctl.policy.facts import Caller
from keyctl.records import Principal, Tier
from keyctl.requests import GenerateRequest
from keyctl.services.authorize import totals
from keyctl.services.authorize.custom_hook import decide
from keyctl.services.delivery.run_lock import Run
from keyctl.services.delivery.sinks import named_sink
from keyctl.services.fleet.keys import KeyPlanner
from keyctl.services.fleet.lowered import note_lowered
from keyctl.services.fleet.model import NewKeyChange, Plan, Problem, Warned
from keyctl.services.fleet.owners import OwnerPlanner
from keyctl.services.fleet.tiers import WORD as WORD_OF_TIER
from keyctl.services.fleet.tiers import compare_tier, end_tiers
from keyctl.services.fleet.world import World
from keyctl.services.leaving import What
from keyctl.services.owners import WORD
from keyctl.services.workspace import Workspace

# The rule of a place in a sink that cannot take the key.
TAKEN = "fleet.place"
_ORDER = ("budget", "organization", "user", "team", "key")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOrder:
    """What is to be planned: the files' content, whether to end what they describe no more, and of what.

    `only` names objects by type and name: they, and what belongs to them.  `keys` says what becomes
    of the keys of who gets a lower role or ends.
    """

    fleet: Fleet
    prune: bool = False
    only: tuple[tuple[str, str], ...] = ()
    keys: What | None = None

    def described(self) -> set[tuple[str, str]]:
        """Return what `only` may name: each object that the files describe, and what belongs to one."""
        fleet = self.fleet
        entries: list[Entry] = [*fleet.tiers, *fleet.owners, *fleet.keys]
        return {name for entry in entries for name in _names(entry)}

    def chosen(self) -> Fleet:
        """Return what is planned of the files."""
        if not self.only:
            return self.fleet
        return replace(
            self.fleet,
            tiers=[item for item in self.fleet.tiers if _names(item) & set(self.only)],
            owners=[item for item in self.fleet.owners if _names(item) & set(self.only)],
            keys=[item for item in self.fleet.keys if _names(item) & set(self.only)],
        )


def make_plan(
    connection: Connection,
    workspace: Workspace,
    order: FleetOrder,
    run: Run,
    *,
    lock: bool,
    standing: bool,
    now: datetime,
) -> Plan:
    """Return what *order* would change, judged as an admin.

    With *lock* nobody changes owners before the transaction ends; with *standing* there is a
    warning for each rule that an unchanged key breaks.
    """
    caller = _applying(workspace.caller)
    fleet = order.chosen()
    plan = Plan(head=audit.find_head(connection))
    if lock:
        totals.lock_everywhere(connection, workspace.settings)
    world = World.of(connection, fleet, lock=lock)
    owners = OwnerPlanner(
        connection=connection, world=world, plan=plan, actor=caller.actor, now=now
    )
    _compare_owners(owners, fleet)
    keys = KeyPlanner(
        connection=connection,
        workspace=workspace,
        caller=caller,
        world=world,
        plan=plan,
        run=run,
        now=now,
        lock=lock,
        standing=standing,
    )
    found = keys.match(fleet, order.only)
    left = found.left
    left_owners = _left_owners(connection, order, fleet)
    left_tiers = _left_tiers(connection, order, fleet)
    if order.prune:
        keys.end(left)
        ended = {change.key_id for change in left}
        keys.judge(found, ended)
        owners.prune(left_owners, keys_ended=ended)
        end_tiers(
            connection,
            plan,
            left_tiers,
            named=order.fleet.named_tiers(),  # by what is not chosen now, too
            keys_ended=ended,
            actor=caller.actor,
            now=now,
        )
    else:
        keys.judge(found, set())
        _warn_of_left(plan, len(left) + len(left_owners) + len(left_tiers))
    note_lowered(connection, plan, order.keys)
    plan.changes.sort(key=lambda change: (_ORDER.index(change.object_type), change.object_id))
    return plan


def _compare_owners(planner: OwnerPlanner, fleet: Fleet) -> None:
    """Note what becomes of tiers, and of the owners, who may name them."""
    planner.world.tiers.update(entry.name for entry in fleet.tiers)
    for tier in fleet.tiers:
        compare_tier(planner.connection, planner.plan, tier, actor=planner.actor, now=planner.now)
    for entry in fleet.owners:
        planner.compare(entry)


def _applying(caller: Caller) -> Caller:
    """Return whom a plan is judged as: a viewer may plan what an admin will apply."""
    return caller if caller.is_admin else Caller(actor=caller.actor, role="proxy_admin")


def check_places(workspace: Workspace, plan: Plan) -> None:
    """Ask the custom hook about each new key, and its sink whether it could take it; note what they say.

    Outside of every transaction: both may take their time.  Where a dead run left a key half made
    its sink may hold that one, which is in nobody's way.
    """
    abandoned = {key.key_alias for key in plan.abandoned}
    for change in plan.changes:
        if not isinstance(change, NewKeyChange):
            continue
        try:
            decide(workspace.settings, _request(change), workspace.caller)
        except PolicyDeniedError as error:
            change.violations = [*change.violations, *error.violations]
        name = change.template.entry.deliver
        if name is None:
            continue
        try:
            sink = named_sink(workspace, name)
            if change.target.alias not in abandoned:
                sink.check(change.target)
        except KeyctlError as error:
            rule = "fleet.sink" if isinstance(error, UsageError) else TAKEN
            if not isinstance(error, UsageError):
                error = DeliveryError(error.message, hint=error.hint)
            plan.problems.append(
                Problem(error=error, entry=change.template, field="deliver", rule=rule)
            )


def _request(change: NewKeyChange) -> GenerateRequest:
    """Return the request that the custom hook is asked about: the entry as a request for one key."""
    known = GenerateRequest.model_fields
    own = {name: value for name, value in change.template.asked.items() if name in known}
    request = GenerateRequest.model_construct(**own)
    return request.model_copy(update={"key_alias": change.target.alias})


def _left_owners(connection: Connection, order: FleetOrder, fleet: Fleet) -> list[Principal]:
    described = {(owner.kind, owner.name) for owner in order.fleet.owners}
    wanted = set(order.only)
    return [
        record
        for kind in WORD
        for record in directory.managed(connection, kind, fleet.names)
        if (kind, record.id) not in described and (not wanted or (WORD[kind], record.id) in wanted)
    ]


def _left_tiers(connection: Connection, order: FleetOrder, fleet: Fleet) -> list[Tier]:
    described = {entry.name for entry in order.fleet.tiers}
    return [
        tier
        for tier in managed_tiers(connection, fleet.names)
        if tier.id not in described and (not order.only or (WORD_OF_TIER, tier.id) in order.only)
    ]


def _warn_of_left(plan: Plan, count: int) -> None:
    if count:
        objects = "1 object is" if count == 1 else f"{count} objects are"
        plan.warnings.append(
            Warned(
                entry=None, message=f"{objects} described no more; --prune ends what is not needed"
            )
        )


def _names(entry: Entry) -> set[tuple[str, str]]:
    return set(_own_names(entry))


def _own_names(entry: Entry) -> Iterator[tuple[str, str]]:
    if isinstance(entry, OwnerEntry):
        yield WORD[entry.kind], entry.name
    elif isinstance(entry, TierEntry):
        yield WORD_OF_TIER, entry.name
    elif isinstance(entry, KeyTemplate):
        yield "key", entry.name
    for word in ("team", "user", "organization"):
        value = entry.values.get(f"{word}_id")
        if value is not None:
            yield word, value


def first_error(problems: Sequence[Problem]) -> KeyctlError:
    """Return the error that says best why there is no plan: what is malformed, missing, taken, closed."""
    return min((problem.error for problem in problems), key=lambda error: error.exit_code)
