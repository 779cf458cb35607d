"""The printed table of who may do what is what happens, for every role, operation and key."""

from collections.abc import Callable
from typing import Any

import pytest
from holders import Holder, Into, operator
from world import World

from keyctl.db import queries
from keyctl.errors import CallerDeniedError, DeniedError, KeyNotFoundError
from keyctl.policy import authority
from keyctl.policy.authority import OPERATIONS, ROLES, WHOSE
from keyctl.records import Organization, Team, User
from keyctl.services.directory import DirectoryService
from keyctl.services.keys.end import EndingService
from keyctl.services.members import MemberService
from keyctl.services.workspace import Workspace

pytestmark = pytest.mark.sqlite_mostly

GRANTS = {
    "create_member_keys": True,
    "team_member_permissions": [
        "/key/generate",
        "/key/service-account/generate",
        "/key/update",
        "/key/regenerate",
        "/key/delete",
        "/key/block",
        "/key/unblock",
        "/key/info",
        "/key/list",
    ],
}
IN_TEAM = ("team_admin", "member", "service_account")


class Cells:
    """A small organization, with somebody of every role, each with a key."""

    def __init__(self, workspace: Workspace, *, granted: bool) -> None:
        world = World(workspace)
        world.change(
            {
                "team": {"policy": GRANTS if granted else {}},
                "settings": {"sinks": {"vault": {"type": "file", "path": "/run/keys/{key_id}"}}},
            }
        )
        self.local = operator(world)
        directory = DirectoryService(world.workspace)
        members = MemberService(world.workspace)
        directory.update(User, "root", {"role": "proxy_admin"})
        for name in ("kim", "sam", *ROLES[:-1]):
            directory.create(User, name, {"role": name if name in ROLES[:2] else "internal_user"})
        directory.update(User, "internal_user_viewer", {"role": "internal_user_viewer"})
        for user, role in (
            ("kim", "user"),
            ("root", "user"),
            ("member", "user"),
            ("team_admin", "admin"),
        ):
            members.add(Organization, "acme", user, "internal_user")
            members.add(Team, "web", user, role)
        members.add(Organization, "acme", "org_admin", "org_admin")
        self.holders: dict[str, Holder] = {
            role: self.local.generate(
                self.request(role, "own"), service_account=role == "service_account"
            )
            for role in ROLES
        }

    def request(self, role: str, whose: str) -> dict[str, Any]:
        """Return the body of a request for such a key."""
        owners = {"member's": "kim", "stranger's": "sam", "admin's": "root"}
        owner = owners.get(whose, None if role == "service_account" else role)
        in_team = whose in ("member's", "admin's") or (whose == "own" and role in IN_TEAM)
        return {
            **({"user_id": owner} if owner else {}),
            **({"team_id": "web"} if in_team else {}),
        }

    def happens(self, operation: str, role: str, whose: str) -> bool:
        """Tell whether the holder of that role's key can do it."""
        holder, request = self.holders[role], self.request(role, whose)
        is_service_account = "user_id" not in request
        try:
            if operation == "generate":
                holder.generate(request, service_account=is_service_account)
                return True
            target = self.local.generate(request, service_account=is_service_account, sink="vault")
            self._do(operation, holder, target.key_id)
        except CallerDeniedError:
            raise
        except (DeniedError, KeyNotFoundError):
            return False
        return True

    def _do(self, operation: str, holder: Holder, key_id: str) -> None:
        if operation == "update":
            holder.update(key_id, {"metadata": {"seen": "yes"}})
        elif operation == "rotate":
            holder.rotate(key_id, Into("vault"))
        elif operation == "revoke":
            ended = EndingService(holder.workspace).revoke(key_id, [])
            if ended.error is not None:
                raise ended.error
        else:
            if operation == "unblock":
                # By who administers the team, not by an admin, whose block only admins lift.
                with self.local.workspace.database.write() as connection:
                    queries.update_key(connection, key_id, blocked=True)
            holder.end(operation, key_id)


@pytest.mark.parametrize("granted", [False, True], ids=["nothing granted", "all granted"])
def test_what_the_table_says_is_what_happens(workspace: Workspace, granted: bool) -> None:
    """224 cells, with nothing granted to plain members and with everything."""
    cells = Cells(workspace, granted=granted)
    said = {
        (cell.operation, cell.role, cell.whose): cell.allowed
        for cell in authority.table()
        if cell.operation in OPERATIONS
    }
    asked = [
        (operation, role, whose) for operation in OPERATIONS for role in ROLES for whose in WHOSE
    ]

    differing = [
        (cell, said[cell])
        for cell in asked
        if cells.happens(*cell) != (said[cell] == "yes" or (granted and said[cell] == "granted"))
    ]

    assert differing == []
    assert set(said) == set(asked)


class TestTheDirectory:
    """Teams, users, organizations and members: 120 cells."""

    def test_what_the_table_says_is_what_happens(self, workspace: Workspace) -> None:
        """Each cell acts on objects of its own, which the local operator made."""
        cells = Cells(workspace, granted=True)
        directory, members = Directory(cells.local.workspace), 0
        differing = []
        for cell in authority.table():
            if cell.operation in OPERATIONS:
                continue
            members += cell.operation.startswith("team_member")
            act = directory.prepared(cell.operation, cell.whose)
            try:
                act(cells.holders[cell.role].workspace)
                happened = True
            except CallerDeniedError:
                raise
            except DeniedError:
                happened = False
            if happened != (cell.allowed == "yes"):
                differing.append(cell)

        assert differing == []
        assert members == 2 * len(ROLES) * 3


class Directory:
    """What operations on the directory act on."""

    def __init__(self, workspace: Workspace) -> None:
        self.local = workspace
        self.count = 0

    def prepared(self, operation: str, whose: str) -> Callable[[Workspace], object]:
        """Return the operation, with new objects to act on."""
        self.count += 1
        name = f"new-{self.count}"
        word, _, verb = operation.partition("_")
        if word == "team" and verb.startswith("member_"):
            return self._member(name, verb, whose)
        kind = {"team": Team, "user": User, "organization": Organization}[word]
        if verb == "create":
            return lambda acting: DirectoryService(acting).create(kind, name, {})
        DirectoryService(self.local).create(kind, name, {})
        if verb == "update":
            values = {"max_budget": 1}
            return lambda acting: DirectoryService(acting).update(kind, name, values)
        return lambda acting: DirectoryService(acting).delete(kind, name)

    def _member(self, user: str, verb: str, whose: str) -> Callable[[Workspace], object]:
        above = "admin" if whose == "role above" else "user"
        role = {"role": "proxy_admin"} if whose == "admin" else {}
        DirectoryService(self.local).create(User, user, role)
        MemberService(self.local).add(Organization, "acme", user, "internal_user")
        if verb == "member_add":
            return lambda acting: MemberService(acting).add(Team, "web", user, above)
        MemberService(self.local).add(Team, "web", user, above)
        return lambda acting: MemberService(acting).remove(Team, "web", user)


def test_every_difference_from_litellm_has_its_reason() -> None:
    """So that nobody has to guess whether it is one on purpose."""
    cells = list(authority.table())
    assert [cell for cell in cells if cell.allowed != cell.litellm and not cell.reason] == []
    assert [cell for cell in cells if cell.allowed == cell.litellm and cell.reason] == []
