"""Members' limits in fleet files: made, changed, taken away, exported, and told as by `team update-member`."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_files import Fleets
from holders import Holder

from keyctl.db.database import Database
from keyctl.db.queries import directory
from keyctl.errors import KeysLeftError, MalformedRequestError, NotFoundError
from keyctl.records import Team, User
from keyctl.services.audit import AuditService, EventFilter
from keyctl.services.directory import DirectoryService
from keyctl.services.keys.end import EndingService
from keyctl.services.workspace import Workspace

LIMITED = """
budgets: {small: {max_budget: 5}}
users: {ada: {}, bob: {}, eve: {}}
teams:
  web:
    max_budget: 0
    members:
      ada: {role: admin}
      bob: {max_budget: 20, budget_duration: 30d, rpm_limit: 0}
      eve: {budget_id: small, tpm_limit: 9}
"""


@pytest.fixture(name="fleets")
def _fleets(workspace: Workspace, tmp_path: Path) -> Fleets:
    """Fleet files on the database of the test."""
    return Fleets.at(workspace, tmp_path / "keys")


class TestLimitsOfMembers:
    def test_are_made_and_exported(self, fleets: Fleets, tmp_path: Path) -> None:
        """An export applied to an empty database gives the members the same limits, 0 too."""
        fleets.apply(LIMITED)
        exported = fleets.export()
        database = Database(f"sqlite:///{tmp_path}/other.db")
        database.upgrade()
        there = fleets.on(database)

        there.apply(exported)

        assert yaml.safe_load(exported)["teams"]["web"] == {
            "max_budget": 0,
            "members": {
                "ada": {"role": "admin"},
                "bob": {
                    "role": "user",
                    "max_budget": 20,
                    "budget_duration": "30d",
                    "rpm_limit": 0,
                },
                "eve": {"role": "user", "tpm_limit": 9, "budget_id": "small"},
            },
            "adopt": True,
        }
        assert fleets.plan(exported).changes == fleets.plan(LIMITED).changes == []
        assert there.export() == exported
        assert members_of(there) == members_of(fleets)
        for world in (fleets, there):
            AuditService(world.workspace).verify(state=True, step=lambda: None)
        database.engine.dispose()

    def test_change_field_by_field(self, fleets: Fleets) -> None:
        """What differs is shown and written, with one event; who was promoted keeps the limits."""
        fleets.apply(LIMITED)
        changed = LIMITED.replace("max_budget: 20", "role: admin, max_budget: 30.5").replace(
            "{role: admin}\n", "{role: admin, rpm_limit: 3}\n"
        )

        (change,) = fleets.plan(changed).changes
        fleets.apply(changed)

        assert (change.action, dict(change.fields)) == (
            "update",
            {
                "members.ada.rpm_limit": (None, 3),
                "members.bob": ("user", "admin"),
                "members.bob.max_budget": (20, 30.5),
            },
        )
        assert fleets.plan(changed).changes == []
        bob = members_of(fleets)["bob"]
        assert (bob["role"], bob["max_budget"], bob["budget_duration"]) == ("admin", 30.5, "30d")
        told = [
            (item["before"]["max_budget"], item["after"]["max_budget"])
            for item in events_of(fleets, "team_member_updated")
        ]
        assert told == [(None, None), ("20", "30.5")]

    def test_end_where_null_says_so(self, fleets: Fleets) -> None:
        """A limit that is left out stays; null takes it away, and its period's beginning with it."""
        fleets.apply(LIMITED)
        silent = "teams: {web: {members: {bob: {}, eve: {tpm_limit: 9}}}}"
        ending = "teams: {web: {members: {bob: {max_budget: null, budget_duration: null}}}}"

        assert fleets.lines(silent) == []
        (change,) = fleets.plan(ending).changes
        fleets.apply(ending)

        assert dict(change.fields) == {
            "members.bob.budget_duration": ("30d", None),
            "members.bob.max_budget": (20, None),
        }
        with fleets.workspace.database.read() as connection:
            bob = directory.find_member(connection, "web", "bob")
        assert bob is not None
        assert (bob.max_budget, bob.budget_duration, bob.budget_anchor_at, bob.rpm_limit) == (
            None,
            None,
            None,
            0,
        )

    def test_what_is_wrong_has_its_line(self, fleets: Fleets) -> None:
        """A limit that is none, a field that is none, and a tier that nobody described."""
        text = "teams:\n  t:\n    members:\n      a: {rpm_limit: -1}\n      b: {spend: 1}\n"
        with pytest.raises(MalformedRequestError) as caught:
            fleets.plan(text)
        assert [(item.field, item.message[:8]) for item in caught.value.violations] == [
            ("teams.t.members.a.rpm_limit", "1.yaml:4"),
            ("teams.t.members.b.spend", "1.yaml:5"),
        ]

        with pytest.raises(NotFoundError, match="there is no budget 'none'"):
            fleets.plan("users: {a: {}}\nteams: {t: {members: {a: {budget_id: none}}}}\n")

    def test_keep_the_tier_that_they_name(self, fleets: Fleets) -> None:
        """A tier that a member gets in the same plan is not ended by it."""
        fleets.apply("budgets: {small: {max_budget: 5}}\nusers: {a: {}}\nteams: {t: {}}\n")
        named = "users: {a: {}}\nteams: {t: {members: {a: {budget_id: small}}}}\n"

        fleets.apply(named, prune=True)

        assert members_of(fleets, "t")["a"]["budget_id"] == "small"
        assert yaml.safe_load(fleets.export())["budgets"] == {
            "small": {"max_budget": 5, "adopt": True}
        }

    def test_keep_the_tier_that_an_entry_names_which_is_not_chosen(self, fleets: Fleets) -> None:
        """--only chooses what is changed now; what the files say besides still stands."""
        fleets.apply("budgets: {small: {max_budget: 5}}\n")

        found = fleets.lines(
            "users: {a: {budget_id: small}}\n", prune=True, only=(("budget", "small"),)
        )

        assert found == []


def members_of(fleets: Fleets, team: str = "web") -> dict[str, Any]:
    """Return what is shown of each member of a team."""
    found = DirectoryService(fleets.workspace).info(Team, team)["members_with_roles"]
    return {item["user_id"]: item for item in found}


def events_of(fleets: Fleets, action: str) -> list[dict[str, Any]]:
    """Return the events of one kind."""
    events = AuditService(fleets.workspace).export(EventFilter())
    return [item for item in events if item["action"] == action]


LED = """
users: {ada: {user_role: proxy_admin}, bob: {}}
teams: {web: {members: {ada: {role: admin}, bob: {}}}}
keys:
  ada-1: {team_id: web, user_id: ada, deliver: files}
  ada-2: {user_id: ada, deliver: files}
  bob-1: {team_id: web, user_id: bob, deliver: files}
"""
LOWER_MEMBER = LED.replace("ada: {role: admin}", "ada: {role: user}")
LOWER_USER = LED.replace("proxy_admin", "internal_user")


class TestLowerRoles:
    """As by `team update-member` and `user update`, a lower role asks what becomes of the keys there."""

    @pytest.mark.parametrize(
        ("text", "field", "left"),
        [
            (LOWER_MEMBER, "teams.web.members.ada", ["ada-1"]),
            (LOWER_USER, "users.ada.user_role", ["ada-1", "ada-2"]),
        ],
    )
    def test_ask_what_becomes_of_keys(
        self, fleets: Fleets, text: str, field: str, left: list[str]
    ) -> None:
        """Plan and apply are refused with place and names; nothing is written."""
        fleets.apply(LED)

        for refused in (fleets.plan, fleets.apply):
            with pytest.raises(KeysLeftError) as caught:
                refused(text)
            (violation,) = caught.value.violations
            assert (violation.rule, violation.field) == ("directory.keys_left", field)
            assert violation.message.startswith("1.yaml:")
            assert [
                name for name in ("ada-1", "ada-2", "bob-1") if name in violation.message
            ] == left
            assert "--keys" in str(caught.value.hint)

        assert fleets.plan(LED).changes == []

    @pytest.mark.parametrize(
        ("keys", "after"), [("block", "blocked"), ("delete", None), ("keep", "active")]
    )
    def test_are_settled_as_said(self, fleets: Fleets, keys: Any, after: str | None) -> None:
        """The keys there are blocked, deleted or kept, the plan says so, and others stay as they are."""
        fleets.apply(LED)

        (warned,) = fleets.plan(LOWER_MEMBER, keys=keys).warnings
        fleets.apply(LOWER_MEMBER, keys=keys)

        assert "(ada-1) is " in warned.message
        assert members_of(fleets)["ada"]["role"] == "user"
        if after is None:
            with pytest.raises(NotFoundError):
                fleets.key("ada-1")
        else:
            assert fleets.key("ada-1")["blocked"] is (after == "blocked")
        assert not fleets.key("ada-2")["blocked"]
        assert not fleets.key("bob-1")["blocked"]
        AuditService(fleets.workspace).verify(state=True, step=lambda: None)

    def test_a_key_that_goes_in_the_same_plan_is_not_left(self, fleets: Fleets) -> None:
        """What gets another owner by the same files belongs to nobody who leaves."""
        fleets.apply(LED)

        fleets.apply(
            LOWER_MEMBER.replace(
                "ada-1: {team_id: web, user_id: ada", "ada-1: {team_id: web, user_id: bob"
            )
        )

        assert members_of(fleets)["ada"]["role"] == "user"
        assert not fleets.key("ada-1")["blocked"]


ROBOT = """
users: {ada: {}}
teams:
  web:
    members: {ada: {role: admin}}
    policy: {team_member_permissions: [/key/service-account/generate]}
"""
WITHOUT_ADA = "teams: {web: {}}\n"


class TestEndedUsers:
    """As by `user delete`, the end of a user asks what becomes of the service accounts it can act as."""

    @pytest.fixture(name="robot")
    def _robot(self, fleets: Fleets) -> str:
        """The id of a service account whose administering secret ada took."""
        fleets.apply(ROBOT)
        ada = Holder(fleets.workspace, None).generate({"user_id": "ada"})
        robot = ada.generate({"team_id": "web", "key_alias": "robot"}, service_account=True)
        EndingService(fleets.workspace).delete([ada.key_id])
        return robot.key_id

    def test_ask_what_becomes_of_service_accounts(self, fleets: Fleets, robot: str) -> None:
        """Plan and apply with prune are refused with the user and the key; nothing is written."""
        for refused in (fleets.plan, fleets.apply):
            with pytest.raises(KeysLeftError, match=robot) as caught:
                refused(WITHOUT_ADA, prune=True)
            (violation,) = caught.value.violations
            assert (violation.rule, violation.field) == ("directory.keys_left", "users.ada")
            assert "--keys" in str(caught.value.hint)
        assert fleets.plan(ROBOT).changes == []
        fleets.plan(WITHOUT_ADA)  # without prune nobody ends

    @pytest.mark.parametrize(
        ("keys", "after"), [("block", "blocked"), ("delete", "deleted"), ("keep", "active")]
    )
    def test_are_settled_as_said(self, fleets: Fleets, robot: str, keys: Any, after: str) -> None:
        """The user ends, the service account is blocked, deleted or kept, and the plan says so."""
        plan = fleets.plan(WITHOUT_ADA, prune=True, keys=keys)
        fleets.apply(WITHOUT_ADA, prune=True, keys=keys)

        assert f"'ada' is described no more: {robot} (robot) is " in plan.warnings[-1].message
        assert fleets.key(robot)["state"] == after
        with pytest.raises(NotFoundError):
            DirectoryService(fleets.workspace).info(User, "ada")
        AuditService(fleets.workspace).verify(state=True, step=lambda: None)
