"""Random fleets: applied, there is nothing left to plan; exported and applied elsewhere, they are the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_files import Fleets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyctl.db.database import Database
from keyctl.services.workspace import Workspace

NAMES = st.sampled_from(["a", "b-1", "no", "007", "x.y", "Ü"])
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "max_budget": st.integers(0, 50),
        "rpm_limit": st.one_of(st.none(), st.integers(0, 9)),
        "models": st.lists(st.sampled_from(["gpt-4o", "o1"]), max_size=2, unique=True),
        "metadata": st.dictionaries(
            st.sampled_from(["app", "on"]), st.text("ab", max_size=3), max_size=2
        ),
    },
)
MEMBERS = st.fixed_dictionaries(
    {"role": st.sampled_from(["admin", "user"])},
    optional={
        "max_budget": st.one_of(st.none(), st.integers(0, 50)),
        "budget_duration": st.sampled_from(["30d", "monthly"]),
        "rpm_limit": st.one_of(st.none(), st.integers(0, 9)),
    },
)
# Without limits: what a team had before and a file leaves out would hold for its keys.
TEAMS = st.dictionaries(
    NAMES,
    st.fixed_dictionaries(
        {},
        optional={
            "metadata": st.just({"app": "x"}),
            "members": st.dictionaries(st.sampled_from(["ada", "bob"]), MEMBERS, max_size=2),
        },
    ),
    max_size=3,
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return a fleet whose keys belong to teams that it describes, and say so, or to none."""
    teams = draw(TEAMS)
    keys = {}
    for name in draw(st.sets(st.sampled_from(["k", "on", "0x1", "l m"]), max_size=4)):
        team = draw(st.sampled_from([None, *teams]))
        keys[name] = {**draw(LIMITS), "deliver": "files", "team_id": team}
    return {"version": 1, "users": {"ada": {}, "bob": {}}, "teams": teams, "keys": keys}


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(first=documents(), second=documents())
def test_what_is_applied_is_what_is_described(
    first: dict[str, Any],
    second: dict[str, Any],
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    """Any fleet, changed into any other; then the export of it, into an empty database."""
    empty = tmp_path / "data" / "keyctl.db"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    (tmp_path / "run").mkdir(mode=0o700)
    databases = []
    for number in (1, 2):
        path = tmp_path / "run" / f"{number}.db"
        shutil.copy(empty, path)
        databases.append(Database(f"sqlite:///{path}"))
    here = Fleets.at(workspace, tmp_path / "run" / "keys").on(databases[0])
    there = Fleets.at(workspace, tmp_path / "run" / "other").on(databases[1])

    for document in (first, second):
        text = yaml.safe_dump(document)
        here.apply(text, prune=True)
        assert here.lines(text, prune=True) == []
    exported = here.export()
    there.apply(exported)

    assert here.plan(exported).changes == []
    assert there.plan(exported).changes == []
    assert _but_ids(there.export()) == _but_ids(exported)
    for database in databases:
        database.engine.dispose()


def _but_ids(text: str) -> Any:
    """Return an export without the ids of its keys."""
    document = yaml.safe_load(text)
    for body in document.get("keys", {}).values():
        del body["adopt"]
    return document
