"""From a running LiteLLM to a fleet in git: imported, exported, adopted, and made anew elsewhere."""

import shutil
from pathlib import Path

import pytest
from fleet_files import Fleets
from litellm_tables import LiteLLM, key
from migrating import OLD, OLDER, RunImport

from keyctl.db.database import Database
from keyctl.services.workspace import Workspace


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_import_export_apply(
    workspace: Workspace, litellm: LiteLLM, run: RunImport, template: Path, tmp_path: Path
) -> None:
    """What was imported is a fleet file that changes nothing here, and makes the same in an empty database."""
    litellm.add("keys", key(OLD, key_alias="ci", models=["gpt-4"], max_budget=12.5, rpm_limit=7))
    litellm.add("keys", key(OLDER, key_alias="web", metadata={"tags": ["a"], "app": "web"}))
    run()
    here = Fleets.at(workspace, tmp_path / "keys")

    exported = here.export()
    plan = here.plan(exported)
    here.apply(exported)

    assert (plan.does_something, {item.action for item in plan.changes}) == (False, {"adopt"})
    assert here.lines(exported) == []
    (tmp_path / "empty").mkdir(mode=0o700)
    shutil.copy(template, tmp_path / "empty" / "keyctl.db")
    database = Database(f"sqlite:///{tmp_path}/empty/keyctl.db")
    there = Fleets.at(workspace, tmp_path / "there").on(database)
    text = exported.replace("    adopt: key_", "    deliver: files\n    adopt: key_")
    assert there.apply(text) == ["ci", "web"]
    assert there.lines(text) == []
    assert (there.key("ci")["models"], there.key("ci")["max_budget"]) == (["gpt-4"], 12.5)
    assert there.is_valid("web")
    database.engine.dispose()
