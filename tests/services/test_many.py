"""Many keys at once: judged whole before the first is written, then changed in batches."""

from pathlib import Path
from typing import Any

import pytest
from fleet_files import Fleets
from sqlalchemy import Engine, event

from keyctl.errors import MalformedRequestError, NotFoundError, PolicyDeniedError
from keyctl.records import User
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate_each import Done, EachService
from keyctl.services.issue.generate_rows import RowsService, read_rows
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update_many import ManyChangesService
from keyctl.services.workspace import Workspace

TEAM = "teams: {t: {max_budget: 5}}\nkeys: {'w-{n}': {count: 40, team_id: t, deliver: files}}\n"


@pytest.fixture(name="fleets")
def _fleets(workspace: Workspace, tmp_path: Path) -> Fleets:
    """Fleet files on the test's database."""
    return Fleets.at(workspace, tmp_path / "keys")


def ids(fleets: Fleets) -> list[str]:
    """Return the ids of the keys that were made."""
    return [fleets.key(f"w-{number}")["key_id"] for number in range(1, 41)]


class TestUpdate:
    def test_changes_all(self, fleets: Fleets) -> None:
        """Each has its event, and one that is so already is left alone."""
        fleets.apply(TEAM)
        service = ManyChangesService(fleets.workspace)

        first = service.update(ids(fleets), {"rpm_limit": 9})
        again = service.update(ids(fleets), {"rpm_limit": 9})

        assert {item.result for item in first} == {"updated"}
        assert len({(item.audit or {})["seq"] for item in first}) == 40
        assert {item.result for item in again} == {"unchanged"}
        assert fleets.key("w-40")["rpm_limit"] == 9

    def test_one_that_may_not_stops_all(self, fleets: Fleets) -> None:
        """Everything is judged before the first is written."""
        fleets.apply(TEAM)

        with pytest.raises(PolicyDeniedError) as caught:
            ManyChangesService(fleets.workspace).update(ids(fleets), {"max_budget": 9})
        with pytest.raises(NotFoundError):
            ManyChangesService(fleets.workspace).update([*ids(fleets), "nobody"], {"rpm_limit": 1})

        assert len(caught.value.violations) == 40
        assert fleets.key("w-1")["rpm_limit"] is None

    def test_gives_the_keys_of_one_to_another(self, fleets: Fleets) -> None:
        """Who leaves hands over; what their secrets might do as callers ends."""
        for user in ("old", "new"):
            DirectoryService(fleets.workspace).create(User, user, {})
        fleets.apply("users: {old: {adopt: true}}\nkeys: {a: {user_id: old, deliver: files}}\n")

        ManyChangesService(fleets.workspace).update(["a"], {"user_id": "new"})

        assert fleets.key("a")["user_id"] == "new"


class TestEnding:
    @pytest.mark.parametrize("verb", ["block", "delete"])
    def test_takes_one_transaction(self, fleets: Fleets, verb: str) -> None:
        """Forty keys end with one commit, an event each, and every secret dead."""
        fleets.apply(TEAM)
        keys, commits = ids(fleets), [""]

        def note(_: Any) -> None:
            commits.append("commit")

        service = EndingService(fleets.workspace)
        event.listen(Engine, "commit", note)
        try:
            ended = service.delete(keys) if verb == "delete" else service.block(keys, blocked=True)
        finally:
            event.remove(Engine, "commit", note)

        assert {item.result for item in ended} == {f"{verb}{'ed' if verb == 'block' else 'd'}"}
        assert len({(item.audit or {})["seq"] for item in ended}) == 40
        assert commits == ["", "commit"]
        assert not any(fleets.is_valid(f"w-{number}") for number in (1, 17, 40))

    def test_named_twice_and_unknown(self, fleets: Fleets) -> None:
        """One that fails stops no other, and one that is named twice is ended once."""
        fleets.apply(TEAM)
        first = ids(fleets)[0]

        ended = EndingService(fleets.workspace).delete([first, first, "nobody", "w-2"])

        assert [item.result for item in ended] == ["deleted", "failed", "failed", "deleted"]


class TestRows:
    def make(self, fleets: Fleets, *bodies: dict[str, Any]) -> list[Done]:
        """Make a key for each body."""
        rows = read_rows([(f"list:{number}", body) for number, body in enumerate(bodies, start=1)])
        service = RowsService(fleets.workspace)
        jobs = service.jobs(service.judge(rows), lambda _: pytest.fail("no sink"))
        return list(EachService(fleets.workspace).generate(jobs))

    def test_makes_each_for_its_sink(self, fleets: Fleets) -> None:
        """Rows are requests of their own; an alias that is taken is left out."""
        fleets.apply("teams: {t: {}}\n")
        rows = [
            {"key_alias": "a", "team_id": "t", "rpm_limit": 1, "deliver": "files"},
            {"key_alias": "b", "service_account": True, "team_id": "t", "deliver": "files"},
        ]

        assert [done.error for done in self.make(fleets, *rows)] == [None, None]
        assert self.make(fleets, *rows) == []
        assert (fleets.key("a")["rpm_limit"], fleets.key("b")["service_account"]) == (1, True)
        assert fleets.is_valid("a")
        assert fleets.is_valid("b")

    def test_one_bad_row_stops_all(self, fleets: Fleets) -> None:
        """A typo, a rule, a team that is not there: nothing is made."""
        fleets.apply("teams: {t: {max_budget: 5, policy: {max_keys: 2}}}\n")
        good = {"key_alias": "good", "team_id": "t", "deliver": "files"}
        third = {"key_alias": "x", "team_id": "t", "deliver": "files"}

        with pytest.raises(MalformedRequestError, match="list:2: max_budgt"):
            self.make(fleets, good, {"max_budgt": 5})
        with pytest.raises(MalformedRequestError, match="named 2 times"):
            self.make(fleets, good, good)
        with pytest.raises(PolicyDeniedError, match="list:2: max_budget"):
            self.make(fleets, good, {**third, "max_budget": 9})
        with pytest.raises(PolicyDeniedError, match="max_keys"):
            self.make(fleets, good, third, {**third, "key_alias": "y"})
        with pytest.raises(NotFoundError):
            self.make(fleets, good, {**third, "team_id": "nowhere"})

        with fleets.workspace.database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM keys").scalar() == 0
