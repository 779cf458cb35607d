"""Metrics are OpenMetrics text with the names that alert rules are written against."""

import os
import re
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from clock import Clock
from harness import Cli
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families
from servers import wanted
from world import World

from keyctl.services.metrics import MetricsService
from keyctl.services.workspace import Workspace

RULES = Path(__file__).parents[2] / "docs" / "keyctl-alerts.yaml"
NAMES = {
    "keyctl_audit_head_seq",
    "keyctl_budget_used_ratio",
    "keyctl_check_findings",
    "keyctl_collected_timestamp_seconds",
    "keyctl_keys",
    "keyctl_keys_expiring",
    "keyctl_outbox_events",
    "keyctl_rotation_failed_keys",
    "keyctl_rotation_overdue_keys",
}


def told(workspace: Workspace) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample by its name and labels, as the library's own parser reads it."""
    families = text_string_to_metric_families(MetricsService(workspace).text())  # type: ignore[no-untyped-call]
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class TestNumbers:
    def test_are_what_the_commands_say(self, workspace: Workspace, clock: Clock) -> None:
        """Keys by state and team, what ends, what is late, what is spent, what waits."""
        world = World(workspace)
        world.change({"settings": {"hooks": {"h": {"type": "python", "function": "m:f"}}}})
        world.make({"team_id": "web", "duration": "12h", "max_budget": 4})
        world.make({"team_id": "web", "duration": "20d"})
        world.make({"duration": "1h"})
        late = {"auto_rotate": True, "rotation_interval": "1h"}
        world.make({"team_id": "web", "key_alias": "late", **late})
        world.make({"team_id": "web", **late})
        world.change({"team": {"max_budget": 10}})
        clock.advance(timedelta(hours=2))
        found = told(world.workspace)
        assert found["keyctl_keys", (("state", "active"), ("team", "web"))] == 4
        assert found["keyctl_keys", (("state", "expired"), ("team", ""))] == 1
        assert found["keyctl_keys_expiring", (("within", "1d"),)] == 1
        assert found["keyctl_keys_expiring", (("within", "30d"),)] == 2
        assert found["keyctl_rotation_overdue_keys", ()] == 2
        assert found["keyctl_rotation_failed_keys", ()] == 0
        assert found["keyctl_check_findings", ()] == 0
        team = ("budget", ""), ("object_id", "web"), ("object_type", "team")
        assert found["keyctl_budget_used_ratio", team] == 0
        assert found["keyctl_outbox_events", (("hook", "hooks.h"), ("state", "open"))] == 5
        assert found["keyctl_collected_timestamp_seconds", ()] == clock.now.timestamp()
        assert {name for name, _ in found} == NAMES

    def test_are_read_as_plain_prometheus_text_too(self, workspace: Workspace) -> None:
        """Which is how node_exporter's textfile collector reads them."""
        World(workspace)
        families = plain_families(MetricsService(workspace).text())
        assert {family.name for family in families} >= {
            "keyctl_keys_expiring",
            "keyctl_audit_head_seq",
        }


class TestAlertRules:
    def test_name_metrics_and_labels_that_there_are(self) -> None:
        """Each rule of docs/keyctl-alerts.yaml asks for a metric that keyctl tells."""
        rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
        assert len(rules) == 7
        for rule in rules:
            asked = set(re.findall(r"keyctl_\w+", rule["expr"]))
            assert asked, rule
            assert asked <= NAMES, rule
            assert rule["annotations"]["summary"]

    def test_are_what_prometheus_takes(self) -> None:
        """Prometheus' own program reads them without a complaint."""
        done = subprocess.run(
            [wanted("promtool"), "check", "rules", str(RULES)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "SUCCESS: 7 rules found" in done.stdout

    @pytest.mark.parametrize("kind", ["sqlite"])
    def test_ask_of_metrics_that_prometheus_takes(self, workspace: Workspace) -> None:
        """Its linter knows nothing to say of names, kinds and help texts."""
        World(workspace).make({"max_budget": 4})
        plain = MetricsService(workspace).text().removesuffix("# EOF\n")
        done = subprocess.run(
            [wanted("promtool"), "check", "metrics"],
            input=plain,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("kind", ["sqlite"])
class TestTheFile:
    def test_may_be_read_by_the_agent_and_is_replaced_whole(self, cli: Cli, tmp_path: Path) -> None:
        cli.key()
        file = tmp_path / "keyctl.prom"
        cli("metrics", "--out-file", str(file), check=True)
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert file.read_text().startswith("# HELP keyctl_keys ")
        assert file.read_text().endswith("# EOF\n")
        file.chmod(0o640)
        cli("metrics", "--out-file", str(file), check=True)
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        assert os.listdir(tmp_path) == [
            name for name in os.listdir(tmp_path) if ".part" not in name
        ]

    def test_of_somebody_else_stays(self, cli: Cli, tmp_path: Path) -> None:
        """A key file, for one, is exit 5."""
        file = tmp_path / "a.key"
        cli("generate", "--out-file", str(file), check=True)
        before = file.read_text()
        assert cli("metrics", "--out-file", str(file)).exit_code == 5
        assert cli("metrics", "--out-file", str(tmp_path / "no" / "file")).exit_code == 8
        assert file.read_text() == before
