"""The delivery protocol: each key of a run ends as its own sink answered, whatever became of others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from clock import Clock
from world import CALLERS, Hand, World, order_of

from keyctl.db import queries
from keyctl.errors import (
    AliasTakenError,
    BusyError,
    CorruptedError,
    DeliveryError,
    KeyctlError,
    Violation,
)
from keyctl.services.authorize.new_keys import NewKey
from keyctl.services.delivery import protocol, run_lock
from keyctl.services.delivery.protocol import Delivery
from keyctl.services.issue.generate_each import Done, EachService, Job
from keyctl.services.issue.generate_many import BulkService, Made
from keyctl.services.issue.generate_rows import RowsService, read_rows
from keyctl.services.issue.minting import minted
from keyctl.services.issue.new_key import NewKeyRows
from keyctl.services.issue.order import new_key_id
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.keys.update_many import ManyChangesService
from keyctl.services.repair import CheckService
from keyctl.services.rotate.due import GROUP, DueOrder, DueService
from keyctl.services.rotate.due_keys import DueLine
from keyctl.services.transaction import Unit, writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Parcel, Target, UnknownError


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    return World(workspace)


class Answering(Hand):
    """A sink that takes the key string, and then answers as it was told to."""

    def __init__(self, answer: BaseException | None = None) -> None:
        super().__init__()
        self._answer = answer

    def deliver(self, parcel: Parcel) -> None:
        """Take the key string."""
        super().deliver(parcel)
        if self._answer is not None:
            raise self._answer


def jobs(*answers: BaseException | None) -> list[Job]:
    """Return a key for each answer of its sink: ``ci-0``, ``ci-1``, …"""
    return [
        Job(
            wanted=NewKey(values={"team_id": "web"}),
            alias=f"ci-{number}",
            sink=Answering(answer),
            key_id=new_key_id(),
            target=Target(key_id=None),
        )
        for number, answer in enumerate(answers)
    ]


def states(world: World, key_ids: Sequence[str]) -> list[tuple[bool, str]]:
    """Return of each key whether it lives, and the state of its secret."""
    with world.workspace.database.read() as connection:
        keys = {key.id: key for key in queries.find_keys(connection, sorted(key_ids))}
        secrets = {item.key_id: item for item in queries.secrets_of(connection, *key_ids)}
    return [(keys[key_id].deleted_at is None, secrets[key_id].state) for key_id in key_ids]


def claims(world: World) -> int:
    """Return how many claims are left."""
    with world.workspace.database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM claims").scalar_one())


class Asking(Hand):
    """A sink in whose hands the key is while somebody else does something."""

    def __init__(self, ask: Callable[[], object]) -> None:
        super().__init__()
        self._ask = ask

    def deliver(self, parcel: Parcel) -> None:
        """Let the other do it, and take the key string."""
        self._ask()
        super().deliver(parcel)


class TestAnAliasThatIsBeingDelivered:
    @pytest.mark.parametrize("way", ["one", "many", "each"])
    def test_says_so_and_what_to_do(self, world: World, way: str) -> None:
        """Whoever asks for it learns that another run has the key in hand, and until when."""
        said: list[KeyctlError] = []
        wanted = {"team_id": "web", "key_alias": "ci-0"}

        def ask() -> None:
            if way == "one":
                with pytest.raises(AliasTakenError) as caught:
                    world.make(wanted)
                said.append(caught.value)
            elif way == "many":
                order = order_of({**wanted, "key_alias": "ci-{n}"})
                BulkService(world.workspace).generate(replace(order), 1, told)
            else:
                said.extend(
                    item.error
                    for item in EachService(world.workspace).generate(jobs(None))
                    if item.error
                )

        def told(made: Sequence[Made]) -> None:
            said.extend(item.error for item in made if item.error)

        if way == "many":
            wanted["key_alias"] = "ci-1"
        key_id = world.make(wanted, hand=Asking(ask))

        (error,) = said
        assert (error.code, error.message) == (
            "alias_taken",
            f"alias {wanted['key_alias']!r} is taken by key {key_id}, which another run is still delivering",
        )
        assert error.hint is not None
        assert "without a confirmation the alias is free from 20" in error.hint

    def test_is_only_taken_for_who_may_not_see_the_key(self, world: World) -> None:
        """A stranger learns no id, and not that anybody is at work."""
        said: list[str] = []

        def ask() -> None:
            with pytest.raises(AliasTakenError) as caught:
                world.make({"key_alias": "ci-0"}, CALLERS["internal_user"])
            said.append(caught.value.message)

        world.make({"team_id": "else", "key_alias": "ci-0"}, hand=Asking(ask))

        assert said == ["alias 'ci-0' is taken by a live key"]

    @pytest.mark.parametrize("way", ["generate", "rows", "update", "updates"])
    def test_is_seen_by_a_dry_run_too(self, world: World, way: str) -> None:
        """It says what the run would say at that moment."""
        said: list[KeyctlError] = []
        other = world.make({"team_id": "web", "key_alias": "other"})
        change = {"key_alias": "ci-0"}

        def ask() -> None:
            if way == "generate":
                with pytest.raises(AliasTakenError) as caught:
                    world.verdict(change)
                said.append(caught.value)
            elif way == "rows":
                rows = read_rows([("1", change)])
                said.extend(
                    row.error for row in RowsService(world.workspace).judge(rows) if row.error
                )
            elif way == "update":
                for judge in (ChangeService.dry_run, ChangeService.update):
                    with pytest.raises(AliasTakenError) as caught:
                        judge(ChangeService(world.workspace), other, change)
                    said.append(caught.value)
            else:
                for _, verdict in ManyChangesService(world.workspace).judge([other], change):
                    assert isinstance(verdict, KeyctlError)
                    said.append(verdict)

        key_id = world.make({"team_id": "web", "key_alias": "ci-0"}, hand=Asking(ask))

        assert {error.message for error in said} == {
            f"alias 'ci-0' is taken by key {key_id}, which another run is still delivering"
        }

    def test_that_a_live_key_has_is_seen_by_a_dry_run_of_update(self, world: World) -> None:
        """And a key may be given the alias that it has."""
        world.make({"team_id": "web", "key_alias": "ci-0"})
        other = world.make({"team_id": "web", "key_alias": "other"})
        service = ChangeService(world.workspace)

        with pytest.raises(AliasTakenError):
            service.dry_run(other, {"key_alias": "ci-0"})

        assert service.dry_run(other, {"key_alias": "other"}).violations == []

    def test_makes_way_for_a_dry_run_once_its_run_is_dead(self, world: World) -> None:
        """As it does for the run itself."""
        wanted = {"team_id": "web", "key_alias": "ci-0"}
        rules: list[list[Violation]] = []

        def ask() -> None:
            with world.workspace.database.write() as connection:
                connection.exec_driver_sql("UPDATE claims SET deadline_at = staged_at")
            rules.append(list(world.verdict(wanted).violations))

        world.make(wanted, hand=Asking(ask))

        assert rules == [[]]


class TestHandOver:
    def test_takes_back_what_did_not_arrive_and_confirms_the_rest(self, world: World) -> None:
        """Two sinks fail in their two ways; the keys before, between and after them work."""
        wanted = jobs(None, NotTakenError("full"), None, UnknownError("silence"), None)

        done = list(EachService(world.workspace).generate(wanted))

        works, gone = (True, "active"), (False, "revoked")
        assert states(world, [job.key_id for job in wanted]) == [works, gone, works, gone, works]
        assert [None if item.error is None else item.error.message for item in done] == [
            None,
            "the key was not delivered: full",
            None,
            "the key was not delivered: silence",
            None,
        ]
        assert claims(world) == 0

    def test_confirms_what_arrived_before_an_interruption(self, world: World) -> None:
        """The key in hand and those not begun are archived; Ctrl-C goes on to who asked."""
        wanted = jobs(None, KeyboardInterrupt(), None)

        with pytest.raises(KeyboardInterrupt):
            list(EachService(world.workspace).generate(wanted))

        works, gone = (True, "active"), (False, "revoked")
        assert states(world, [job.key_id for job in wanted]) == [works, gone, gone]
        assert claims(world) == 0

    def test_asks_no_sink_when_the_claim_has_ended(self, world: World) -> None:
        """What comes so late could overwrite what a successor has delivered."""
        sink = Answering()
        job = replace(jobs(None)[0], sink=sink)
        service = EachService(world.workspace)
        rows = NewKeyRows(workspace=world.workspace)
        with run_lock.begun(world.workspace.runs_folder) as run:
            delivery = Delivery(workspace=world.workspace, run=run, rows=rows)
            (keys,) = minted(world.workspace, 1, 1)
            (staged,) = delivery.stage(lambda unit, _: service.write(unit, [(job, keys[0])], run))
            assert not isinstance(staged, KeyctlError)
            late = replace(staged, claim_expires_monotonic=0)
            handed = delivery.hand_over([delivery.to_sink(late, {}, sink)])

        (why,) = handed.refusals
        assert isinstance(why, DeliveryError)
        assert why.message == "the key was not delivered: its claim ended before it was delivered"
        assert (sink.held, states(world, [job.key_id])) == ("", [(False, "revoked")])

    def test_a_batch_loses_only_the_keys_that_were_deleted_meanwhile(self, world: World) -> None:
        """The error names them; the others of the batch were delivered, and work."""
        batches: list[Sequence[Made]] = []

        def deliver(made: Sequence[Made]) -> None:
            batches.append(made)
            gone = [item.answer["key_id"] for item in made[1:2] if item.answer]
            EndingService(world.workspace).delete(gone)

        order = order_of({"team_id": "web", "key_alias": "ci-{n}"})
        with pytest.raises(DeliveryError) as caught:
            BulkService(world.workspace).generate(order, 3, deliver)

        ids = [item.answer["key_id"] for item in batches[0] if item.answer]
        works, gone = (True, "active"), (False, "revoked")
        assert states(world, ids) == [works, gone, works]
        assert caught.value.message == (
            "1 of these keys were deleted, or taken over by another run,"
            f" before they could be confirmed: {ids[1]}"
        )
        assert claims(world) == 0


class TestADatabaseThatIsAwayForTheTakingBack:
    """What a sink refused is never confirmed, however long its claim outlives the refusal."""

    @pytest.fixture(name="busy")
    def _busy(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Let the database be busy when what failed is taken back: as often as the list says."""
        times = [1]

        @contextmanager
        def sometimes(workspace: Workspace, *, to_finish: bool = False) -> Iterator[Unit]:
            if to_finish and times[0]:
                times[0] -= 1
                raise BusyError("the database is busy")
            with writing(workspace, to_finish=to_finish) as unit:
                yield unit

        monkeypatch.setattr(protocol, "writing", sometimes)
        monkeypatch.setattr("keyctl.services.issue.generate_each.batch_size", lambda _: 2)
        return times

    def test_the_next_transaction_takes_it_back(self, world: World, busy: list[int]) -> None:
        wanted = jobs(NotTakenError("full"), NotTakenError("full"), None, None)

        done = list(EachService(world.workspace).generate(wanted))

        works, gone = (True, "active"), (False, "revoked")
        assert busy == [0]
        assert states(world, [job.key_id for job in wanted]) == [gone, gone, works, works]
        assert [item.error is None for item in done] == [False, False, True, True]
        assert claims(world) == 0

    def test_so_does_one_in_which_nothing_arrived(self, world: World, busy: list[int]) -> None:
        wanted = jobs(*[NotTakenError("full")] * 4)

        list(EachService(world.workspace).generate(wanted))

        assert busy == [0]
        assert states(world, [job.key_id for job in wanted]) == [(False, "revoked")] * 4
        assert claims(world) == 0

    def test_what_the_last_one_leaves_is_found(self, world: World, busy: list[int]) -> None:
        """The lock file of the run stays: it proves that the claims are dead."""
        wanted = jobs(None, None, NotTakenError("full"), NotTakenError("full"))

        list(EachService(world.workspace).generate(wanted))

        works, pending = (True, "active"), (True, "staged")
        assert states(world, [job.key_id for job in wanted]) == [works, works, pending, pending]
        left = CheckService(world.workspace).check()["left"]
        assert sorted(item["key_id"] for item in left) == sorted(job.key_id for job in wanted[2:])

    def test_a_claim_alone_confirms_nothing(self, world: World) -> None:
        """Two hand-overs of one run: each confirms its own keys."""
        first, second = jobs(None, None)
        service = EachService(world.workspace)
        rows = NewKeyRows(workspace=world.workspace)
        with run_lock.begun(world.workspace.runs_folder) as run:
            delivery = Delivery(workspace=world.workspace, run=run, rows=rows)
            (keys,) = minted(world.workspace, 2, 2)
            pairs = list(zip((first, second), keys, strict=True))
            staged = delivery.stage(lambda unit, _: service.write(unit, pairs, run))
            assert not isinstance(staged[1], KeyctlError)
            delivery.hand_over([delivery.to_sink(staged[1], {}, second.sink)])

        found = states(world, [first.key_id, second.key_id])
        assert (found, claims(world)) == ([(True, "staged"), (True, "active")], 1)


def wrong(*_: object) -> None:
    """Find that what is stored is not what was written."""
    raise CorruptedError("a secret is not stored as it was written")


class TestARunThatReadsBack:
    """What is wrong with one secret hides none of the lines of the keys beside it."""

    def test_has_told_of_every_new_key_before(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protocol, "check_written", wrong)
        done: list[Done] = []

        with pytest.raises(CorruptedError):
            done.extend(
                EachService(world.workspace).generate(jobs(None, NotTakenError("full"), None))
            )

        assert [item.error is None for item in done] == [True, False, True]

    def test_has_told_of_every_rotation_before(
        self, world: World, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        box = {"type": "file", "path": f"{tmp_path}/{{key_id}}"}
        world.change({"settings": {"sinks": {"box": box}, "default_sink": "box"}})
        for _ in range(GROUP + 1):
            world.make({"auto_rotate": True, "rotation_interval": "1h"})
        clock.advance(timedelta(hours=2))
        monkeypatch.setattr(protocol, "check_written", wrong)
        monkeypatch.setattr("keyctl.services.rotate.due._CHECKED_AT_ONCE", GROUP)
        lines: list[DueLine] = []

        with pytest.raises(CorruptedError):
            lines.extend(DueService(world.workspace).rotate_due(DueOrder()))

        assert [line.result for line in lines] == ["rotated"] * GROUP
