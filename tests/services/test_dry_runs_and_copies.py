"""Dry runs and hooks, cleared ends, and copies of verdicts."""

import copy
import pickle
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from gate import Gate
from world import World

from keyctl.config.settings import Settings
from keyctl.errors import PolicyDeniedError
from keyctl.gateway import Verdict, Verifier
from keyctl.services.audit import AuditService, EventFilter
from keyctl.services.keys.read import KeyService
from keyctl.services.keys.update import ChangeService
from keyctl.services.workspace import Workspace


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    return World(workspace)


class TestDryRuns:
    def test_the_hook_is_asked(
        self, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hook that refuses stands among the violations; nothing is written, not even its no."""
        module = f"hook_{uuid4().hex[:8]}"
        (tmp_path / f"{module}.py").write_text(
            "def decide(request, caller):\n    return {'decision': False, 'message': 'not today'}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        settings = Settings(bcrypt_cost=4, custom_key_generate=f"{module}:decide")
        world.workspace = replace(world.workspace, settings=settings)
        before = AuditService(world.workspace).head()

        verdict = world.verdict({"team_id": "web"})

        assert [(item.rule, item.message) for item in verdict.violations] == [
            ("hook.custom_key_generate", "not today")
        ]
        assert AuditService(world.workspace).head() == before


class TestClearedEnds:
    @pytest.mark.parametrize("cleared", [["expires"], ["duration"], ["expires", "duration"]])
    @pytest.mark.parametrize("layer", ["team", "organization", "settings"])
    def test_a_bounded_life_does_not_grow(
        self, world: World, layer: str, cleared: list[str]
    ) -> None:
        """With one day left under a bound of 14 days: exit 4, and the day stays."""
        bounds = {"upperbound_key_generate_params": {"duration": "14d"}}
        world.change({layer: bounds if layer == "settings" else {"policy": bounds}})
        key_id = world.make({"team_id": "web", "duration": "1d"})
        before = KeyService(world.workspace).info(key_id)["expires"]

        with pytest.raises(PolicyDeniedError, match=r"upperbound\.duration"):
            ChangeService(world.workspace).update(key_id, dict.fromkeys(cleared))

        assert KeyService(world.workspace).info(key_id)["expires"] == before
        page, _ = AuditService(world.workspace).page(EventFilter(), limit=1)
        assert [event["action"] for event in page] == ["key_update_denied"]


class TestVerdicts:
    def test_a_copy_is_charged(self, database_url: str, tmp_path: Path) -> None:
        """A verdict that was copied, however deep, charges the same key, and settles once."""
        gate = Gate(database_url, tmp_path)
        text = gate.key(max_budget=10)
        with Verifier(gate.url) as verifier:
            verdict = verifier.verify(text)
            assert isinstance(verdict, Verdict)
            copies = [copy.copy(verdict), copy.deepcopy(verdict)]
            for item in copies:
                assert item == verdict
                item.record(Decimal("0.25"))
            for other in (pickle.loads(pickle.dumps(verdict)), replace(verdict)):  # noqa: S301  # ours
                with pytest.raises(ValueError, match="charge the verifier's own"):
                    other.record(1)
        with gate.database.read() as connection:
            spent = connection.exec_driver_sql("SELECT spend FROM keys").scalar_one()
        gate.close()

        assert spent == 500_000_000
