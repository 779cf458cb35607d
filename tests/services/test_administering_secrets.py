"""Authority follows the hand that takes a secret: which secrets may be used as a caller."""

from datetime import timedelta
from typing import Any

import pytest
from holders import Held, Holder, Into, operator, refused
from sqlalchemy import text
from world import Hand, World

from keyctl.errors import CallerDeniedError
from keyctl.fields import validate
from keyctl.records import Team, User
from keyctl.requests import GenerateRequest
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.keys.update import ChangeService
from keyctl.services.workspace import Workspace

ANOTHER = {"caller.issued_by_another"}


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    world = World(workspace)
    world.change(
        {
            "team": {
                "policy": {
                    "create_member_keys": True,
                    "team_member_permissions": [
                        "/key/generate",
                        "/key/service-account/generate",
                        "/key/update",
                        "/key/regenerate",
                    ],
                }
            },
            "settings": {
                "sinks": {"vault": {"type": "file", "path": "/run/keys/{alias}"}},
            },
        }
    )
    DirectoryService(world.workspace).update(User, "root", {"role": "proxy_admin"})
    return world


@pytest.fixture(name="local")
def _local(world: World) -> Holder:
    return operator(world)


def administers(local: Holder, key_id: str) -> list[bool]:
    """Return which secrets of a key administer, those that do not first."""
    return sorted(secret["administers"] for secret in local.info(key_id)["secrets"])


class TestANewKey:
    def test_administers_when_its_own_user_takes_it(self, local: Holder) -> None:
        ada = local.generate({"user_id": "ada"})
        own = ada.generate({})
        assert administers(local, own.key_id) == [True]
        assert local.info(own.key_id)["secrets"][0]["issued_by"] == "user:ada"
        assert own.info(ada.key_id)["user_id"] == "ada"

    def test_administers_when_an_admin_generates_it(self, local: Holder) -> None:
        root = local.generate({"user_id": "root"})
        made = root.generate({"user_id": "eve"})
        assert administers(local, made.key_id) == [True]
        made.generate({})

    def test_for_a_member_administers_nothing(self, local: Holder) -> None:
        """It authenticates at a gateway, and is no caller."""
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        made = tina.generate({"user_id": "ada", "team_id": "web"})
        assert administers(local, made.key_id) == [False]
        assert refused(made.info, made.key_id) == ANOTHER
        assert refused(made.generate, {}) == ANOTHER

    def test_of_a_service_account_administers_when_an_admin_of_its_team_takes_it(
        self, local: Holder
    ) -> None:
        request = {"team_id": "web"}
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        robot = tina.generate(request, service_account=True)
        second = robot.generate(request, service_account=True)
        assert administers(local, robot.key_id) == [True]
        assert administers(local, second.key_id) == [False]

    def test_does_not_administer_beyond_the_end_of_an_admins_own_key(self, local: Holder) -> None:
        """An admin with a key that ends still makes keys that do not."""
        root = local.generate({"user_id": "root", "duration": "30d"})
        assert administers(local, root.generate({"user_id": "ada"}).key_id) == [False]
        within = root.generate({"user_id": "ada", "duration": "29d"})
        assert administers(local, within.key_id) == [True]

    def test_is_no_caller_before_it_is_confirmed(self, local: Holder, world: World) -> None:
        class Using(Hand):
            """A sink that uses the key string at once."""

            rules: set[str]

            def deliver(self, parcel: Any) -> None:
                super().deliver(parcel)
                held = Held(world.workspace, self.held, {})
                Using.rules = refused(held.generate, {})

        body = validate(GenerateRequest, {"user_id": "ada"}, what="t", schema="t")
        GenerateService(local.workspace).generate(Order(request=body), Using())
        assert Using.rules == ANOTHER


class TestARotation:
    def test_by_the_own_user_keeps_the_right(self, local: Holder) -> None:
        ada = local.generate({"user_id": "ada"})
        assert administers(local, ada.rotate(ada.key_id).key_id) == [True, True]

    def test_by_a_team_admin_ends_it(self, local: Holder) -> None:
        """Whoever rotates another's key holds a key string, and not the other's rights."""
        ada = local.generate({"user_id": "ada", "team_id": "web"})
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        taken = tina.rotate(ada.key_id)
        assert administers(local, ada.key_id) == [False, True]
        assert refused(taken.generate, {}) == ANOTHER
        ada.info(ada.key_id)  # the old one goes on for its grace

    def test_into_the_keys_own_sink_keeps_it(self, local: Holder, world: World) -> None:
        ada = local.generate({"user_id": "ada", "team_id": "web", "key_alias": "a"}, sink="vault")
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        tina.rotate(ada.key_id, Into("vault"))
        assert administers(local, ada.key_id) == [True, True]

    def test_never_raises_it_unless_an_admin_says_so(self, local: Holder) -> None:
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        made = tina.generate({"user_id": "ada", "team_id": "web"})
        ada = local.generate({"user_id": "ada"})
        assert ada.rotate(made.key_id).answer["administers"] is False
        assert refused(ada.rotate, made.key_id, administers=True) == {
            "caller.raises_administration"
        }
        assert local.rotate(made.key_id).answer["administers"] is False
        assert local.rotate(made.key_id, administers=True).answer["administers"] is True


class TestAChange:
    def test_of_the_owner_ends_it(self, local: Holder) -> None:
        ada = local.generate({"user_id": "ada"})
        local.update(ada.key_id, {"user_id": "eve"})
        assert refused(ada.info, ada.key_id) == ANOTHER

    @pytest.mark.parametrize(
        "patch",
        [
            {"key_alias": "other"},
            {"auto_rotate": True, "rotation_interval": "30d"},
        ],
        ids=["alias", "rotation"],
    )
    def test_of_where_it_is_delivered_ends_it_unless_the_owner_or_an_admin_makes_it(
        self, local: Holder, patch: dict[str, Any]
    ) -> None:
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        for change_by, left in ((local, True), (None, True), (tina, False)):
            ada = local.generate({"user_id": "ada", "team_id": "web"})
            (change_by or ada).update(ada.key_id, patch)
            assert administers(local, ada.key_id) == [left]
            local.end("delete", ada.key_id)

    def test_by_an_admin_gives_it_back(self, local: Holder) -> None:
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        made = tina.generate({"user_id": "ada", "team_id": "web"})
        secret = local.info(made.key_id)["secrets"][0]["id"]
        raise_it = ChangeService(tina.workspace).let_administer
        assert refused(raise_it, made.key_id, secret) == {"caller.raises_administration"}
        view = ChangeService(local.workspace).let_administer(made.key_id, secret)
        assert view["secrets"][0]["administers"] is True
        made.generate({})


class TestRoutes:
    @pytest.mark.parametrize("kind", ["llm_api", "read_only"])
    def test_an_admins_key_that_lacks_the_route_administers_nothing(
        self, local: Holder, kind: str
    ) -> None:
        root = local.generate({"user_id": "root", "key_type": kind})
        create = DirectoryService(root.workspace).create
        assert refused(create, User, "q", {"role": "proxy_admin"}) == {"caller.route"}
        assert refused(root.generate, {}) == {"caller.route"}
        assert refused(root.end, "delete", root.key_id) == {"caller.route"}

    def test_a_read_only_key_reads(self, local: Holder) -> None:
        root = local.generate({"user_id": "root", "key_type": "read_only"})
        assert root.info(root.key_id)["key_type"] == "read_only"

    def test_a_management_key_makes_keys(self, local: Holder) -> None:
        local.generate({"user_id": "root", "key_type": "management"}).generate({"user_id": "ada"})


class TestNowAndNotThen:
    def test_a_caller_that_ended_or_lost_its_rights_is_refused_in_the_next_transaction(
        self, local: Holder, clock: Any
    ) -> None:
        """The services of one command go on with what the database says now."""
        ada = local.generate({"user_id": "ada", "duration": "1d"})
        workspace = ada.workspace
        acting = Holder(workspace, None)  # read once, as a command does
        acting.generate({})
        clock.advance(timedelta(days=2))
        with pytest.raises(CallerDeniedError, match="expired"):
            acting.generate({})

    def test_a_demoted_admin_is_no_admin(self, local: Holder) -> None:
        root = local.generate({"user_id": "root"})
        acting = Holder(root.workspace, None)
        demoted = {"role": "internal_user"}
        DirectoryService(local.workspace).update(User, "root", demoted, keys="keep")
        with pytest.raises(CallerDeniedError, match="no admin's any more"):
            acting.generate({"user_id": "eve"})
        with pytest.raises(CallerDeniedError, match="no admin's any more"):
            DirectoryService(acting.workspace).create(Team, "new", {})

    def test_a_spent_budget_stops_no_administrator(self, local: Holder) -> None:
        ada = local.generate({"user_id": "ada", "max_budget": 1, "spend": 1})
        ada.end("delete", ada.generate({"max_budget": 1}).key_id)


class TestBlocks:
    def test_of_an_admin_are_lifted_by_admins(self, local: Holder) -> None:
        ada = local.generate({"user_id": "ada", "team_id": "web"})
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        tina.end("block", ada.key_id)
        local.end("block", ada.key_id)  # an admin's, from now on
        assert refused(tina.end, "unblock", ada.key_id) == {"caller.admin_block"}
        local.end("unblock", ada.key_id)
        tina.end("block", ada.key_id)
        assert tina.end("unblock", ada.key_id) == "unblocked"


def test_the_audit_trail_tells_who_took_a_secret(local: Holder, world: World) -> None:
    ada = local.generate({"user_id": "ada"})
    made = ada.generate({})
    with world.workspace.database.engine.connect() as connection:
        row = connection.execute(
            text("SELECT issued_by, issued_with FROM secrets WHERE key_id = :id"),
            {"id": made.key_id},
        ).one()
    assert tuple(row) == ("user:ada", ada.key_id)
