"""Several `apply` at once: none waits for another for ever, each change is made once, the loser is told."""

import json

import pytest
from harness import Cli, Result

from keyctl.db.database import Database
from keyctl.services.verify import verify

ONE = """
organizations: {acme: {max_budget: 100}}
users: {alice: {}, bob: {}}
teams: {TEAM: {organization_id: acme, members: {alice: {role: admin}, bob: {}}}}
keys: {'TEAM-{n}': {count: 12, team_id: TEAM, deliver: files}}
"""


@pytest.fixture(name="fleet")
def _fleet(cli: Cli) -> Cli:
    """The program with a sink `files`."""
    (cli.home / "sunk").mkdir(mode=0o700)
    path = f"{cli.home}/sunk/{{alias}}"
    cli.configure(f'bcrypt_cost = 4\n[sinks.files]\ntype = "file"\npath = "{path}"\n')
    return cli


def write(cli: Cli, name: str, text: str) -> str:
    """Write a fleet file and return its name."""
    (cli.home / name).write_text(text)
    return name


def assert_each_once(cli: Cli, names: list[str]) -> None:
    """Each key is there once, and its sink holds a string that authenticates."""
    database = Database(str(cli.database_url))
    with database.read() as connection:
        stored = connection.exec_driver_sql(
            "SELECT key_alias FROM keys WHERE deleted_at IS NULL"
        ).scalars()
        assert sorted(stored) == sorted(names)
        made = connection.exec_driver_sql(
            "SELECT count(*), count(DISTINCT object_id) FROM audit_events"
            " WHERE action IN ('team_created', 'organization_created', 'user_created')"
        ).one()
        assert made[0] == made[1]
    held = {path.name: path.read_text().strip() for path in (cli.home / "sunk").iterdir()}
    verdicts = {name: verify(database, text) for name, text in held.items()}
    database.engine.dispose()
    assert {name: (item.valid, item.key_alias) for name, item in verdicts.items()} == {
        name: (True, name) for name in names
    }


def told(result: Result) -> set[str]:
    """Return why a run did not do all of it: the codes of its failed keys, or its own."""
    if result.exit_code == 9:
        return {item["error"]["code"] for item in json.loads(result.stdout)["failed"]}
    return set() if result.exit_code == 0 else {result.error["code"]}


class TestTheSameFile:
    def test_at_once(self, fleet: Cli) -> None:
        """Six runs make twelve keys; whoever loses a key is told that another has it, and a last run does nothing."""
        file = write(fleet, "fleet.yaml", ONE.replace("TEAM", "web"))

        results = fleet.race([["apply", file, "-o", "json"]] * 6)

        assert {result.exit_code for result in results} <= {0, 7, 9}, results
        assert set().union(*map(told, results)) <= {"alias_taken", "busy"}
        last = fleet("apply", file, "-o", "json", check=True).json
        assert last["keys"] == []
        assert_each_once(fleet, [f"web-{number}" for number in range(1, 13)])
        assert fleet("audit", "verify").exit_code == 0

    def test_a_change_at_once(self, fleet: Cli) -> None:
        """Six runs change thirteen objects once each: one run writes them, the others find nothing left."""
        first = write(fleet, "fleet.yaml", ONE.replace("TEAM", "web"))
        fleet("apply", first, check=True)
        changed = write(
            fleet,
            "fleet.yaml",
            ONE.replace("TEAM", "web")
            .replace("count: 12", "count: 12, rpm_limit: 7")
            .replace("100", "110"),
        )

        results = fleet.race([["apply", changed, "-o", "json"]] * 6)

        assert [result.exit_code for result in results] == [0] * 6, results
        assert sorted(result.json["summary"]["update"] for result in results) == [0] * 5 + [13]
        updates = fleet("audit", "list", "--action", "key_updated", "-o", "json", check=True).json
        assert len(updates["events"]) == 12
        assert fleet("audit", "verify").exit_code == 0


class TestDifferentFiles:
    def test_at_once(self, fleet: Cli) -> None:
        """Fleets that share an organization and its people, described by one, are all applied whole."""
        shared = "organizations: {acme: {max_budget: 100}}\nusers: {alice: {}, bob: {}}\n"
        fleet("apply", write(fleet, "shared.yaml", "fleet: shared\n" + shared), check=True)
        files = []
        for number in range(4):
            own = ONE.partition("teams:")[2].replace("TEAM", f"t{number}")
            files.append(write(fleet, f"{number}.yaml", f"fleet: f{number}\nteams:{own}"))

        results = fleet.race([["apply", file, "-o", "json"] for file in files])

        assert [result.exit_code for result in results] == [0] * 4, results
        names = [f"t{team}-{number}" for team in range(4) for number in range(1, 13)]
        assert_each_once(fleet, names)
        assert fleet("audit", "verify").exit_code == 0

    def test_that_name_owners_in_opposite_order(self, fleet: Cli) -> None:
        """Changes of the same keys and owners from two sides end without a deadlock; the last word holds for all."""
        text = ONE.replace("TEAM", "web")
        fleet("apply", write(fleet, "first.yaml", text), check=True)
        sides = []
        for side, limit in enumerate((5, 6)):
            body = text.replace("count: 12", f"count: 12, rpm_limit: {limit}")
            lines = body.replace("max_budget: 100", f"max_budget: 10{limit}").strip().splitlines()
            sides.append(write(fleet, f"side{side}.yaml", "\n".join(lines[:: -1 if side else 1])))

        results = fleet.race([["apply", file, "-o", "json"] for file in sides * 3])

        assert [result.exit_code for result in results] == [0] * 6, results
        keys = fleet("list", "-o", "json", check=True).json["keys"]
        budget = fleet("org", "info", "acme", "-o", "json", check=True).json["max_budget"]
        assert {key["rpm_limit"] for key in keys} == {int(budget - 100)}
        assert fleet("audit", "verify").exit_code == 0
