"""The caller's own key is a ceiling: nobody passes on more than they hold, and honest days stay possible."""

from typing import Any

import pytest
from holders import Holder, Into, operator, refused
from world import World

from keyctl import money
from keyctl.db import queries
from keyctl.db.queries import directory as owners
from keyctl.errors import PolicyDeniedError
from keyctl.policy.models import may_use
from keyctl.records import Organization, Team, User
from keyctl.services.directory import DirectoryService
from keyctl.services.members import MemberService
from keyctl.services.workspace import Workspace

pytestmark = pytest.mark.sqlite_mostly

PERMISSIONS = [
    "/key/generate",
    "/key/service-account/generate",
    "/key/update",
    "/key/regenerate",
    "/key/delete",
]


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    world = World(workspace)
    sinks = {"vault": {"type": "file", "path": "/run/keys/{alias}"}}
    world.change(
        {
            "team": {"policy": {"team_member_permissions": PERMISSIONS}},
            "settings": {"sinks": sinks},
        }
    )
    return world


@pytest.fixture(name="local")
def _local(world: World) -> Holder:
    return operator(world)


# A field of the caller's key, what may not be asked for then, and what may.
FIELDS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("caller.expires", {"duration": "1h"}, {"duration": "2h"}, {"duration": "30m"}),
    ("caller.models", {"models": ["gpt-4*"]}, {"models": ["o1"]}, {"models": ["gpt-4o"]}),
    ("caller.models", {"models": ["gpt-4*"]}, {"models": ["gpt-4o", "*"]}, {"models": ["gpt-4*"]}),
    ("caller.rpm_limit", {"rpm_limit": 3}, {"rpm_limit": 4}, {"rpm_limit": 3}),
    ("caller.tpm_limit", {"tpm_limit": 3}, {"tpm_limit": 4}, {"tpm_limit": 2}),
    ("caller.tpd_limit", {"tpd_limit": 3}, {"tpd_limit": 4}, {"tpd_limit": 2}),
    (
        "caller.max_parallel_requests",
        {"max_parallel_requests": 1},
        {"max_parallel_requests": 2},
        {"max_parallel_requests": 1},
    ),
    (
        "caller.model_rpm_limit",
        {"model_rpm_limit": {"o1": 1}},
        {"model_rpm_limit": {"o3": 1}},
        {"model_rpm_limit": {"o1": 1, "o3": 9}},
    ),
    (
        "caller.tag_rpm_limit",
        {"tag_rpm_limit": {"ci": 1}},
        {"tag_rpm_limit": {"ci": 2}},
        {"tag_rpm_limit": {"ci": 1}},
    ),
    (
        "caller.rpm_limit_type",
        {"rpm_limit": 3, "rpm_limit_type": "best_effort_throughput"},
        {"rpm_limit": 3, "rpm_limit_type": "dynamic"},
        {"rpm_limit": 3, "rpm_limit_type": "guaranteed_throughput"},
    ),
    (
        "caller.guardrails",
        {"guardrails": ["pii"]},
        {"guardrails": ["x"]},
        {"guardrails": ["x", "pii"]},
    ),
    ("caller.tags", {"tags": ["a"]}, {"tags": ["b"]}, {"tags": ["a", "b"]}),
    ("caller.policies", {"policies": ["a"]}, {"policies": ["b"]}, {"policies": ["b", "a"]}),
    (
        "caller.enforced_params",
        {"enforced_params": ["user"]},
        {"enforced_params": ["x"]},
        {"enforced_params": ["user", "x"]},
    ),
    ("caller.prompts", {"prompts": ["a"]}, {"prompts": ["a", "b"]}, {"prompts": ["a"]}),
    (
        "caller.object_permission",
        {"object_permission": {"mcp_servers": ["a"], "blocked_tools": ["rm"]}},
        {"object_permission": {"mcp_servers": ["a"]}},
        {"object_permission": {"mcp_servers": ["a"], "blocked_tools": ["rm", "dd"]}},
    ),
    (
        "caller.model_max_budget",
        {"model_max_budget": {"o1": {"max_budget": 1, "budget_duration": "30d"}}},
        {"model_max_budget": {"o1": {"max_budget": 1, "budget_duration": "1d"}}},
        {"model_max_budget": {"o1": {"max_budget": 1, "budget_duration": "30d"}}},
    ),
]
MONEY = [
    ({"max_budget": 5}, {"max_budget": 6}, False),
    ({"max_budget": 5}, {"max_budget": 5, "budget_duration": "1mo"}, False),
    (
        {"max_budget": 5, "budget_duration": "30d"},
        {"max_budget": 5, "budget_duration": "1s"},
        False,
    ),
    (
        {"max_budget": 5, "budget_duration": "30d"},
        {"max_budget": 5, "budget_duration": "1mo"},
        False,
    ),
    (
        {"max_budget": 5, "budget_duration": "1mo"},
        {"max_budget": 5, "budget_duration": "30d"},
        False,
    ),
    (
        {"max_budget": 5, "budget_duration": "1mo"},
        {"max_budget": 5, "budget_duration": "31d"},
        True,
    ),
    (
        {"max_budget": 5, "budget_duration": "28d"},
        {"max_budget": 5, "budget_duration": "1mo"},
        True,
    ),
    (
        {"max_budget": 5, "budget_duration": "30d"},
        {"max_budget": 5, "budget_duration": "60d"},
        True,
    ),
    ({"max_budget": 5, "budget_duration": "30d"}, {"max_budget": 5}, True),
    (
        {"max_budget": 5, "budget_duration": "weekly"},
        {"max_budget": 4, "budget_duration": "7d"},
        True,
    ),
    (
        {"budget_limits": [{"max_budget": 1, "budget_duration": "1d"}]},
        {"budget_limits": [{"max_budget": 1, "budget_duration": "12h"}]},
        False,
    ),
    (
        {"budget_limits": [{"max_budget": 1, "budget_duration": "1d"}]},
        {"max_budget": 1, "budget_duration": "1d"},
        True,
    ),
]


class TestANewKey:
    @pytest.mark.parametrize(("rule", "own", "more", "less"), FIELDS, ids=[f[0] for f in FIELDS])
    def test_exceeds_the_callers_in_nothing(
        self,
        local: Holder,
        rule: str,
        own: dict[str, Any],
        more: dict[str, Any],
        less: dict[str, Any],
    ) -> None:
        """What it names is compared, what it leaves out is filled in."""
        ada = local.generate({"user_id": "ada", **own})
        assert refused(ada.generate, more) == {rule}
        ada.generate(less)
        filled = {item["field"]: item["source"] for item in ada.generate({}).answer["filled"]}
        assert rule in filled.values() or rule.endswith("_type")

    @pytest.mark.parametrize(("own", "asked", "allowed"), MONEY)
    def test_has_no_more_money_in_no_shorter_time(
        self, local: Holder, own: dict[str, Any], asked: dict[str, Any], allowed: bool
    ) -> None:
        """A month is 31 days for the caller and 28 for the new key, where units differ."""
        ada = local.generate({"user_id": "ada", **own})
        if allowed:
            ada.generate(asked)
        else:
            assert refused(ada.generate, asked) == {"caller.budget_ceiling"}

    def test_of_a_poor_key_is_as_poor(self, local: Holder) -> None:
        """A key of an hour, one model and three requests a minute makes no key that has more."""
        own = {"duration": "1h", "models": ["gpt-4o"], "rpm_limit": 3, "max_budget": 5}
        ada = local.generate({"user_id": "ada", **own})
        made = ada.generate({}).answer
        assert {name: made[name] for name in ("models", "rpm_limit", "max_budget")} == {
            "models": ["gpt-4o"],
            "rpm_limit": 3,
            "max_budget": 5,
        }
        assert made["expires"] == ada.answer["expires"]

    def test_of_a_team_passes_on_no_models_beyond_the_teams(
        self, local: Holder, world: World
    ) -> None:
        world.change({"team": {"models": ["gpt-4*"]}})
        ada = local.generate({"user_id": "ada", "team_id": "web"})
        assert refused(ada.generate, {"models": ["o1"]}) == {"caller.models"}
        assert ada.generate({}).answer["models"] == ["gpt-4*"]

    def test_tells_the_nearest_of_its_own_models(self, local: Holder) -> None:
        ci = local.generate({"user_id": "ada", "team_id": "web", "models": ["gpt-4o-mini"]})
        with pytest.raises(PolicyDeniedError) as caught:
            ci.generate({"models": ["gpt-4o-mni"]})
        assert [item.message for item in caught.value.violations] == [
            "is more than the caller's own key has: gpt-4o-mni (did you mean gpt-4o-mini?)"
        ]

    def test_stays_in_every_purse(self, local: Holder, world: World) -> None:
        """The team's budget bounds the sum of what its keys' holders can spend."""
        world.change({"team": {"max_budget": 100 * money.NANO}})
        ada = local.generate({"user_id": "ada", "team_id": "web", "max_budget": 5})
        assert refused(ada.generate, {"max_budget": 5}) == {"caller.purse"}
        ada.generate({"team_id": "web", "max_budget": 5})

    @pytest.mark.parametrize(
        "purse",
        [
            {"team": {"budget_limits": [{"max_budget": 100, "budget_duration": "1d"}]}},
            {"team": {"model_max_budget": {"o1": {"max_budget": 100}}}},
            {"team": {"tpd_limit": 100}},
            {"organization": {"model_max_budget": {"o1": {"max_budget": 100}}}},
            {"organization": {"tpd_limit": 100}},
            {"organization": {"max_parallel_requests": 100}},
        ],
        ids=lambda purse: "-".join((*purse, *next(iter(purse.values())))),
    )
    def test_stays_in_what_a_team_or_an_organization_has_beside_a_budget(
        self, local: Holder, world: World, purse: dict[str, Any]
    ) -> None:
        """They are purses too: what a key spends outside they do not bound."""
        world.change(purse)
        ada = local.generate({"user_id": "ada", "team_id": "web"})
        assert refused(ada.generate, {}) == {"caller.purse"}
        assert "caller.purse" in refused(ada.update, ada.key_id, {"team_id": None})
        ada.generate({"team_id": "web"})

    def test_routes_are_the_callers(self, local: Holder) -> None:
        ada = local.generate({"user_id": "ada", "key_type": "management"})
        made = ada.generate({}).answer
        assert (made["key_type"], made["allowed_routes"]) == ("management", ["management_routes"])
        assert refused(ada.generate, {"key_type": "llm_api"}) == {"caller.allowed_routes"}


class TestAChange:
    def test_may_not_widen_what_it_names_beyond_the_callers(self, local: Holder) -> None:
        poor = local.generate({"user_id": "ada", "rpm_limit": 3, "models": ["gpt-4o"]})
        rich = local.generate({"user_id": "ada", "rpm_limit": 50, "tpm_limit": 9})
        assert refused(poor.update, rich.key_id, {"rpm_limit": 51}) == {
            "caller.rpm_limit",
            "caller.models",  # the rich key would have what it has and more
        }
        poor.update(rich.key_id, {"rpm_limit": 40})  # narrower than it was
        poor.update(rich.key_id, {"metadata": {"app": "web"}})  # what is not named stays

    def test_of_routes_is_for_admins(self, local: Holder) -> None:
        """The owner of a key for embeddings made it a key for everything."""
        key = local.generate({"user_id": "ada", "allowed_routes": ["/v1/embeddings"]})
        ada = local.generate({"user_id": "ada"})
        assert refused(ada.update, key.key_id, {"key_type": "default"}) == {"caller.admin_only"}
        assert refused(ada.update, key.key_id, {"allowed_routes": None}) == {"caller.admin_only"}

    def test_of_the_end_is_bounded_also_when_it_is_cleared(
        self, local: Holder, world: World
    ) -> None:
        """Life grew from one day to fourteen."""
        world.change({"settings": {"upperbound_key_generate_params": {"duration": "14d"}}})
        local = operator(world)
        key = local.generate({"user_id": "ada", "duration": "1d"})
        assert refused(local.update, key.key_id, {"expires": None}) == {
            "global.upperbound.duration"
        }
        ada = local.generate({"user_id": "ada", "duration": "2d"})
        assert refused(ada.update, key.key_id, {"duration": "3d"}) == {"caller.expires"}

    def test_of_the_end_is_refused_in_words(self, local: Holder) -> None:
        """When it would end, and when the caller's own key does."""
        ada = local.generate({"user_id": "ada", "expires": "2040-01-01T00:00:00Z"})
        wanted = {"expires": "2041-01-01T00:00:00Z"}

        with pytest.raises(PolicyDeniedError) as caught:
            ada.generate(wanted)

        (violation,) = caught.value.violations
        assert violation.message == (
            "it would end 2041-01-01T00:00:00Z, and the caller's own key ends 2040-01-01T00:00:00Z"
        )

    def test_of_no_end_is_refused_in_words(self, local: Holder) -> None:
        """And what a key may issue ends by what it may, not by its own end."""
        poor = local.generate({"user_id": "ada", "expires": "2040-01-01T00:00:00Z"})
        rich = local.generate({"user_id": "ada"})
        ci = local.generate({"user_id": "ada", "may_issue": {"duration": "90d"}})

        with pytest.raises(PolicyDeniedError) as caught:
            poor.rotate(rich.key_id)
        with pytest.raises(PolicyDeniedError) as issued:
            ci.generate({"duration": "91d"})

        assert {item.message for item in caught.value.violations} == {
            "it would never end, and the caller's own key ends 2040-01-01T00:00:00Z"
        }
        assert (
            "and the caller's own key may issue keys until 20" in issued.value.violations[0].message
        )

    def test_of_the_owner_is_for_admins(self, local: Holder) -> None:
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        key = local.generate({"user_id": "ada", "team_id": "web"})
        assert "caller.admin_only" in refused(tina.update, key.key_id, {"user_id": "tina"})

    def test_of_the_team_is_judged_as_a_new_key_there(self, local: Holder, world: World) -> None:
        """An empty list of models inherits: out of its team the key would have inherited more."""
        world.change({"team": {"models": ["gpt-4*"]}})
        poor = local.generate({"user_id": "ada", "models": ["gpt-4o"]})
        key = local.generate({"user_id": "ada", "team_id": "web"})
        poor.update(key.key_id, {"team_id": None})
        assert local.info(key.key_id)["models"] == ["gpt-4o"]

    @pytest.mark.parametrize("more", [{}, {"tpm_limit": 9}], ids=["alone", "with a lower limit"])
    def test_of_the_organization_is_judged_as_a_new_key_there(
        self, local: Holder, world: World, more: dict[str, Any]
    ) -> None:
        """A key that leaves its organization leaves that one's budget: not by the key itself."""
        world.change({"organization": {"max_budget": 12 * money.NANO}})
        olga = local.generate({"user_id": "olga", "organization_id": "acme"})
        for elsewhere in (None, "other"):
            asked = {**more, "organization_id": elsewhere}
            assert "caller.purse" in refused(olga.update, olga.key_id, asked)
        assert local.info(olga.key_id)["organization_id"] == "acme"
        local.update(olga.key_id, {**more, "organization_id": None})


class TestRotationElsewhere:
    def test_needs_the_key_to_be_within_the_ceiling(self, local: Holder) -> None:
        rich = local.generate({"user_id": "ada", "team_id": "web", "rpm_limit": 50}, sink="vault")
        tina = local.generate({"user_id": "tina", "team_id": "web", "rpm_limit": 3})
        assert refused(tina.rotate, rich.key_id) == {"caller.rpm_limit"}
        tina.rotate(rich.key_id, Into("vault"))

    def test_by_a_stolen_poor_key_does_not_get_the_owners_rich_one(self, local: Holder) -> None:
        rich = local.generate({"user_id": "ada"})
        poor = local.generate({"user_id": "ada", "duration": "1h"})
        assert refused(poor.rotate, rich.key_id) == {"caller.expires"}

    def test_of_an_admins_key_is_for_admins(self, local: Holder) -> None:
        """The second of the three commands; blocking is left to who administers the team."""
        directory = DirectoryService(local.workspace)
        members = MemberService(local.workspace)
        directory.create(User, "boss", {"role": "proxy_admin"})
        members.add(Team, "web", "boss", "user")
        boss = local.generate({"user_id": "boss", "team_id": "web"})
        tina = local.generate({"user_id": "tina", "team_id": "web"})
        assert refused(tina.rotate, boss.key_id) == {"caller.owner_role"}
        assert refused(tina.update, boss.key_id, {"rpm_limit": 1}) == {"caller.owner_role"}
        assert refused(tina.end, "delete", boss.key_id) == {"caller.owner_role"}
        assert refused(tina.generate, {"user_id": "boss", "team_id": "web"}) >= {
            "caller.owner_role"
        }
        tina.end("block", boss.key_id)


class TestHonestDays:
    def test_a_ci_key_of_thirty_days_mints_keys_of_ninety(self, local: Holder) -> None:
        """By may_issue, itself without models; what it mints administers nothing."""
        bounds = {"duration": "90d", "models": ["gpt-4o"], "max_budget": 5, "max_keys": 2}
        ci = local.generate(
            {
                "user_id": "ada",
                "duration": "30d",
                "key_type": "management",
                "models": ["no-default-models"],
                "may_issue": bounds,
            }
        )
        minted = ci.generate({"duration": "90d", "models": ["gpt-4o"]})
        assert minted.answer["max_budget"] == 5
        assert refused(minted.generate, {}) == {"caller.issued_by_another"}
        assert refused(ci.generate, {"duration": "91d"}) == {"caller.expires"}
        assert refused(ci.generate, {"models": ["o1"]}) == {"caller.models"}
        ci.generate({})
        assert refused(ci.generate, {}) == {"caller.may_issue.max_keys"}
        ci.end("delete", minted.key_id)  # it counts on: no period is given
        assert refused(ci.generate, {}) == {"caller.may_issue.max_keys"}

    def test_only_admins_say_what_a_key_may_issue(self, local: Holder) -> None:
        ada = local.generate({"user_id": "ada"})
        asked = {"may_issue": {"duration": "90d"}}
        assert refused(ada.generate, asked) == {"caller.admin_only"}
        assert refused(ada.update, ada.key_id, asked) == {"caller.admin_only"}

    def test_a_plain_change_by_a_caller_whose_own_key_ends_tomorrow(self, local: Holder) -> None:
        ada = local.generate({"user_id": "ada", "duration": "1d"})
        key = local.generate({"user_id": "ada", "max_budget": 50})
        ada.update(key.key_id, {"max_budget": 40, "tags": ["ci"]})

    def test_a_service_account_rotates_itself(self, local: Holder) -> None:
        robot = local.generate({"team_id": "web"}, service_account=True)
        again = robot.rotate(robot.key_id)
        assert again.answer["administers"] is True
        again.generate({"team_id": "web"}, service_account=True)

    def test_a_service_account_leaves_peoples_keys_alone(self, local: Holder) -> None:
        robot = local.generate({"team_id": "web"}, service_account=True)
        key = local.generate({"team_id": "web", "user_id": "ada"})
        for done in (robot.rotate, lambda given: robot.update(given, {"rpm_limit": 1})):
            assert refused(done, key.key_id) == {"caller.service_account_user"}

    def test_the_local_operator_is_bound_by_policies_only(self, local: Holder) -> None:
        made = local.generate({"user_id": "ada", "max_budget": 9_000_000_000})
        local.rotate(made.key_id)
        local.update(made.key_id, {"user_id": "eve", "may_issue": {"duration": "1d"}})

    def test_an_organization_admin_makes_keys_in_its_teams(
        self, local: Holder, world: World
    ) -> None:
        world.change({"organization": {"policy": {"create_member_keys": True}}})
        olga = local.generate({"user_id": "olga"})
        made = olga.generate({"user_id": "ada", "team_id": "web"})
        assert refused(made.generate, {}) == {"caller.issued_by_another"}

    def test_one_layer_that_says_no_is_enough(self, local: Holder, world: World) -> None:
        world.change(
            {
                "organization": {"policy": {"create_member_keys": True}},
                "team": {"policy": {"create_member_keys": False}},
            }
        )
        olga = local.generate({"user_id": "olga"})
        wanted = {"user_id": "ada", "team_id": "web"}
        assert refused(olga.generate, wanted) == {"caller.member_keys"}


class TestOverrides:
    def test_an_overridden_model_works_until_the_field_or_the_owner_changes(
        self, local: Holder, world: World
    ) -> None:
        """It used to be allowed and then to be usable for nothing."""
        world.change({"team": {"models": ["gpt-4o"]}})
        key = local.generate(
            {"team_id": "web", "models": ["o1"]}, overrides=("team.models",), reason="pilot"
        )

        def usable(model: str) -> bool:
            database = world.workspace.database
            with database.read() as connection:
                stored = queries.find_key(connection, key.key_id)
                team = owners.find(connection, Team, "web")
                assert stored is not None
            return may_use(model, stored, team=team, organization=None, user=None)

        assert usable("o1")
        assert local.info(key.key_id)["overrides"] == [
            {"rule": "team.models", "field": "models", "value": ["o1"], "owner": "team:web"}
        ]
        local.update(key.key_id, {"rpm_limit": 1})
        assert usable("o1")
        local.update(key.key_id, {"models": ["gpt-4o"]})
        assert local.info(key.key_id)["overrides"] == []

    def test_a_blocked_owner_cannot_be_stepped_over(self, local: Holder, world: World) -> None:
        world.change({"team": {"blocked": True}})
        with pytest.raises(Exception, match="cannot be overridden"):
            local.generate({"team_id": "web"}, overrides=("team.blocked",), reason="no")


def test_a_key_of_a_stranger_stays_theirs(local: Holder) -> None:
    """A team admin added a stranger, made a key for them and rotated their private one."""
    members = MemberService(local.workspace)
    members.add(Organization, "acme", "eve", "internal_user")
    private = local.generate({"user_id": "eve"})
    tina = local.generate({"user_id": "tina", "team_id": "web"})
    MemberService(tina.workspace).add(Team, "web", "eve", "user")
    wanted = {"user_id": "eve", "team_id": "web"}
    assert refused(tina.generate, wanted) == {"caller.member_keys"}
    assert refused(tina.rotate, private.key_id) == {"key_not_found"}


class TestGroupsOfModels:
    """A group of models gives what is in it, whatever its name looks like."""

    @pytest.fixture(name="world")
    def _world(self, world: World) -> World:
        world.change({"settings": {"access_groups": {"gpt-beta": ["o1"], "small": ["gpt-4o"]}}})
        return world

    @pytest.mark.parametrize(
        ("own", "asked"),
        [
            ({"models": ["gpt-4o"]}, {"access_group_ids": ["gpt-beta"]}),
            ({"models": ["gpt-4o"]}, {"models": ["gpt-beta"]}),
            ({"models": ["gpt-*"]}, {"models": ["gpt-beta"]}),
            ({"models": ["gpt-*"]}, {"access_group_ids": ["gpt-beta"]}),
            ({"access_group_ids": ["small"]}, {"models": ["o1"]}),
            ({"access_group_ids": ["small"]}, {"access_group_ids": ["gpt-beta"]}),
        ],
    )
    def test_is_no_way_to_more_models(
        self, local: Holder, own: dict[str, Any], asked: dict[str, Any]
    ) -> None:
        """What is in a group that the caller does not have is more than the caller has."""
        ada = local.generate({"user_id": "ada", **own})

        assert refused(lambda: ada.generate(asked)) == {"caller.models"}

    def test_of_the_caller_s_is_what_a_new_key_gets(self, local: Holder) -> None:
        """By its name, so that the new key loses what the group loses."""
        ada = local.generate({"user_id": "ada", "access_group_ids": ["small"]})

        assert ada.generate({}).answer["models"] == ["small"]
