"""Lists of new owners: judged whole, made in batches, each reported."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleet_files import Fleets
from sqlalchemy import Connection, Engine, event

from keyctl.errors import (
    DeniedError,
    KeysLeftError,
    MalformedRequestError,
    NotFoundError,
    ObjectTakenError,
    UserNotFoundError,
)
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Principal, Team, User
from keyctl.services.audit import AuditService
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate_rows import RowsService
from keyctl.services.issue.generate_rows import read_rows as read_keys
from keyctl.services.owner_lists import OwnerListService, read_rows
from keyctl.services.workspace import Workspace


def bodies_of(*bodies: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return bodies with places."""
    return [(f"list:{number}", body) for number, body in enumerate(bodies, start=2)]


def make(
    workspace: Workspace, kind: type[Principal], *bodies: dict[str, Any]
) -> dict[str, str | None]:
    """Make what a list says, and return for each id why it was not made."""
    rows = read_rows(kind, bodies_of(*bodies))
    return {
        done.row.object_id: None if done.error is None else done.error.code
        for done in OwnerListService(workspace).create(kind, rows)
    }


@pytest.fixture(name="commits")
def _commits() -> Iterator[list[str]]:
    """A list that grows with each transaction, readers' too."""
    commits: list[str] = []

    def note(connection: Connection) -> None:
        commits.append(str(connection))

    event.listen(Engine, "commit", note)
    yield commits
    event.remove(Engine, "commit", note)


class TestCreate:
    def test_makes_all_in_one_transaction(self, workspace: Workspace, commits: list[str]) -> None:
        """Users, then teams with members: a batch is one transaction, and the chain tells it all."""
        make(workspace, Organization, {"organization_id": "acme"})
        del commits[:]

        made = make(
            workspace,
            User,
            *({"user_id": f"u{number}", "max_budget": 2.5} for number in range(30)),
        )

        # One that judges and one that writes.
        assert (len(made), set(made.values()), len(commits)) == (30, {None}, 2)
        team = {"team_id": "web", "team_alias": "Web", "organization_id": "acme"}
        make(workspace, Team, {**team, "members": "u1:admin; u2"}, {"team_id": "ops"})
        assert len(commits) == 4
        web = DirectoryService(workspace).info(Team, "web")
        members = {item["user_id"]: item["role"] for item in web["members_with_roles"]}
        assert (web["team_alias"], web["organization_id"], members) == (
            "Web",
            "acme",
            {"u1": "admin", "u2": "user"},
        )
        AuditService(workspace).verify(state=True, step=lambda: None)

    def test_reports_what_is_taken_and_makes_the_rest(self, workspace: Workspace) -> None:
        """An id that is taken costs the others nothing; its owner stays as it was."""
        make(workspace, User, {"user_id": "ann", "max_budget": 1})

        done = make(workspace, User, {"user_id": "ann", "max_budget": 9}, {"user_id": "bob"})

        assert done == {"ann": ObjectTakenError.code, "bob": None}
        assert DirectoryService(workspace).info(User, "ann")["max_budget"] == 1

    def test_revives_no_keys(self, workspace: Workspace, tmp_path: Path) -> None:
        """A user whose earlier namesake left live keys is reported, as by `user create ID`."""
        fleets = Fleets.at(workspace, tmp_path / "keys")
        fleets.apply("users: {ann: {}}\nkeys: {k: {user_id: ann, deliver: files}}\n")
        DirectoryService(workspace).delete(User, "ann", keys="keep")

        done = make(workspace, User, {"user_id": "ann"}, {"user_id": "bob"})

        assert done == {"ann": KeysLeftError.code, "bob": None}

    def test_somebody_else_is_faster(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An id that is taken between the judging and the writing is found row by row."""
        service = OwnerListService(workspace)
        rows = read_rows(User, bodies_of({"user_id": "ann"}, {"user_id": "bob"}))
        done = service.create(User, rows)
        judge = OwnerListService.judge

        def then_another(self: OwnerListService, *given: Any) -> Any:
            found = judge(self, *given)
            DirectoryService(workspace).create(User, "ann", {})
            return found

        monkeypatch.setattr(OwnerListService, "judge", then_another)

        assert [item.error and item.error.code for item in done] == [ObjectTakenError.code, None]

    def test_is_for_admins(self, workspace: Workspace) -> None:
        """Others may not even ask."""
        eve = Caller(actor="key:eve", role="internal_user", user_id="eve")
        nobody = replace(workspace, caller=eve)

        with pytest.raises(DeniedError):
            OwnerListService(nobody).judge(User, read_rows(User, bodies_of({"user_id": "x"})))


class TestFaults:
    def test_all_of_what_is_malformed_is_told(self) -> None:
        """Each with its place: a typo, no id, a role that is none, a member and an id named twice."""
        with pytest.raises(MalformedRequestError) as caught:
            read_rows(
                Team,
                bodies_of(
                    {"team_id": "a", "max_budgt": 5},
                    {"name": "b"},
                    {"team_id": "c", "members": "ann:boss;bob;bob:admin"},
                    {"team_id": "d", "name": "D", "team_alias": "D"},
                    {"team_id": "e"},
                    {"team_id": "e"},
                ),
            )

        places = [item.message.partition(": ")[0] for item in caught.value.violations]
        assert places == ["list:2", "list:3", "list:4", "list:4", "list:5", "list:6", "list:7"]

    def test_all_of_what_is_missing_is_told(self, workspace: Workspace) -> None:
        """Nothing is made; every name that nothing has is told with its place."""
        bodies: list[dict[str, Any]] = [
            {"team_id": "a", "organization_id": "nowhere"},
            {"team_id": "b", "members": ["ghost:admin"]},
            {"team_id": "c", "members": [{"user_id": "shade", "role": "user"}]},
        ]

        with pytest.raises(NotFoundError) as caught:
            make(workspace, Team, *bodies)

        assert [item.message for item in caught.value.violations] == [
            "list:2: there is no organization 'nowhere'",
            "list:3: there is no user 'ghost'",
            "list:4: there is no user 'shade'",
        ]
        assert DirectoryService(workspace).page(Team, after=None, limit=9)[0] == []

    def test_keys_of_users_that_are_not_there(self, workspace: Workspace) -> None:
        """`generate --from` names every such user with its place, and what makes them."""
        rows = read_keys(bodies_of(*({"user_id": name, "key_alias": name} for name in "ab")))
        service = RowsService(workspace)

        with pytest.raises(UserNotFoundError) as caught:
            service.jobs(service.judge(rows), lambda _: pytest.fail("no sink"))

        assert [item.message for item in caught.value.violations] == [
            "list:2: there is no user 'a'",
            "list:3: there is no user 'b'",
        ]
        assert caught.value.hint == "keyctl user create --from FILE makes the users of a list"
