"""A year in minutes: every day remind, rotate and reset, and nothing drifts, repeats or piles up."""

import os
import subprocess
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from harness import KEYCTL, Cli
from servers import wanted
from sqlalchemy import text

from keyctl.actions import REMINDERS
from keyctl.config.document import read
from keyctl.policy.facts import Caller
from keyctl.requests import GenerateRequest
from keyctl.services.audit import AuditService
from keyctl.services.budgets import BudgetService
from keyctl.services.delivery.sinks import named_sink
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.prune import PruneService
from keyctl.services.remind import RemindService
from keyctl.services.rotate.due import DueOrder, DueService
from keyctl.services.workspace import Workspace

pytestmark = pytest.mark.slow
KEYS = int(os.environ.get("KEYCTL_YEAR_KEYS", "200"))
DAYS = int(os.environ.get("KEYCTL_YEAR_DAYS", "365"))


@pytest.fixture(name="year")
def _year(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Keys that rotate every 30 days and have a budget a week; one in ten ends within the year."""
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    settings = read(
        {
            "bcrypt_cost": 4,
            "sinks": {"files": {"type": "file", "path": f"{folder}/{{alias}}"}},
            "hooks": {"none": {"type": "python", "function": "nobody:listens"}},
            "prune_after": "90d",
        }
    )
    caller = Caller(actor="local:cron@host", role="proxy_admin")
    year = Workspace(
        database=workspace.database,
        settings=settings,
        caller=caller,
        runs_folder=workspace.runs_folder,
    )
    for number in range(KEYS):
        fields: dict[str, Any] = {
            "key_alias": f"k{number}",
            "auto_rotate": True,
            "rotation_interval": "30d",
            "max_budget": 10,
            "budget_duration": "7d",
            "sink": "files",
        }
        if number % 10 == 0:
            fields["duration"] = f"{60 + number}d"
        request = {name: value for name, value in fields.items() if name != "sink"}
        GenerateService(year).generate(
            Order(request=GenerateRequest.model_validate(request), sink="files"),
            named_sink(year, "files"),
        )
    return year


class TestAYear:
    def test_of_daily_runs(self, year: Workspace, clock: Clock) -> None:
        """Each event once, each rotation on its day, no drift, and tables within bounds."""
        begun, told = clock.now, Counter[tuple[str, str, str]]()
        rotated: dict[str, list[datetime]] = {}
        for day in range(1, DAYS + 1):
            clock.now = begun + timedelta(days=day, minutes=5)
            year.database.is_swept = False  # every day is another process
            year.outgoing.clear()
            for line in DueService(year).rotate_due(DueOrder()):
                if line.result == "rotated":
                    rotated.setdefault(line.key_id, []).append(clock.now)
            for item in RemindService(year).remind():
                about = str(item.get("expires") or item.get("key_rotation_at"))
                told[item["event"], item["object_id"], about] += 1
            list(BudgetService(year).reset_due())
            if day % 90 == 0:
                PruneService(year).prune(None)
        assert set(told.values()) <= {1}
        names = Counter(event for event, _, _ in told)
        ended = sum(60 + number <= DAYS for number in range(0, KEYS, 10))
        assert names["key_expired"] == ended
        assert names["key_expiring"] >= ended
        assert names["rotation_overdue"] == 0
        for moments in rotated.values():
            gaps = {(after - before).days for before, after in pairwise(moments)}
            assert gaps <= {30, 31}
        lasting = [number for number in range(KEYS) if number % 10]
        assert len(rotated) >= len(lasting)
        assert all(len(rotated[key]) >= DAYS // 31 for key in self.ids(year, lasting))
        AuditService(year).verify(state=True, step=lambda: None)
        with year.database.read() as connection:
            rows = connection.execute(text("SELECT count(*) FROM secrets")).scalar_one()
            late = connection.execute(
                text("SELECT count(*) FROM keys WHERE budget_reset_at IS NULL")
            ).scalar_one()
        assert rows <= KEYS * 9  # what ended within the last 180 days, and what works
        assert late == 0

    def ids(self, year: Workspace, numbers: list[int]) -> list[str]:
        with year.database.read() as connection:
            found = connection.execute(text("SELECT key_alias, id FROM keys")).all()
        by_alias = {row.key_alias: row.id for row in found}
        return [by_alias[f"k{number}"] for number in numbers]


@pytest.mark.parametrize("kind", ["sqlite"])
class TestTheInstalledProgram:
    def test_under_another_clock(self, cli: Cli, tmp_path: Path) -> None:
        """libfaketime: a rotation, reminders and a budget's period come at their time."""
        wanted("faketime")
        cli.configure(
            f'bcrypt_cost = 4\n[sinks.f]\ntype = "file"\npath = "{tmp_path}/{{alias}}"\n'
            '[hooks.h]\ntype = "command"\nargv = ["true"]\n'
        )
        (Path(cli.home) / ".keep").touch()

        def at(when: str, *arguments: str) -> str:
            done = subprocess.run(
                ["faketime", when, *KEYCTL, *arguments],
                env=cli.environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            )
            return done.stdout

        at(
            "2031-01-01 00:00:00", "generate", "--alias", "a", "--deliver", "f", "--auto-rotate",
            "--rotation-interval", "30d", "--duration", "40d", "--max-budget", "1",
            "--budget-duration", "monthly",
        )  # fmt: skip
        assert "rotated" not in at("2031-01-30 23:00:00", "rotate", "--due", "-o", "jsonl")
        assert '"rotated"' in at("2031-01-31 00:10:00", "rotate", "--due", "-o", "jsonl")
        assert "key_expiring" not in at("2031-02-02 23:00:00", "remind", "-o", "jsonl")
        assert "key_expiring" in at("2031-02-04 00:00:00", "remind", "-o", "jsonl")
        assert "key_expiring" not in at("2031-02-05 00:00:00", "remind", "-o", "jsonl")
        assert "key_expired" in at("2031-02-10 00:10:00", "remind", "-o", "jsonl")
        assert set(REMINDERS) >= {"key_expired", "key_expiring"}
