"""A sink refuses, and the database is away once when that is to be taken back: nothing is confirmed or lost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from clock import Clock
from fleet_files import Fleets
from world import Hand, World, order_of

from keyctl.db import queries
from keyctl.errors import BusyError, DeliveryError
from keyctl.services.audit import AuditService, EventFilter
from keyctl.services.delivery import protocol
from keyctl.services.fleet.service import FleetService
from keyctl.services.issue.generate_many import BulkService, Made
from keyctl.services.repair import CheckService
from keyctl.services.rotate import due, due_keys
from keyctl.services.rotate.due import DueOrder, DueService
from keyctl.services.rotate.due_keys import DueLine
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.transaction import Unit, writing
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Parcel, Sink

# Tells of a transaction, by whether it is one that finishes what was begun, that it fails.
Fails = Callable[[bool], bool]


class Full(Hand):
    """A sink that takes nothing."""

    def deliver(self, parcel: Parcel) -> None:
        """Refuse the key string."""
        raise NotTakenError("full")


def sinks(full: str) -> Callable[[Workspace, str], Sink]:
    """Return what stands for the sinks of the configuration, of which one is full."""

    def named(_: Workspace, name: str) -> Sink:
        sink = Full() if name == full else Hand()
        sink.name = name
        return sink

    return named


def away(fails: Fails) -> Callable[..., object]:
    """Return `writing` with the database away whenever *fails* says so."""

    @contextmanager
    def sometimes(workspace: Workspace, *, to_finish: bool = False) -> Iterator[Unit]:
        if fails(to_finish):
            raise BusyError("the database is busy")
        with writing(workspace, to_finish=to_finish) as unit:
            yield unit

    return sometimes


def once(wanted: Fails) -> Fails:
    """Return what tells of the first transaction only that is *wanted*."""
    left = [True]

    def fails(to_finish: bool) -> bool:
        if not (left and wanted(to_finish)):
            return False
        left.clear()
        return True

    return fails


@pytest.fixture(name="busy")
def _busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the database be away the first time that something is taken back."""
    monkeypatch.setattr(protocol, "writing", away(once(lambda to_finish: to_finish)))


@pytest.fixture(name="world")
def _world(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(workspace)
    names = {name: {"type": "file", "path": f"/{name}/{{key_id}}"} for name in ("full", "good")}
    world.change({"settings": {"sinks": names}})
    monkeypatch.setattr(due_keys, "named_sink", sinks("full"))
    monkeypatch.setattr(due, "GROUP", 2)
    return world


def states(workspace: Workspace, key_id: str) -> list[str]:
    """Return the states of a key's secrets, in the order in which they were made."""
    with workspace.database.read() as connection:
        secrets = queries.secrets_of(connection, key_id)
    return [item.state for item in sorted(secrets, key=lambda item: item.created_at)]


def claimed(workspace: Workspace) -> int:
    """Return how many claims are left."""
    with workspace.database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM claims").scalar_one())


def found(workspace: Workspace) -> list[tuple[str, str]]:
    """Return what `db check` finds: keys, and what is the matter with each."""
    left = CheckService(workspace).check()["left"]
    return sorted((item["key_id"], item["problem"]) for item in left)


def due_keys_of(world: World, clock: Clock, *names: str) -> list[str]:
    """Make a key for each of these sinks that is due, the first the longest."""
    made = []
    for name in names:
        clock.advance(timedelta(seconds=1))
        made.append(world.make({"auto_rotate": True, "rotation_interval": "1h"}, sink=name))
    clock.advance(timedelta(hours=2))
    return made


def rotated(world: World) -> list[tuple[str, str]]:
    """Rotate what is due, and return of each key what became of it."""
    lines = DueService(world.workspace).rotate_due(DueOrder())
    return [(line.key_id, line.result) for line in lines]


class TestRotate:
    def test_leaves_what_is_found_and_made_anew(self, world: World, clock: Clock) -> None:
        key_id = world.make({})
        clock.advance(timedelta(seconds=1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(protocol, "writing", away(once(lambda to_finish: to_finish)))
            with pytest.raises(DeliveryError):
                RotateService(world.workspace).rotate(RotateOrder(given=key_id), Full())

        assert states(world.workspace, key_id) == ["active", "staged"]
        assert found(world.workspace) == [(key_id, "abandoned_secret")]

        clock.advance(timedelta(seconds=1))
        world.rotate(key_id, Hand())

        first, refused, last = states(world.workspace, key_id)
        assert (first == refused, refused in ("retiring", "revoked"), last) == (
            True,
            True,
            "active",
        )
        assert (found(world.workspace), claimed(world.workspace)) == ([], 0)


class TestRotateDue:
    def test_the_next_keys_take_it_back(self, world: World, clock: Clock, busy: None) -> None:
        """With its event, as if the database had been there."""
        keys = due_keys_of(world, clock, "full", "full", "good", "good")

        told = rotated(world)

        results = ["failed", "failed", "rotated", "rotated"]
        assert told == list(zip(keys, results, strict=True))
        assert [states(world.workspace, key_id)[1] for key_id in keys] == [
            *["revoked"] * 2,
            *["active"] * 2,
        ]
        events = AuditService(world.workspace).export(EventFilter())
        failed = [item["object_id"] for item in events if item["action"] == "key_rotation_failed"]
        assert sorted(failed) == sorted(keys[:2])
        assert (found(world.workspace), claimed(world.workspace)) == ([], 0)

    def test_what_the_last_keys_leave_is_found(
        self, world: World, clock: Clock, busy: None
    ) -> None:
        keys = due_keys_of(world, clock, "good", "good", "full", "full")

        told = rotated(world)

        assert [result for _, result in told] == ["rotated", "rotated", "failed", "failed"]
        assert [states(world.workspace, key_id)[1] for key_id in keys[2:]] == ["staged"] * 2
        left = [(key_id, "abandoned_secret") for key_id in sorted(keys[2:])]
        assert found(world.workspace) == left

    def test_so_do_they_where_beside_it_a_key_was_not_confirmed(
        self, world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The delivered key works with both secrets, and is found; the refused one is revoked."""
        keys = due_keys_of(world, clock, "good", "full", "good", "good")
        monkeypatch.setattr("keyctl.services.delivery.confirm.RETRY_SECONDS", 0)
        number = iter(range(100))
        # The first is staged by one transaction and confirmed by the next.
        fails = away(lambda _: next(number) == 1)
        monkeypatch.setattr(protocol, "writing", fails)

        told = rotated(world)

        assert [result for _, result in told] == ["failed", "failed", "rotated", "rotated"]
        assert [states(world.workspace, key_id)[1] for key_id in keys] == [
            *("staged", "revoked"),
            *("active", "active"),
        ]
        assert found(world.workspace) == [(keys[0], "abandoned_secret")]

    def test_tells_of_keys_before_a_database_ends_it_that_stays_away(
        self, world: World, clock: Clock
    ) -> None:
        """And the next run rotates what this one had claimed."""
        keys = due_keys_of(world, clock, "good", "good", "good")
        lines: list[DueLine] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(protocol, "writing", away(lambda _: True))
            patch.setattr(due_keys, "writing", away(lambda to_finish: to_finish))
            with pytest.raises(BusyError):
                lines.extend(DueService(world.workspace).rotate_due(DueOrder()))

        told = [(line.key_id, line.result, line.reason) for line in lines]
        reason = "busy: the database is busy"
        assert told == [(key_id, "failed", reason) for key_id in keys[:2]]
        assert rotated(world) == [(key_id, "rotated") for key_id in keys]
        assert (found(world.workspace), claimed(world.workspace)) == ([], 0)


class TestGenerateMany:
    def test_what_a_batch_leaves_is_found_and_made_anew(self, world: World, busy: None) -> None:
        """What was made before it stays; the same command makes what is missing."""
        told: list[Made] = []
        order = order_of({"team_id": "web", "key_alias": "ci-{n}"})

        def deliver(made: Sequence[Made]) -> None:
            if told:
                raise NotTakenError("full")
            told.extend(made)

        service = BulkService(world.workspace)
        with pytest.raises(DeliveryError):
            service.generate(order, 4, deliver, batch=2)

        works = [str(item.answer and item.answer["key_id"]) for item in told]
        assert [states(world.workspace, key_id) for key_id in works] == [["active"]] * 2
        assert [problem for _, problem in found(world.workspace)] == ["pending"] * 2
        assert not {key_id for key_id, _ in found(world.workspace)} & set(works)

        assert service.generate(order, 4, lambda _: None, batch=4) == (2, 2)
        assert (found(world.workspace), claimed(world.workspace)) == ([], 0)


class TestApply:
    FLEET = """
    teams: {t: {}}
    keys: {a: {team_id: t, deliver: still}, b: {team_id: t, deliver: files}}
    """

    @pytest.fixture(name="fleets")
    def _fleets(self, workspace: Workspace, tmp_path: Path) -> Fleets:
        return Fleets.at(workspace, tmp_path / "keys")

    @pytest.mark.parametrize(("refuses", "name"), [("still", "a"), ("files", "b")])
    def test_makes_no_key_that_nobody_has(
        self, fleets: Fleets, monkeypatch: pytest.MonkeyPatch, refuses: str, name: str
    ) -> None:
        """The next batch takes it back, or the next run, which makes the key."""
        fleets.apply("teams: {t: {}}")
        monkeypatch.setattr("keyctl.services.issue.generate_each.batch_size", lambda _: 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("keyctl.services.fleet.jobs.named_sink", sinks(refuses))
            patch.setattr(protocol, "writing", away(once(lambda to_finish: to_finish)))
            done = list(FleetService(fleets.workspace).apply(fleets.order(self.FLEET)).keys)

        assert [item.job.alias for item in done if item.error is not None] == [name]
        left = [problem for _, problem in found(fleets.workspace)]
        assert left == (["pending"] if name == "b" else [])
        assert fleets.apply(self.FLEET) == [name]
        assert (found(fleets.workspace), claimed(fleets.workspace)) == ([], 0)
