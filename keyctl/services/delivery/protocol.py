"""Deliver secrets: stage them, hand them over, confirm what arrived and take back the rest.

One protocol for a new key, many new keys and rotations.  It owns the order of the steps, the
claims, what a failing sink means, retries and signals; `Rows` is what differs: what is written.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Final, Generic, Protocol, TypeVar

from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl.db.queries.audit import Head
from keyctl.errors import BusyError, DatabaseError, DeniedError, KeyctlError
from keyctl.keystring import KeyString
from keyctl.records import Claim, Secret
from keyctl.services.delivery import run_lock
from keyctl.services.delivery.confirm import Written, check_written, persist, uninterrupted
from keyctl.services.delivery.run_lock import Run
from keyctl.services.transaction import Unit, writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Parcel, Sink, UnknownError

_TRIES: Final = 20
_WAIT: Final = 0.05
_ENDED: Final = "the run was ended before it was delivered"
_TOO_LATE: Final = "its claim ended before it was delivered"
W = TypeVar("W")
T = TypeVar("T")


class StartOver(Exception):  # noqa: N818  # not an error
    """The facts changed under us: try again on fresh ones."""


class Wait(Exception):  # noqa: N818  # not an error
    """The same request is being carried out."""


class Fault(Enum):
    """Why a staged secret was not confirmed."""

    NOT_TAKEN = auto()  # its sink proved that it has nothing
    UNKNOWN = auto()  # its sink may have it
    INTERRUPTED = auto()  # the run was ended while its sink was taking it
    NOT_BEGUN = auto()  # the run was ended before its sink was asked
    TOO_LATE = auto()  # its claim ended before its sink was asked
    DENIED = auto()  # delivered, and then the caller lost the right to it

    @property
    def nobody_has_it(self) -> bool:
        """Tell whether the key string has certainly not left this process."""
        return self in (Fault.NOT_TAKEN, Fault.NOT_BEGUN, Fault.TOO_LATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A secret between its two transactions.

    After `claim_expires_monotonic`, by the steady clock, its claim is dead.
    """

    key_string: KeyString
    secret: Secret
    claim_expires_monotonic: float
    heads: Sequence[Head] = ()

    @property
    def key_id(self) -> str:
        """Return whose secret it is."""
        return self.secret.key_id


S = TypeVar("S", bound=Staged)
S_contra = TypeVar("S_contra", bound=Staged, contravariant=True)


@dataclass(frozen=True, slots=True)
class Load(Generic[S]):
    """What a sink takes in one go, and how: `deliver` answers as `Sink.deliver` does."""

    staged: Sequence[S]
    deliver: Callable[[], None]


# What a sink answered, None for taken; and what did not arrive, and why not.
_Answer = tuple[Fault, Exception] | None
_Failed = tuple[Load[S], Fault, Exception]


class Rows(Protocol[S_contra]):
    """What the protocol writes and says for one kind of secret."""

    def confirm(
        self, unit: Unit, staged: Sequence[S_contra], run: Run
    ) -> Iterator[KeyctlError | None]:
        """Make the secrets that this run has its claims on active; yield of each why not, if so.

        Events that are noted before a yield are those of its key.

        Raises:
            DeniedError: The caller lost the right to all of them.
        """

    def take_back(
        self, unit: Unit, staged: S_contra, run: Run, fault: "Fault", *, why: str
    ) -> None:
        """Undo the staging and end the claim, if this run still has it."""

    def refusal(self, staged: Sequence[S_contra], fault: "Fault", error: Exception) -> KeyctlError:
        """Return what is said of the secrets of one load that were taken back."""

    def delivered(self, staged: Sequence[S_contra]) -> str:
        """Return the beginning of a sentence: which secrets were delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed(Generic[S]):
    """A secret after both transactions."""

    staged: S
    heads: Sequence[Head]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed(Generic[S]):
    """What became of each key, by id.  What an interruption took back has no outcome.

    `refusals` tell, for each load that was not taken, why. `broken` is what ended it all: an
    interruption, or a database that stayed away.
    """

    outcomes: "dict[str, Confirmed[S] | KeyctlError]"
    refusals: Sequence[KeyctlError] = ()
    broken: BaseException | None = None

    def unless_broken(self) -> dict[str, "Confirmed[S] | KeyctlError"]:
        """Return the outcomes.

        Raises:
            BaseException: What ended the run.
        """
        if self.broken is not None:
            raise self.broken
        return self.outcomes


def claim_for(
    run: Run, key_id: str, *, at: datetime, lasts: timedelta, fingerprint: str | None = None
) -> Claim:
    """Return the claim of *run* on a key: while its sink takes its time, and a little longer."""
    return Claim(
        key_id=key_id,
        run_id=run.id,
        fingerprint=fingerprint,
        staged_at=at,
        deadline_at=at + lasts + run_lock.SLACK,
    )


def steady_end(claim: Claim) -> float:
    """Return when a claim that was written just now ends, by the steady clock."""
    return time.monotonic() + (claim.deadline_at - claim.staged_at).total_seconds()


def until_done(
    wanted: W, attempt: Callable[[W], T], *, again: Callable[[ConstraintError, W], W]
) -> T:
    """Return what *attempt* does, starting over on fresh facts while others change them.

    *again* is asked what to try after a constraint was broken, and raises where nothing helps.

    Raises:
        BusyError: Others keep changing them.
    """
    tries = 0
    while tries < _TRIES:
        try:
            return attempt(wanted)
        except Wait:  # ends with the other run, or at its claim's deadline
            time.sleep(_WAIT)
        except StartOver:
            tries += 1
        except ConstraintError as error:
            tries += 1
            wanted = again(error, wanted)
    raise BusyError("other runs keep changing the same keys", hint="try again")


@dataclass(slots=True, kw_only=True)
class Delivery(Generic[S]):
    """One run's way through the protocol.

    What was confirmed is read back at the end of `hand_over`, or with `reads_later` when whoever
    runs it calls `read_back`: new connections are dear.
    """

    workspace: Workspace
    run: Run
    rows: Rows[S]
    reads_later: bool = False
    _unread: "list[Confirmed[S]]" = field(default_factory=list)
    # What could not be taken back because the database was away: the next hand-over does it.
    _left: "list[_Failed[S]]" = field(default_factory=list)

    # --- transaction 1

    def stage(self, write: Callable[[Unit, list[Claim]], Iterator[S | T]]) -> list[S | T]:
        """Return what *write* yields in one transaction; each staged secret with its own events.

        It yields a staged secret, or what stands for none, when all of it is written. To the list
        it adds the claims of dead runs that it replaced.
        """
        dead: list[Claim] = []
        with writing(self.workspace) as unit:
            outcomes, places = _with_places(unit, write(unit, dead))
        self.run.claimed.update(item.key_id for item in outcomes if isinstance(item, Staged))
        run_lock.bury(self.workspace.database, self.run, dead)
        return [
            replace(item, heads=unit.heads[place]) if isinstance(item, Staged) else item
            for item, place in zip(outcomes, places, strict=True)
        ]

    # --- deliver

    def to_sink(self, staged: S, answer: dict[str, Any], sink: Sink) -> Load[S]:
        """Return the load of one key string, with the answer that goes with it."""
        parcel = Parcel(staged.key_string, answer, self.run.lock, secret_id=staged.secret.id)
        return Load(staged=[staged], deliver=lambda: sink.deliver(parcel))

    def hand_over(
        self, loads: Sequence[Load[S]], *, is_stopped: Callable[[], bool] = lambda: False
    ) -> Handed[S]:
        """Hand each load to its sink; confirm what arrived and take back the rest, however it ends.

        A signal lets the load in hand be finished where *is_stopped* tells of it.

        Raises:
            CorruptedError: What was read back is not what was written.
        """
        answers: list[_Answer] = []
        not_begun = (Fault.NOT_BEGUN, RuntimeError(_ENDED))
        broken: BaseException | None = None
        try:
            while len(answers) < len(loads) and not is_stopped():
                answers.append(self._deliver(loads[len(answers)]))
        except BaseException as error:  # noqa: BLE001  # given back when what arrived is confirmed
            broken = error
            answers.append((Fault.INTERRUPTED, RuntimeError("interrupted")))
        with uninterrupted():
            arrived: list[Load[S]] = []
            failed: list[_Failed[S]] = []
            for number, load in enumerate(loads):
                fault = answers[number] if number < len(answers) else not_begun
                if fault is None:
                    arrived.append(load)
                else:
                    failed.append((load, *fault))
            return self._settle(arrived, failed, broken)

    def _deliver(self, load: Load[S]) -> _Answer:
        """Hand *load* over; return what is wrong if it did not certainly arrive."""
        ends = min((item.claim_expires_monotonic for item in load.staged), default=None)
        if ends is not None and time.monotonic() >= ends:
            # What comes now could overwrite what a successor has delivered meanwhile.
            return Fault.TOO_LATE, RuntimeError(_TOO_LATE)
        try:
            load.deliver()
        except NotTakenError as error:
            return Fault.NOT_TAKEN, error
        except (UnknownError, KeyctlError) as error:
            return Fault.UNKNOWN, error
        return None

    # --- transaction 2

    def _settle(
        self, arrived: Sequence[Load[S]], failed: list[_Failed[S]], broken: BaseException | None
    ) -> Handed[S]:
        """Confirm what arrived, in the transaction that takes the rest back."""
        outcomes: dict[str, Confirmed[S] | KeyctlError] = {}
        staged = [item for load in arrived for item in load.staged]
        try:
            if staged:
                outcomes.update(
                    persist(
                        lambda: self._confirm(staged, failed),
                        delivered=self.rows.delivered(staged),
                    )
                )
                self._forget(staged, failed)
            elif failed or self._left:
                self._take_back(failed)
        except DeniedError as error:
            failed = [*failed, *((load, Fault.DENIED, error) for load in arrived)]
            self._take_back(failed)
        except KeyctlError as error:  # the lock file that stays proves the claims dead
            self._left += failed
            outcomes.update((item.key_id, error) for item in staged)
            broken = broken or error
        refusals = []
        for load, fault, cause in failed:
            if fault not in (Fault.INTERRUPTED, Fault.NOT_BEGUN):
                refusals.append(self.rows.refusal(load.staged, fault, cause))
                outcomes.update((item.key_id, refusals[-1]) for item in load.staged)
        self._unread += [item for item in outcomes.values() if isinstance(item, Confirmed)]
        if not self.reads_later:
            self.read_back()
        return Handed(outcomes=outcomes, refusals=refusals, broken=broken)

    def _confirm(
        self, arrived: Sequence[S], failed: Sequence[_Failed[S]]
    ) -> "dict[str, Confirmed[S] | KeyctlError]":
        with writing(self.workspace) as unit:
            self._undo(unit, failed)
            errors, places = _with_places(unit, self.rows.confirm(unit, arrived, self.run))
        return {
            item.key_id: error or Confirmed(staged=item, heads=unit.heads[place], at=unit.now)
            for item, error, place in zip(arrived, errors, places, strict=True)
        }

    def _take_back(self, failed: Sequence[_Failed[S]]) -> None:
        """Take back what did not arrive, if the database is there.

        If it is away too, the next hand-over does it.  After the last one, the lock file that
        stays behind tells that the claims are dead.
        """
        try:
            with writing(self.workspace, to_finish=True) as unit:
                self._undo(unit, failed)
        except (DatabaseError, BusyError):
            self._left += failed
            return
        self._forget((), failed)

    def _undo(self, unit: Unit, failed: Sequence[_Failed[S]]) -> None:
        for load, fault, error in [*self._left, *failed]:
            for item in load.staged:
                self.rows.take_back(unit, item, self.run, fault, why=str(error))

    def _forget(self, arrived: Sequence[S], failed: Sequence[_Failed[S]]) -> None:
        undone = [*self._left, *failed]
        ended = [*arrived, *(item for load, _, _ in undone for item in load.staged)]
        self.run.claimed.difference_update(item.key_id for item in ended)
        self._left.clear()

    def read_back(self, *, at_least: int = 1) -> None:
        """Compare what was confirmed with what the database holds, on a new connection.

        Only if *at_least* so many secrets were not compared yet.

        Raises:
            CorruptedError: It is not what was written.
            UnconfirmedError: The database stayed away.
        """
        if len(self._unread) < at_least:
            return
        unread, self._unread = self._unread, []
        written = [
            Written(secrets=[item.staged.secret], events=[*item.staged.heads, *item.heads])
            for item in unread
        ]
        told = self.rows.delivered([item.staged for item in unread])
        with uninterrupted():
            persist(
                lambda: check_written(self.workspace.database, written),
                delivered=f"{told} and confirmed",
                left="not read back",
            )


def _with_places(unit: Unit, outcomes: Iterator[T]) -> tuple[list[T], list[slice]]:
    """Return the outcomes, and for each which of the unit's events were noted for it."""
    found: list[T] = []
    places: list[slice] = []
    first = len(unit.events)
    for outcome in outcomes:
        found.append(outcome)
        places.append(slice(first, len(unit.events)))
        first = len(unit.events)
    return found, places
