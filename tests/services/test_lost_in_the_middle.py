"""A caller who loses the right to act in the middle of any long command writes nothing from the next transaction on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from fleet_files import Fleets
from holders import Held, Holder, operator
from litellm_tables import LiteLLM, key
from migrating import events
from world import Hand, World

from keyctl.db.litellm_source import opened
from keyctl.errors import KeyctlError
from keyctl.records import Team, User
from keyctl.services import budgets
from keyctl.services.budgets import BudgetService
from keyctl.services.directory import DirectoryService
from keyctl.services.fleet.service import FleetService
from keyctl.services.import_litellm import service as importing
from keyctl.services.import_litellm.report import ImportOrder
from keyctl.services.import_litellm.service import ImportService
from keyctl.services.issue.generate_each import EachService
from keyctl.services.issue.generate_rows import RowsService, read_rows
from keyctl.services.keys import end
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update_many import ManyChangesService
from keyctl.services.members import MemberService
from keyctl.services.rotate.due import DueOrder, DueService
from keyctl.services.rotate.many import ManyRotationsService
from keyctl.services.workspace import Workspace

# What takes back what was begun, whoever the caller is.
TAKEN_BACK = {"key_archived", "key_rotation_failed", "secret_revoked"}


@dataclass
class Stage:
    """A world in which somebody acts, with what takes the right from them."""

    world: World
    local: Holder
    caller: Held
    lose: Callable[[], object]
    lost_at: int = -1

    @property
    def workspace(self) -> Workspace:
        """Return what services work with when the caller acts."""
        return self.caller.workspace

    def now(self, *_: object) -> None:
        """Take the right away, once."""
        if self.lost_at < 0:
            self.lose()
            self.lost_at = len(events(self.world.workspace))

    def after(self) -> list[str]:
        """Return the actions of all events since then."""
        assert self.lost_at > 0
        return [event.action for event in events(self.world.workspace)[self.lost_at :]]

    def count(self, action: str) -> int:
        """Return how many events there are of an action."""
        return [event.action for event in events(self.world.workspace)].count(action)


@pytest.fixture(name="world")
def _world(workspace: Workspace, tmp_path: Path) -> World:
    world = World(workspace)
    box = {"type": "file", "path": f"{tmp_path}/{{key_id}}"}
    world.change({"settings": {"sinks": {"box": box}, "default_sink": "box"}})
    return world


def _lost(
    world: World, local: Holder, caller: Held, clock: Clock, how: str
) -> Callable[[], object]:
    user = caller.answer["user_id"]
    directory, members = DirectoryService(world.workspace), MemberService(world.workspace)
    below = "internal_user" if user == "root" else "internal_user_viewer"
    return {
        "deleted": lambda: local.end("delete", caller.key_id),
        "blocked": lambda: local.end("block", caller.key_id),
        "expired": lambda: clock.advance(timedelta(days=2)),
        "demoted": lambda: directory.update(User, user, {"role": below}, keys="keep"),
        "removed": lambda: members.remove(Team, "web", user, keys="keep"),
    }[how]


HOW = ("deleted", "blocked", "expired", "demoted")


@pytest.fixture(
    name="stage", params=[*(f"root {how}" for how in HOW), "tina removed", "tina demoted"]
)
def _stage(request: pytest.FixtureRequest, world: World, clock: Clock) -> Stage:
    user, how = request.param.split()
    local = operator(world)
    DirectoryService(world.workspace).update(User, "root", {"role": "proxy_admin"})
    place = {"team_id": "web"} if user == "tina" else {}
    caller = local.generate({"user_id": user, "duration": "1d", **place})
    return Stage(world, local, caller, _lost(world, local, caller, clock, how))


@pytest.fixture(name="admin", params=HOW)
def _admin(request: pytest.FixtureRequest, world: World, clock: Clock) -> Stage:
    local = operator(world)
    DirectoryService(world.workspace).update(User, "root", {"role": "proxy_admin"})
    caller = local.generate({"user_id": "root", "duration": "1d"})
    return Stage(world, local, caller, _lost(world, local, caller, clock, request.param))


def some(stage: Stage, count: int = 3, **fields: Any) -> list[str]:
    """Make keys of the team, and return their ids."""
    body = {"team_id": "web", **fields}
    return [stage.local.generate(body).key_id for _ in range(count)]


def to_the_end(lines: Iterator[Any], stage: Stage) -> None:
    """Take the right away after the first line, and run on as far as it goes."""
    try:
        for line in lines:
            stage.now(line)
    except KeyctlError:
        return


def is_quiet(actions: list[str]) -> bool:
    """Tell whether nothing but refusals and what takes back was written."""
    return all(action.endswith("_denied") or action in TAKEN_BACK for action in actions)


class TestKeys:
    def test_rotate_due(self, stage: Stage, clock: Clock) -> None:
        """More keys than are claimed at once."""
        keys = some(stage, 20, auto_rotate=True, rotation_interval="1h")
        clock.advance(timedelta(hours=2))
        to_the_end(iter(DueService(stage.workspace).rotate_due(DueOrder())), stage)
        assert is_quiet(stage.after()), stage.after()
        rotated = [key_id for key_id in keys if stage.local.info(key_id)["rotation_count"]]
        assert 1 <= len(rotated) < 20

    def test_generate_from_a_list(self, stage: Stage) -> None:
        """All three, which were staged together, are taken back: the one in hand too."""

        class Losing(Hand):
            def deliver(self, parcel: Any) -> None:
                super().deliver(parcel)
                stage.now()

        rows = read_rows([(str(n), {"team_id": "web", "key_alias": f"ci-{n}"}) for n in range(3)])
        service = RowsService(workspace=stage.workspace)
        jobs = service.jobs(service.judge(rows), lambda _: Losing())
        to_the_end(iter(EachService(stage.workspace).generate(jobs)), stage)
        assert stage.after() == ["key_archived"] * 3

    @pytest.mark.parametrize("verb", ["block", "delete", "update"])
    def test_bulk(self, stage: Stage, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What comes in the next batch is left alone."""
        monkeypatch.setattr(end, "BATCH", 1)
        keys = some(stage)
        ending = EndingService(stage.workspace)
        if verb == "block":
            done = ending.block(keys, blocked=True, told=stage.now)
        elif verb == "delete":
            done = ending.delete(keys, told=stage.now)
        else:
            many = ManyChangesService(stage.workspace)
            done = many.update(keys, {"rpm_limit": 1}, told=stage.now)
        assert [item.error is None for item in done] == [True, False, False]
        assert is_quiet(stage.after()), stage.after()

    def test_rotate_many(self, stage: Stage) -> None:
        """The next key is left alone."""
        keys = some(stage, auto_rotate=True, rotation_interval="1d")
        many = ManyRotationsService(
            workspace=stage.workspace, grace=None, sink=None, administers=False
        )
        to_the_end(iter(many.rotate(many.judge(keys))), stage)
        assert is_quiet(stage.after()), stage.after()
        assert stage.count("key_rotated") == 1


FLEET = """
version: 1
teams: {new: {max_budget: 5}}
keys:
  a-{n}: {count: 3, team_id: new, deliver: files}
"""


class TestWhatIsForAdmins:
    def test_apply_between_plan_and_write(self, admin: Stage, tmp_path: Path) -> None:
        """Who was asked whether to go on, and is no admin when the answer comes, writes nothing."""
        fleets = Fleets.at(admin.workspace, tmp_path / "keys")
        with pytest.raises(KeyctlError):
            fleets.apply(FLEET, agreed=admin.now)
        assert admin.after() == ["fleet_apply_denied"]

    def test_apply_between_owners_and_keys(self, admin: Stage, tmp_path: Path) -> None:
        """The team is there, no key is."""
        fleets, before = Fleets.at(admin.workspace, tmp_path / "keys"), admin.count("team_created")
        applied = FleetService(fleets.workspace).apply(fleets.order(FLEET))
        admin.now()
        to_the_end(iter(applied.keys), admin)
        assert is_quiet(admin.after()), admin.after()
        assert admin.count("team_created") == before + 1
        assert list((tmp_path / "keys").iterdir()) == []

    @pytest.mark.parametrize("administers", [False, True])
    def test_import(
        self,
        admin: Stage,
        litellm: LiteLLM,
        administers: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The rows of the batches that were committed stay."""
        monkeypatch.setattr(importing, "_LARGEST_BATCH", 1)
        monkeypatch.setattr(importing, "_SMALLEST_BATCH", 1)
        litellm.add("keys", *(key(f"sk-1234567890abcdefghijk{n}") for n in range(4)))
        with opened(litellm.url) as source:
            order = ImportOrder(administers=administers)
            to_the_end(ImportService(admin.workspace).run(source, order), admin)
        assert is_quiet(admin.after()), admin.after()
        assert admin.count("key_imported") == 1

    def test_budget_reset(
        self, admin: Stage, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next chunk's periods begin when an admin runs it."""
        monkeypatch.setattr(budgets, "_CHUNK", 1)
        some(admin, max_budget=1, budget_duration="1h")
        clock.advance(timedelta(hours=2))
        to_the_end(BudgetService(admin.workspace).reset_due(), admin)
        assert is_quiet(admin.after()), admin.after()
        assert admin.count("budget_reset") == 1
