"""People are told in time what ends, is late or is spent: each once, and again when it changes."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from harness import Cli
from sqlalchemy import insert, text
from world import World

from keyctl.actions import REMINDERS
from keyctl.db.tables import meters
from keyctl.services.audit import AuditService
from keyctl.services.budgets import BudgetService
from keyctl.services.members import MemberService
from keyctl.services.metrics import MetricsService
from keyctl.services.remind import RemindService
from keyctl.services.workspace import Workspace


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    world = World(workspace)
    world.change({"settings": {"hooks": {"h": {"type": "python", "function": "m:f"}}}})
    return world


def told(world: World) -> list[str]:
    """Return the events that a run tells, each with the alias or the id it is about."""
    found = RemindService(world.workspace).remind()
    return [f"{item['event']} {item['key_alias'] or item['object_id']}" for item in found]


def waiting(world: World) -> list[str]:
    """Return the reminders in the outbox, in order."""
    with world.workspace.database.read() as connection:
        rows = connection.execute(text("SELECT event FROM outbox ORDER BY seq")).scalars()
        return [event for event in rows if event in REMINDERS]


class TestKeys:
    def test_that_end_are_told_once_before_and_once_after(self, world: World, clock: Clock) -> None:
        world.make({"key_alias": "a", "duration": "10d"})
        assert told(world) == []
        clock.advance(timedelta(days=4))
        assert told(world) == ["key_expiring a"]
        clock.advance(timedelta(days=1))
        assert told(world) == []
        clock.advance(timedelta(days=6))
        assert told(world) == ["key_expired a"]
        assert told(world) == []
        assert waiting(world) == ["key_expiring", "key_expired"]

    def test_whose_end_is_put_off_are_told_again(self, world: World, clock: Clock) -> None:
        """The moment that it was about has changed."""
        key_id = world.make({"key_alias": "a", "duration": "6d"})
        assert told(world) == ["key_expiring a"]
        later = clock.now + timedelta(days=5)
        with world.workspace.database.write() as connection:
            connection.execute(
                text("UPDATE keys SET expires = :later WHERE id = :id"),
                {
                    "later": later
                    if not world.workspace.database.is_sqlite
                    else str(later)[:19] + ".000000",
                    "id": key_id,
                },
            )
        assert told(world) == ["key_expiring a"]
        assert told(world) == []

    def test_that_are_not_rotated_in_time_are_told(self, world: World, clock: Clock) -> None:
        world.make({"key_alias": "a", "auto_rotate": True, "rotation_interval": "30d"})
        assert told(world) == []
        clock.advance(timedelta(days=30))
        assert told(world) == ["rotation_overdue a"]
        assert told(world) == []


class TestBudgets:
    def test_are_told_at_each_step_and_in_each_period(self, world: World, clock: Clock) -> None:
        world.change({"settings": {"reminders": {"budget_at_percent": [50, 80]}}})
        world.make({"key_alias": "a", "max_budget": 10, "soft_budget": 7, "budget_duration": "30d"})
        budgets = BudgetService(world.workspace)
        budgets.add("a", 5_000_000_000)
        assert told(world) == ["budget_at_percent a"]
        budgets.add("a", 2_000_000_000)
        assert told(world) == ["budget_soft_exceeded a"]
        budgets.add("a", 3_000_000_000)
        assert told(world) == ["budget_at_percent a", "budget_exceeded a"]
        assert told(world) == []
        clock.advance(timedelta(days=30))
        assert told(world) == []  # a period that is over counts as new
        list(BudgetService(world.workspace).reset_due())
        budgets.add("a", 10_000_000_000)
        assert sorted(told(world)) == [
            "budget_at_percent a",
            "budget_at_percent a",
            "budget_exceeded a",
            "budget_soft_exceeded a",
        ]

    def test_of_teams_are_told_too(self, world: World) -> None:
        world.change({"team": {"max_budget": 0}})
        assert told(world) == ["budget_exceeded web"]

    def test_that_are_spent_again_after_a_correction_are_told_again(self, world: World) -> None:
        world.make({"key_alias": "a", "max_budget": 1})
        budgets = BudgetService(world.workspace)
        budgets.add("a", 1_000_000_000)
        assert "budget_exceeded a" in told(world)
        budgets.reset("a")
        assert told(world) == []
        budgets.add("a", 1_000_000_000)
        assert "budget_exceeded a" in told(world)


class TestMeteredBudgets:
    def spend(self, world: World, table: str, object_id: str, meter: str, **row: Any) -> None:
        """Write what a gateway that charges this budget writes."""
        with world.workspace.database.write() as connection:
            values = {"object_table": table, "object_id": object_id, "meter": meter, **row}
            connection.execute(insert(meters), values)

    def test_are_told_by_name_and_shown_as_metrics(self, world: World, clock: Clock) -> None:
        """Of a key, a team, an organization and a member; the tokens of a day are none of it."""
        key_id = world.make(
            {
                "key_alias": "a",
                "budget_limits": [{"budget_duration": "1d", "max_budget": 10}],
                "model_max_budget": {"gpt-4o": {"max_budget": 4, "budget_duration": "30d"}},
                "tpd_limit": 5,
            }
        )
        MemberService(world.workspace).update("web", "ada", {"max_budget": 2})
        at, later = clock.now, clock.now + timedelta(hours=9)
        day = {"budget_anchor_at": at, "budget_reset_at": later}
        self.spend(world, "keys", key_id, "window:1d", spend=8 * 10**9, budget_duration="1d", **day)
        self.spend(world, "keys", key_id, "model:gpt-4o", spend=10**9, budget_duration="30d", **day)
        self.spend(world, "keys", key_id, "tokens:daily", spend=9, budget_duration="daily", **day)
        self.spend(world, "teams", "web", "member:ada", spend=2 * 10**9, budget_anchor_at=at)
        world.change({"team": {"budget_limits": [{"budget_duration": "1d", "max_budget": 4}]}})
        self.spend(
            world, "teams", "web", "window:1d", spend=36 * 10**8, budget_duration="1d", **day
        )
        world.change({"organization": {"model_max_budget": {"o1": {"max_budget": 1}}}})
        self.spend(world, "organizations", "acme", "model:o1", spend=9 * 10**8, budget_anchor_at=at)
        world.change({"settings": {"reminders": {"budget_at_percent": [80]}}})

        found = RemindService(world.workspace).remind()

        assert [(item["event"], item["object_id"], item["budget"]) for item in found] == [
            ("budget_at_percent", key_id, "window:1d"),
            ("budget_at_percent", "web", "window:1d"),
            ("budget_at_percent", "acme", "model:o1"),
            ("budget_at_percent", "web", "member:ada"),
            ("budget_exceeded", "web", "member:ada"),
        ]
        assert RemindService(world.workspace).remind() == []
        told = MetricsService(world.workspace).text()
        line = (
            f'keyctl_budget_used_ratio{{budget="window:1d",object_id="{key_id}",object_type="key"}}'
        )
        assert f"{line} 0.8" in told
        assert 'budget="member:ada"' in told
        assert "tokens:" not in told
        clock.advance(timedelta(hours=10))  # the day is over: it counts as new
        assert "window:1d" not in MetricsService(world.workspace).text()
        AuditService(world.workspace).verify(state=True, step=lambda: None)


class TestARun:
    def test_that_only_looks_writes_nothing(self, world: World) -> None:
        world.make({"key_alias": "a", "duration": "1d"})
        service = RemindService(world.workspace)
        assert [item["event"] for item in service.due()] == ["key_expiring"]
        assert waiting(world) == []
        assert [item["event"] for item in service.remind()] == ["key_expiring"]
        assert service.due() == []

    def test_says_nothing_of_rows(self, world: World) -> None:
        """A reminder is no change: `audit verify --state` compares nothing with it."""
        world.make({"key_alias": "a", "duration": "1d", "max_budget": 0})
        RemindService(world.workspace).remind()
        AuditService(world.workspace).verify(state=True, step=lambda: None)

    def test_says_what_no_hook_is_told_of(self, world: World) -> None:
        world.make({"key_alias": "a", "duration": "1d"})
        alone = replace(
            world.workspace,
            warnings=[],
            settings=replace(world.workspace.settings, hooks={}),
        )
        RemindService(alone).remind()
        assert alone.warnings == [
            "no hook is set for key_expiring: it is told here and in the audit trail only"
        ]


COLLECT = """#!/bin/sh
{ cat; env | sort | tr '\\n' ' '; echo; } >> "$1"
"""


@pytest.mark.parametrize("kind", ["sqlite"])
class TestACommandHook:
    def hook(self, cli: Cli, tmp_path: Path, *argv: str) -> None:
        arguments = json.dumps(argv)
        cli.configure(
            f'bcrypt_cost = 4\n[hooks.reload]\ntype = "command"\nargv = {arguments}\ntimeout = "1s"\n'
        )

    def test_gets_the_event_and_none_of_the_credentials(self, cli: Cli, tmp_path: Path) -> None:
        """One line of JSON on standard input, an environment without keyctl's variables."""
        program, out = tmp_path / "collect", tmp_path / "out"
        program.write_text(COLLECT)
        program.chmod(0o700)
        self.hook(cli, tmp_path, str(program), str(out))
        cli("generate", "--alias", "a", "--duration", "1d", check=True)
        cli("remind", check=True)
        lines = out.read_text().splitlines()
        events = [json.loads(line) for line in lines[::2]]
        assert [event["type"] for event in events] == ["key_generated", "key_expiring"]
        assert events[1]["data"]["key"]["key_alias"] == "a"
        assert set(events[1]["data"]["reminder"]) == {"expires"}
        assert "KEYCTL" not in lines[1]

    @pytest.mark.parametrize("argv", [["false"], ["sleep", "60"], ["/no/such/program"]])
    def test_that_fails_is_tried_again(self, cli: Cli, tmp_path: Path, argv: list[str]) -> None:
        """The change is made; the event stays in the outbox."""
        self.hook(cli, tmp_path, *argv)
        done = cli("generate", check=True)
        assert "tried again by keyctl events deliver" in done.stderr
        (event,) = cli("events", "list", "-o", "json").json["events"]
        assert event["attempts"] == 1
        self.hook(cli, tmp_path, "true")
        cli("events", "retry", "--all", check=True)
        assert cli("events", "list", "-o", "json").json["events"] == []

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["/no/such/program"], "there is no program '/no/such/program'; check argv"),
            (["curl -H sk-secret"], "what stands first in argv is no program; write the program"),
        ],
    )
    def test_without_its_program_says_which(
        self, cli: Cli, tmp_path: Path, argv: list[str], said: str
    ) -> None:
        """The warning and the outbox name the program and what to check, and no argument."""
        self.hook(cli, tmp_path, *argv)

        done = cli("generate", check=True)

        assert f"warning: hooks.reload: hook reload: {said}" in done.stderr
        (event,) = cli("events", "list", "-o", "json").json["events"]
        assert said in event["last_error"]
        assert "sk-secret" not in done.stderr + str(event)

    def test_needs_a_list_of_arguments(self, cli: Cli, tmp_path: Path) -> None:
        cli.configure('bcrypt_cost = 4\n[hooks.x]\ntype = "command"\nargv = "true"\n')
        assert cli("generate").exit_code == 2
