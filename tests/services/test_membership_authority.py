"""Who adds, removes and promotes members, and what becomes of the keys of those who leave."""

from typing import Any

import pytest
from holders import Holder, operator, refused
from world import World

from keyctl import money
from keyctl.db.queries import KeyFilter
from keyctl.errors import KeysLeftError
from keyctl.records import Organization, Team, User
from keyctl.services.audit import AuditService, EventFilter
from keyctl.services.directory import DirectoryService
from keyctl.services.keys.read import KeyService
from keyctl.services.members import MemberService
from keyctl.services.workspace import Workspace


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    world = World(workspace)
    directory = DirectoryService(workspace)
    members = MemberService(workspace)
    directory.create(User, "boss", {"role": "proxy_admin"})
    directory.create(Team, "free", {})
    members.add(Team, "free", "tina", "admin")
    members.add(Organization, "acme", "boss", "internal_user")
    return world


@pytest.fixture(name="local")
def _local(world: World) -> Holder:
    return operator(world)


def members_of(holder: Holder) -> MemberService:
    """Return who changes members as this holder."""
    return MemberService(holder.workspace)


def directory_of(holder: Holder) -> DirectoryService:
    """Return the directory as the holder may change it."""
    return DirectoryService(holder.workspace)


def events(holder: Holder) -> list[dict[str, Any]]:
    """Return every event, the oldest first."""
    return list(AuditService(holder.workspace).export(EventFilter()))


def before_and_after(event: dict[str, Any]) -> tuple[Any, Any]:
    """Return both sides of a change."""
    return event["before"], event["after"]


def standing_of(holder: Holder, user_id: str) -> Any:
    """Return what the team tells of a member."""
    view = directory_of(holder).info(Team, "web")
    return next(item for item in view["members_with_roles"] if item["user_id"] == user_id)


class TestATeamAdmin:
    def test_adds_plain_members_and_no_admins(self, local: Holder) -> None:
        """The first of the three commands that made a team admin a proxy admin."""
        tina = members_of(local.generate({"user_id": "tina"}))
        tina.add(Team, "free", "eve", "user")
        assert refused(tina.add, Team, "free", "boss", "user") == {"caller.owner_role"}
        assert refused(tina.add, Team, "web", "boss", "user") == {"caller.owner_role"}

    def test_adds_members_of_the_teams_organization_only(self, local: Holder) -> None:
        tina = members_of(local.generate({"user_id": "tina"}))
        add = tina.add
        assert refused(add, Team, "web", "eve", "user") == {"caller.member_of_organization"}
        members_of(local).add(Organization, "acme", "eve", "internal_user")
        add(Team, "web", "eve", "user")

    def test_gives_and_takes_no_role_above_a_plain_members(self, local: Holder) -> None:
        members_of(local).add(Team, "web", "olga", "admin")
        tina = members_of(local.generate({"user_id": "tina"}))
        rules = {"caller.member_role"}
        assert refused(tina.add, Team, "web", "ada", "admin") == rules
        assert refused(tina.add, Team, "web", "olga", "user") == rules
        assert refused(tina.remove, Team, "web", "olga") == rules
        tina.remove(Team, "web", "ada")

    def test_changes_no_field_of_the_team(self, local: Holder) -> None:
        tina = directory_of(local.generate({"user_id": "tina"}))
        assert refused(tina.update, Team, "web", {"max_budget": 1}) == {"denied"}


class TestAnOrganizationAdmin:
    def test_gives_and_takes_roles_within_it(self, local: Holder) -> None:
        olga = members_of(local.generate({"user_id": "olga"}))
        olga.add(Team, "web", "ada", "admin")
        olga.add(Team, "web", "ada", "user")
        olga.add(Organization, "acme", "ada", "org_admin")
        olga.remove(Organization, "acme", "ada")

    def test_has_nothing_to_say_elsewhere(self, local: Holder) -> None:
        olga = members_of(local.generate({"user_id": "olga"}))
        assert refused(olga.add, Team, "free", "ada", "user") == {"denied"}
        assert refused(olga.add, Organization, "other", "ada", "internal_user") == {"denied"}


class TestChangingAMember:
    """A role and limits together are one transaction: all of it, or nothing."""

    def test_both_are_written_each_with_its_event(self, local: Holder) -> None:
        before = len(events(local))
        limits = {"max_budget": 5 * money.NANO, "rpm_limit": 3}
        told = members_of(local).update("web", "ada", limits, role="admin")
        assert (told["role"], told["max_budget"], told["rpm_limit"]) == ("admin", 5, 3)
        of_role, of_limits = events(local)[before:]
        assert {of_role["action"], of_limits["action"]} == {"team_member_updated"}
        assert of_role["before"] == {"user_id": "ada", "role": "user"}
        assert of_role["after"] == {"user_id": "ada", "role": "admin"}
        told_of = [(item["role"], item["rpm_limit"]) for item in before_and_after(of_limits)]
        assert told_of == [("admin", None), ("admin", 3)]
        assert told["audit"]["seq"] == of_limits["seq"]

    def test_an_organization_admin_gives_a_role_alone(self, local: Holder) -> None:
        """Which is no change of a limit, so it is theirs to do as with `add-member`."""
        olga = members_of(local.generate({"user_id": "olga"}))
        before = len(events(local))
        assert olga.update("web", "ada", {}, role="admin")["role"] == "admin"
        assert [item["action"] for item in events(local)[before:]] == ["team_member_updated"]
        assert olga.update("web", "ada", {"rpm_limit": 3}, role="user")["rpm_limit"] == 3

    def test_what_is_refused_leaves_the_role(self, local: Holder) -> None:
        """A limit of who administers the team, a tier that is not there, and keys left behind."""
        olga = members_of(local.generate({"user_id": "olga"}))
        assert refused(olga.update, "web", "ada", {"rpm_limit": 3}, role="admin") == {"denied"}
        assert standing_of(local, "ada") == {"user_id": "ada", "role": "user"}
        assert events(local)[-1]["action"] == "team_member_update_denied"
        update = members_of(local).update
        unknown = {"budget_id": "nope"}
        assert refused(update, "web", "ada", unknown, role="admin") == {"budget_not_found"}
        assert standing_of(local, "ada") == {"user_id": "ada", "role": "user"}
        key = local.generate({"user_id": "tina", "team_id": "web"})
        with pytest.raises(KeysLeftError, match=key.key_id):
            update("web", "tina", {"rpm_limit": 3}, role="user")
        assert standing_of(local, "tina") == {"user_id": "tina", "role": "admin"}
        told = update("web", "tina", {"rpm_limit": 3}, role="user", keys="block")
        assert [item["key_id"] for item in told["keys"]] == [key.key_id]
        assert (told["role"], told["rpm_limit"]) == ("user", 3)

    def test_follows_the_rules_of_a_role(self, local: Holder) -> None:
        """A team admin gives none, and a key that may not add members gives none either."""
        tina = members_of(local.generate({"user_id": "tina"}))
        rules = {"caller.member_role"}
        assert refused(tina.update, "web", "ada", {"rpm_limit": 3}, role="admin") == rules
        assert events(local)[-1]["action"] == "team_member_update_denied"
        narrow = {"user_id": "boss", "allowed_routes": ["/team/member_update"]}
        boss = members_of(local.generate(narrow))
        assert refused(boss.update, "web", "ada", {}, role="admin") == {"caller.route"}
        assert boss.update("web", "ada", {"rpm_limit": 3}, role="user")["rpm_limit"] == 3

    def test_tells_a_stranger_nothing_of_who_is_a_member(self, local: Holder) -> None:
        eve = members_of(local.generate({"user_id": "eve"}))
        for user in ("ada", "tina", "victor", "nobody"):
            assert refused(eve.update, "web", user, {}, role="user") == {"denied"}


class TestWhoLeaves:
    @pytest.mark.parametrize(
        ("keys", "state"), [("block", "blocked"), ("delete", "deleted"), ("keep", "active")]
    )
    def test_says_what_becomes_of_the_keys_there(
        self, local: Holder, keys: Any, state: str
    ) -> None:
        key = local.generate({"user_id": "ada", "team_id": "web", "key_alias": "build"})
        own = local.generate({"user_id": "ada"})
        remove = members_of(local).remove
        with pytest.raises(KeysLeftError, match=rf"{key.key_id} \(build\)"):
            remove(Team, "web", "ada")
        answer = remove(Team, "web", "ada", keys=keys)
        assert [item["key_id"] for item in answer["keys"]] == [key.key_id]
        assert local.info(key.key_id)["state"] == state
        assert local.info(own.key_id)["state"] == "active"

    def test_leaves_service_accounts_that_they_can_act_as(
        self, local: Holder, world: World
    ) -> None:
        world.change(
            {"team": {"policy": {"team_member_permissions": ["/key/service-account/generate"]}}}
        )
        members_of(local).add(Team, "web", "ada", "admin")
        ada = local.generate({"user_id": "ada"})
        robot = ada.generate({"team_id": "web"}, service_account=True)
        with pytest.raises(KeysLeftError, match=robot.key_id):
            members_of(local).remove(Team, "web", "ada")
        with pytest.raises(KeysLeftError, match=robot.key_id):
            members_of(local).add(Team, "web", "ada", "user")
        members_of(local).add(Team, "web", "ada", "user", keys="block")
        assert local.info(robot.key_id)["state"] == "blocked"

    def test_is_asked_before_a_user_is_deleted_or_demoted(self, local: Holder) -> None:
        key = local.generate({"user_id": "boss"})
        with pytest.raises(KeysLeftError, match=key.key_id):
            directory_of(local).update(User, "boss", {"role": "internal_user"})
        with pytest.raises(KeysLeftError, match=key.key_id):
            directory_of(local).delete(User, "boss")
        directory_of(local).delete(User, "boss", keys="delete")
        assert local.info(key.key_id)["state"] == "deleted"

    def test_what_a_key_or_a_user_took_is_listed(self, local: Holder) -> None:
        """After an incident: which key strings went through this hand?"""
        ada = local.generate({"user_id": "ada"})
        made = ada.generate({})
        service = KeyService(local.workspace)
        for given in (ada.key_id, "ada"):
            page, _ = service.page(service.issued_by(KeyFilter(), given), after=None, limit=10)
            assert [item["key_id"] for item in page] == [made.key_id]
        assert refused(service.issued_by, KeyFilter(), "nobody") == {"key_not_found"}


class TestReading:
    def test_member_permissions_show_a_teams_keys(self, local: Holder, world: World) -> None:
        ada = local.generate({"user_id": "ada", "team_id": "web"})
        robot = local.generate({"team_id": "web"}, service_account=True)
        assert refused(ada.info, robot.key_id) == {"key_not_found"}
        grants = ["/key/list", "/key/info"]
        world.change({"team": {"policy": {"team_member_permissions": grants}}})
        assert ada.info(robot.key_id)["service_account"] is True
        page, _ = KeyService(ada.workspace).page(KeyFilter(), after=None, limit=10)
        assert {item["key_id"] for item in page} == {ada.key_id, robot.key_id}
        assert refused(ada.end, "delete", robot.key_id) >= {"team.team_member_permissions"}
