"""Every command takes its locks in one order, so that no two wait for each other."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from world import Hand, World

from keyctl.records import Organization, Team, User
from keyctl.services.directory import DirectoryService
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.keys.update_many import ManyChangesService
from keyctl.services.members import MemberService
from keyctl.services.tiers import TierService
from keyctl.services.workspace import Workspace

ORDER = ("organizations", "teams", "users", "budgets", "keys", "audit_head")
# What is locked, and the ids that the statement names.
Lock = tuple[str, frozenset[str]]
COMMANDS: dict[str, Callable[[World, str], object]] = {
    "generate": lambda world, _: world.make(
        {"team_id": "web", "user_id": "ada", "budget_id": "small"}
    ),
    "rotate": lambda world, key: world.rotate(key, Hand()),
    "delete": lambda world, key: EndingService(world.workspace).delete([key]),
    "update": lambda world, key: ChangeService(world.workspace).update(key, {"budget_id": "small"}),
    "update, to another team": lambda world, key: ChangeService(world.workspace).update(
        key, {"team_id": "else"}
    ),
    "update, of several": lambda world, key: ManyChangesService(world.workspace).update(
        [key], {"budget_id": "small"}
    ),
    "user update": lambda world, _: DirectoryService(world.workspace).update(
        User, "ada", {"budget_id": "small", "role": "internal_user_viewer"}, keys="block"
    ),
    "user delete": lambda world, _: DirectoryService(world.workspace).delete(
        User, "ada", keys="block"
    ),
    "team update": lambda world, _: DirectoryService(world.workspace).update(
        Team, "web", {"organization_id": "other"}
    ),
    "team update-member": lambda world, _: MemberService(world.workspace).update(
        "web", "tina", {"budget_id": "small"}, role="user", keys="block"
    ),
    "team remove-member": lambda world, _: MemberService(world.workspace).remove(
        Team, "web", "ada", keys="block"
    ),
    "org remove-member": lambda world, _: MemberService(world.workspace).remove(
        Organization, "acme", "ada", keys="block"
    ),
}


@pytest.fixture(name="locks")
def _locks() -> Iterator[list[Lock]]:
    """The locks that are waited for, as they are taken; a transaction's end is an empty one."""
    locks: list[Lock] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: Any) -> None:
        found = re.search(r"\bFROM (\w+)", statement)
        if found and " FOR UPDATE" in statement and "SKIP LOCKED" not in statement:
            named = parameters.values() if isinstance(parameters, dict) else ()
            ids = frozenset(value for value in named if isinstance(value, str))
            locks.append((found[1], ids))

    def ended(_: Any) -> None:
        locks.append(("", frozenset()))

    event.listen(Engine, "before_cursor_execute", note)
    event.listen(Engine, "commit", ended)
    yield locks
    event.remove(Engine, "before_cursor_execute", note)
    event.remove(Engine, "commit", ended)


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    world = World(workspace)
    MemberService(workspace).add(Team, "else", "ada", "user")
    TierService(workspace).create("small", {"max_budget": 1})
    return world


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)  # SQLite has one writer at a time
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_its_locks_in_order(world: World, locks: list[Lock], command: str) -> None:
    """Organizations first, then teams, users, budget tiers and keys, and the audit head."""
    world.make({"team_id": "web", "user_id": "tina"})
    key_id = world.make({"team_id": "web", "user_id": "ada"})
    locks.clear()

    COMMANDS[command](world, key_id)

    assert {table for table, _ in locks} & {*ORDER[:-1]}
    assert list(out_of_order(locks)) == []


def out_of_order(locks: list[Lock]) -> Iterator[Lock]:
    """Yield each lock of a row that was not locked yet, taken after one that comes behind it."""
    held: list[Lock] = []
    for table, named in locks:
        if not table:
            held.clear()
            continue
        later = [item for item, _ in held if ORDER.index(item) > ORDER.index(table)]
        known = {value for item, values in held if item == table for value in values}
        if later and not named <= known:
            yield table, named
        held.append((table, named))
