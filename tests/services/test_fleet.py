"""Fleets: what files describe is planned, applied, exported, and never changed twice."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fleet_files import Fleets
from sqlalchemy import Connection, Engine, event

from keyctl.errors import (
    DeliveryError,
    DeniedError,
    FleetNotFoundError,
    KeyctlError,
    MalformedRequestError,
    NotFoundError,
    NotManagedError,
    PlanOutdatedError,
    PolicyDeniedError,
    UsageError,
)
from keyctl.policy.facts import Caller
from keyctl.records import Key, Team, User
from keyctl.services.audit import AuditService
from keyctl.services.budgets import BudgetService
from keyctl.services.directory import DirectoryService
from keyctl.services.fleet.model import KeyChange, stamp_of
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.workspace import Workspace

WEB = """
version: 1
organizations: {acme: {max_budget: 1000}}
users: {alice@example.com: {user_role: internal_user}}
teams:
  web:
    organization_id: acme
    models: ["gpt-4*"]
    policy: {upperbound_key_generate_params: {max_budget: 25}}
    members: {alice@example.com: {role: admin}}
keys:
  checkout: {team_id: web, max_budget: 20, deliver: files}
  worker-{n}: {count: 3, team_id: web, deliver: files}
"""
ALL = ["checkout", "worker-1", "worker-2", "worker-3"]


@pytest.fixture(name="fleets")
def _fleets(workspace: Workspace, tmp_path: Path) -> Fleets:
    """Fleet files on the test's database."""
    return Fleets.at(workspace, tmp_path / "keys")


@pytest.fixture(name="commits")
def _commits() -> Iterator[list[str]]:
    """A list that grows with each transaction that is committed."""
    commits: list[str] = []

    def note(connection: Connection) -> None:
        if connection.get_execution_options().get("keyctl_mode") != "read":
            commits.append(str(connection))

    event.listen(Engine, "commit", note)
    yield commits
    event.remove(Engine, "commit", note)


class TestApply:
    def test_makes_what_is_described(self, fleets: Fleets) -> None:
        """Owners, members and keys are there; every key is in its sink and valid; again is nothing."""
        made = fleets.apply(WEB)

        assert made == ALL
        assert all(fleets.is_valid(name) for name in ALL)
        assert fleets.key("worker-2")["max_budget"] == 25
        assert fleets.lines(WEB) == []
        assert fleets.plan(WEB).summary()["unchanged"] == 7
        assert fleets.apply(WEB) == []

    def test_changes_only_what_differs(self, fleets: Fleets) -> None:
        """One changed field is one change; the id, the secret and the others stay."""
        fleets.apply(WEB)
        before, held = fleets.key("checkout"), fleets.held("checkout")

        changed = WEB.replace("max_budget: 20", "max_budget: 22.5").replace("1000", "2000")
        plan = fleets.plan(changed)
        fleets.apply(changed)

        assert {item.object_id: dict(item.fields) for item in plan.changes} == {
            "acme": {"max_budget": (1000, 2000)},
            "checkout": {"max_budget": (20, 22.5)},
        }
        after = fleets.key("checkout")
        assert (after["key_id"], after["max_budget"]) == (before["key_id"], 22.5)
        assert fleets.held("checkout") == held
        assert fleets.is_valid("checkout")

    def test_left_out_is_not_managed(self, fleets: Fleets) -> None:
        """What a file does not name may be changed by hand; null says that it is to be empty."""
        fleets.apply(WEB)
        ChangeService(fleets.workspace).update("checkout", {"rpm_limit": 5, "tags": ["x"]})

        assert fleets.lines(WEB) == []
        named = WEB.replace("max_budget: 20,", "max_budget: 20, rpm_limit: null, tags: [],")
        assert fleets.lines(named) == ["update key checkout"]
        fleets.apply(named)
        assert (fleets.key("checkout")["rpm_limit"], fleets.key("checkout")["tags"]) == (None, [])
        assert fleets.lines(named) == []

    def test_a_default_does_not_fill_what_is_to_be_empty(self, fleets: Fleets) -> None:
        """An empty list is a statement, at creation too."""
        text = """
        teams: {t: {policy: {default_key_generate_params: {tags: [ci], rpm_limit: 9}}}}
        keys: {k: {team_id: t, tags: [], rpm_limit: null, deliver: files}}
        """

        fleets.apply(text)

        assert (fleets.key("k")["tags"], fleets.key("k")["rpm_limit"]) == ([], None)
        assert fleets.lines(text) == []

    def test_issues_keys_in_batches(self, fleets: Fleets, commits: list[str]) -> None:
        """A hundred keys cost three writing transactions, not two each."""
        text = "teams: {t: {}}\nkeys: {'w-{n}': {count: 100, team_id: t, deliver: files}}\n"
        fleets.apply("teams: {warm: {}}\n")
        commits.clear()

        assert len(fleets.apply(text)) == 100

        # Reading commits too: the preview, questions of sinks, and what was written read back.
        assert len(commits) <= 12

    def test_a_key_that_fails_stops_no_other(self, fleets: Fleets, tmp_path: Path) -> None:
        """What its sink does not take is archived and made by the next run."""
        fleets.apply("teams: {t: {}}\n")
        text = """
        teams: {t: {}}
        keys: {a: {team_id: t, deliver: files}, b: {team_id: t, deliver: files}}
        """
        (fleets.folder / "a").mkdir()

        with pytest.raises(KeyctlError) as caught:
            fleets.plan(text)
        (fleets.folder / "a").rmdir()

        assert caught.value.exit_code in (5, 8)
        assert "1.yaml:3" in caught.value.message
        assert fleets.apply(text) == ["a", "b"]

    def test_needs_a_place_for_new_keys(self, fleets: Fleets) -> None:
        """A key string that nobody would get is not made."""
        with pytest.raises(UsageError, match="a new key needs deliver"):
            fleets.apply("keys: {a: {}}\n")

        assert fleets.lines("keys: {a: {}}\n") == ["create key a"]

    def test_only_admins_apply(self, fleets: Fleets) -> None:
        """Viewers plan and export; others do neither."""
        viewer = Caller(actor="key:v", role="proxy_admin_viewer", user_id="v")
        nobody = Caller(actor="key:n", role="internal_user", user_id="n")
        seen = replace(fleets, workspace=replace(fleets.workspace, caller=viewer))
        blind = replace(fleets, workspace=replace(fleets.workspace, caller=nobody))

        assert len(seen.plan(WEB).changes) == 7
        assert not seen.plan(WEB).is_denied
        assert seen.export() == "version: 1\n"
        for attempt in (seen.apply, blind.plan, blind.apply):
            with pytest.raises(DeniedError):
                attempt(WEB)
        with pytest.raises(DeniedError):
            blind.export()


class TestDenied:
    def test_every_violation_at_plan_time(self, fleets: Fleets) -> None:
        """Also of keys whose team is only described; nothing is written."""
        text = WEB.replace("max_budget: 20", "max_budget: 30, models: [o1]")

        plan = fleets.plan(text)

        denied = [change for change in plan.changes if change.violations]
        assert [change.object_id for change in denied] == ["checkout"]
        assert {item.rule for item in denied[0].violations} == {
            "team.upperbound.max_budget",
            "team.models",
        }
        with pytest.raises(PolicyDeniedError):
            fleets.apply(text)
        assert len(fleets.lines(WEB)) == 7

    def test_a_misspelt_model_is_told_with_the_nearest(self, fleets: Fleets) -> None:
        """As where the key is made by hand."""
        text = (
            "teams: {t: {models: [gpt-4o-mini]}}\nkeys: {k: {team_id: t, models: [gpt-4o-mni]}}\n"
        )

        told = [item.message for change in fleets.plan(text).changes for item in change.violations]

        assert told == ["not among the team's models: gpt-4o-mni (did you mean gpt-4o-mini?)"]

    def test_sums_count_the_whole_fleet(self, fleets: Fleets) -> None:
        """Three places are taken by what ends and what is made together, in any order."""
        text = "teams: {t: {policy: {max_keys: 3}}}\nkeys: {'w-{n}': {count: 3, team_id: t, deliver: files}}\n"
        fleets.apply(text)

        assert fleets.plan(text.replace("count: 3", "count: 4")).is_denied
        swapped = text.replace("w-{n}", "x-{n}")
        assert fleets.plan(swapped).is_denied
        assert not fleets.plan(swapped, prune=True).is_denied
        assert fleets.apply(swapped, prune=True) == ["x-1", "x-2", "x-3"]

    def test_what_is_missing(self, fleets: Fleets) -> None:
        """Each object that is named and neither there nor described, with its place."""
        with pytest.raises(NotFoundError) as caught:
            fleets.plan(
                """
                teams: {t: {organization_id: nowhere, members: {ghost: {}}}}
                keys:
                  a: {team_id: nobody, deliver: files}
                """
            )

        assert [
            (item.field, item.message.partition(": ")[0]) for item in caught.value.violations
        ] == [
            ("teams.t.organization_id", "1.yaml:2"),
            ("teams.t.members.ghost", "1.yaml:2"),
            ("keys.a.team_id", "1.yaml:4"),
        ]

    def test_a_name_that_is_like_a_described_one_is_told_with_it(self, fleets: Fleets) -> None:
        """Of owners, members and tiers: what a file describes is not stored yet."""
        with pytest.raises(NotFoundError) as caught:
            fleets.plan(
                """
                organizations: {acme: {}}
                users: {alice: {budget_id: smal}}
                teams: {search: {organization_id: acmee, members: {alcie: {}}}}
                budgets: {small: {max_budget: 5}}
                keys:
                  a: {team_id: serach, deliver: files}
                  b: {budget_id: smal, deliver: files}
                """
            )

        assert [item.message.partition(": ")[2] for item in caught.value.violations] == [
            "there is no budget 'smal' (did you mean small?)",
            "there is no organization 'acmee' (did you mean acme?)",
            "there is no user 'alcie' (did you mean alice?)",
            "there is no team 'serach' (did you mean search?)",
            "there is no budget 'smal' (did you mean small?)",
        ]

    def test_an_unknown_sink(self, fleets: Fleets) -> None:
        """It is found when the plan is made."""
        with pytest.raises(UsageError, match=r"1\.yaml:1: there is no sink 'valt'"):
            fleets.plan("keys: {a: {deliver: valt}}\n")

    def test_a_place_that_is_taken(self, fleets: Fleets) -> None:
        """A file that keyctl did not write is in the way before anything is written."""
        (fleets.folder / "a").write_text("precious")

        with pytest.raises(DeliveryError, match=r"1\.yaml:1"):
            fleets.plan("keys: {a: {deliver: files}}\n")

    def test_a_policy_that_came_later_is_a_warning(self, fleets: Fleets) -> None:
        """What does not change is not judged anew."""
        fleets.apply("teams: {t: {}}\nkeys: {a: {team_id: t, max_budget: 9, deliver: files}}\n")
        later = "teams: {t: {policy: {upperbound_key_generate_params: {max_budget: 5}}}}\nkeys: {a: {team_id: t, max_budget: 9}}\n"

        plan = fleets.plan(later)

        assert not plan.is_denied
        assert any("team.upperbound.max_budget" in item.message for item in plan.warnings)


class TestWhose:
    def test_what_apply_did_not_make_is_adopted_by_name(self, fleets: Fleets) -> None:
        """Adopting takes the id of a key, and `true` for an owner; alone it is nothing to do."""
        fleets.apply(WEB)
        other = WEB.replace("version: 1", "version: 1\nfleet: other")
        with pytest.raises(NotManagedError, match="belongs to fleet 'default'"):
            fleets.plan(other)
        DirectoryService(fleets.workspace).create(Team, "old", {})
        with pytest.raises(NotManagedError, match="no fleet has it"):
            fleets.plan("teams: {old: {}}\n")

        plan = fleets.plan("teams: {old: {adopt: true}}\n")

        assert [item.action for item in plan.changes] == ["adopt"]
        assert not plan.does_something
        fleets.apply("teams: {old: {adopt: true}}\n")
        assert fleets.lines("teams: {old: {}}\n") == []

    def test_prune_ends_its_own_only(self, fleets: Fleets) -> None:
        """What no file describes any more ends; owners when nothing alive depends on them."""
        fleets.apply(WEB)
        DirectoryService(fleets.workspace).create(User, "hand", {})
        less = WEB.replace("count: 3", "count: 1").replace(
            "  checkout: {team_id: web, max_budget: 20, deliver: files}\n", ""
        )

        assert fleets.lines(less) == []
        assert "3 objects are described no more" in fleets.plan(less).warnings[0].message
        assert fleets.lines(less, prune=True) == [
            "delete key checkout",
            "delete key worker-2",
            "delete key worker-3",
        ]
        with pytest.raises(UsageError, match="--expect-count 2, but 3"):
            fleets.apply(less, prune=True, ends=2)
        fleets.apply(less, prune=True, ends=3)
        assert fleets.lines(less, prune=True) == []
        assert fleets.lines("version: 1\n", prune=True) == [
            "delete organization acme",
            "delete user alice@example.com",
            "delete team web",
            "delete key worker-1",
        ]
        fleets.apply("version: 1\n", prune=True)
        assert (
            fleets.export()
            == "version: 1\nusers:\n  hand:\n    user_role: internal_user\n    adopt: true\n"
        )

    def test_owners_that_are_needed_stay(self, fleets: Fleets) -> None:
        """A team with somebody else's key outlives its description."""
        fleets.apply("teams: {t: {}}\n")
        fleets.apply("fleet: b\nkeys: {k: {team_id: t, deliver: files}}\n")

        plan = fleets.plan("version: 1\n", prune=True)

        assert plan.changes == []
        assert "still belong to it" in plan.warnings[0].message

    def test_deleted_by_hand_is_made_again(self, fleets: Fleets) -> None:
        """Drift in either direction is seen, and mended."""
        fleets.apply(WEB)
        EndingService(fleets.workspace).delete(["worker-2"])
        ChangeService(fleets.workspace).update("checkout", {"max_budget": 1})

        assert fleets.lines(WEB) == ["update key checkout", "create key worker-2"]
        assert fleets.apply(WEB) == ["worker-2"]
        assert fleets.is_valid("worker-2")

    def test_only(self, fleets: Fleets) -> None:
        """One team and what belongs to it may be planned alone."""
        text = "teams: {a: {}, b: {}}\nkeys: {k: {team_id: a, deliver: files}, l: {team_id: b, deliver: files}}\n"

        assert fleets.lines(text, only=(("team", "a"),)) == ["create team a", "create key k"]


TIERS = """
budgets: {small: {max_budget: 5, budget_duration: 1d}}
teams: {t: {}}
users: {u: {budget_id: small}}
keys: {'w-{n}': {count: 2, team_id: t, budget_id: small, deliver: files}}
"""


class TestTiers:
    def test_come_before_who_names_them(self, fleets: Fleets) -> None:
        """A tier, a user and keys that name it are made by one file, exported, and ended together."""
        assert fleets.apply(TIERS) == ["w-1", "w-2"]

        assert fleets.lines(TIERS) == []
        assert fleets.plan(fleets.export()).changes == []
        assert fleets.lines(TIERS.replace("max_budget: 5", "max_budget: 6")) == [
            "update budget small"
        ]
        less = "teams: {t: {}}\nkeys: {'w-{n}': {count: 2}}\n"
        assert fleets.lines(less, prune=True) == ["delete user u"]
        assert fleets.lines("teams: {t: {}}\n", prune=True) == [
            "delete user u",
            "delete key w-1",
            "delete key w-2",
        ]
        fleets.apply("teams: {t: {}}\n", prune=True)
        assert fleets.lines("teams: {t: {}}\n", prune=True) == ["delete budget small"]

    def test_one_that_is_not_there(self, fleets: Fleets) -> None:
        """A tier that is neither there nor described is an error with its place."""
        with pytest.raises(NotFoundError, match=r"1\.yaml:2: there is no budget 'none'"):
            fleets.plan("\nkeys: {k: {budget_id: none, deliver: files}}\n")


TEAM_BUDGETS = """
teams:
  web:
    budget_limits:
      - {budget_duration: 1d, max_budget: 5.5}
      - {budget_duration: 30d, max_budget: 50}
    model_max_budget:
      gpt-4o: {budget_limit: 0.25, time_period: 1d}
      o1: {max_budget: 3, rpm_limit: 9}
"""


class TestBudgetsOfTeams:
    def test_are_made_changed_exported_and_ended(self, fleets: Fleets) -> None:
        """Windows and budgets of single models, in LiteLLM's words too; amounts are dollars."""
        fleets.apply(TEAM_BUDGETS)
        assert fleets.lines(TEAM_BUDGETS) == []
        exported = fleets.export()
        assert fleets.plan(exported).changes == []
        assert "max_budget: 5.5" in exported
        changed = TEAM_BUDGETS.replace("5.5", "6").replace("rpm_limit: 9", "rpm_limit: 8")
        (change,) = fleets.plan(changed).changes
        assert sorted(change.fields) == ["budget_limits", "model_max_budget"]
        fleets.apply(changed)
        fleets.apply("teams: {web: {budget_limits: null, model_max_budget: {}}}\n")
        (change,) = fleets.plan(TEAM_BUDGETS).changes
        assert change.fields["budget_limits"][0] == []
        assert change.fields["model_max_budget"][0] == {}

    def test_of_organizations_and_tokens_are_described_too(self, fleets: Fleets) -> None:
        """Whole round: made, exported, changed, cleared."""
        described = (
            "organizations:\n  acme:\n    model_max_budget: {o1: {max_budget: 2.5}}\n"
            "    tpd_limit: 900\n    max_parallel_requests: 4\n"
            "teams: {web: {tpd_limit: 800}}\n"
        )
        fleets.apply(described)
        exported = fleets.export()
        assert fleets.plan(exported).changes == []
        assert "tpd_limit: 900" in exported
        (change,) = fleets.plan(described.replace("2.5", "3")).changes
        assert (change.object_id, list(change.fields)) == ("acme", ["model_max_budget"])
        fleets.apply("organizations: {acme: {tpd_limit: null, model_max_budget: null}}\n")
        (change,) = fleets.plan(described).changes
        assert sorted(change.fields) == ["model_max_budget", "tpd_limit"]

    def test_name_each_period_once(self, fleets: Fleets) -> None:
        """What is spent is counted by period."""
        twice = TEAM_BUDGETS.replace("30d", "1d")
        with pytest.raises(MalformedRequestError) as caught:
            fleets.plan(twice)
        assert "names a budget_duration twice" in caught.value.violations[0].message


class TestRename:
    def test_keeps_the_key(self, fleets: Fleets) -> None:
        """Id, secret and spend stay; the old name is free."""
        fleets.apply("keys: {old: {deliver: still}}\n")
        before = fleets.key("old")
        BudgetService(fleets.workspace).add("old", 5 * 10**9)

        renamed = "keys: {new: {was: old, deliver: still}}\n"
        plan = fleets.plan(renamed)
        fleets.apply(renamed)

        after = fleets.key("new")
        assert [(item.action, dict(item.fields)) for item in plan.changes] == [
            ("update", {"key_alias": ("old", "new")})
        ]
        assert (after["key_id"], after["secrets"], after["spend"]) == (
            before["key_id"],
            before["secrets"],
            5,
        )
        assert fleets.is_valid(before["key_id"])
        assert fleets.lines(renamed) == []

    def test_a_place_that_moves_needs_a_rotation(self, fleets: Fleets) -> None:
        """Where the sink's path has the alias the new place would be empty: the plan says so."""
        fleets.apply("keys: {old: {deliver: files}}\n")
        renamed = "keys: {new: {was: old, deliver: files}}\n"

        assert "needs rotate: true" in fleets.plan(renamed).warnings[0].message
        with pytest.raises(UsageError, match="the sink would keep the key elsewhere"):
            fleets.apply(renamed)
        rotated = renamed.replace("was: old", "was: old, rotate: true")
        assert fleets.apply(rotated) == ["new"]
        assert fleets.is_valid("new")
        assert fleets.lines(rotated) == []

    def test_a_described_name_is_no_old_name(self, fleets: Fleets) -> None:
        """While OLD is described itself, NEW is another key."""
        fleets.apply("keys: {old: {deliver: still}}\n")

        assert fleets.lines("keys: {old: {}, new: {was: old, deliver: still}}\n") == [
            "create key new"
        ]

    def test_templates(self, fleets: Fleets) -> None:
        """What is counted is renamed together."""
        fleets.apply("keys: {'w-{n}': {count: 2, deliver: still}}\n")

        renamed = "keys: {'v-{n}': {count: 2, was: 'w-{n}', deliver: still}}\n"
        assert fleets.lines(renamed) == ["update key v-1", "update key v-2"]


class TestExport:
    def test_is_what_is_there(self, fleets: Fleets) -> None:
        """What is exported describes what is stored: there is nothing to do."""
        fleets.apply(WEB)

        plan = fleets.plan(fleets.export())

        assert (plan.changes, plan.problems, plan.warnings) == ([], [], [])

    def test_takes_over_what_was_made_by_hand(self, fleets: Fleets) -> None:
        """A key without an alias is described by its id."""
        fleets.apply(WEB)
        with fleets.workspace.database.write() as connection:
            connection.exec_driver_sql("UPDATE keys SET managed_by = NULL")
            connection.exec_driver_sql(
                "UPDATE keys SET key_alias = NULL WHERE key_alias = 'checkout'"
            )

        exported = fleets.export()
        plan = fleets.plan(exported)

        assert {item.action for item in plan.changes} == {"adopt"}
        fleets.apply(exported)
        assert fleets.lines(exported) == []

    def test_of_a_team(self, fleets: Fleets) -> None:
        """The team, what it belongs to, its people and its keys."""
        fleets.apply(WEB)
        fleets.apply("fleet: b\nteams: {other: {}}\nusers: {eve: {}}\n")

        with pytest.raises(UsageError, match="several fleets"):
            fleets.export("web")
        exported = fleets.export("web", fleet="default")

        assert "eve" not in exported
        assert "other" not in exported
        assert fleets.plan(exported).changes == []
        with pytest.raises(NotFoundError):
            fleets.export("nowhere")

    def test_of_a_fleet_that_nothing_belongs_to(self, fleets: Fleets) -> None:
        """It does not exist, and the hint has those that do."""
        fleets.apply(WEB)
        fleets.apply("fleet: b\nusers: {eve: {}}\n")

        with pytest.raises(FleetNotFoundError, match="no object belongs to fleet 'a'") as refused:
            fleets.export(fleet="a")

        assert refused.value.hint == "there are: b, default"


class TestSavedPlan:
    def test_refuses_a_world_that_moved_on(self, fleets: Fleets) -> None:
        """Whatever was recorded since: the plan is not what was reviewed."""
        head = fleets.plan(WEB).head
        fleets.apply("fleet: b\nusers: {eve: {}}\n")

        with pytest.raises(PlanOutdatedError):
            fleets.apply(WEB, head=head)

        assert len(fleets.lines(WEB)) == 7
        assert fleets.apply(WEB, head=fleets.plan(WEB).head) == ALL


def test_a_stamp_tells_a_change_from_use() -> None:
    """What gateways write leaves the stamp of a key as it is; another limit or owner does not."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    key = Key(id="key_1", created_at=at, created_by="x", updated_at=at, updated_by="x")

    used = replace(key, spend=5, last_used_at=at, budget_reset_at=at)
    changed = [replace(key, rpm_limit=1), replace(key, team_id="t"), replace(key, deleted_at=at)]

    assert stamp_of(used) == stamp_of(key)
    assert len({stamp_of(item) for item in [key, *changed]}) == 4


def test_a_plan_of_many_changes_holds_little_of_each(fleets: Fleets) -> None:
    """Not the whole keys before and after: what many of them get is held once."""
    text = (
        "teams: {t: {}}\nkeys: {'k-{n}': {count: 40, team_id: t, deliver: files, max_budget: 5}}\n"
    )
    fleets.apply(text)

    changed = text.replace("max_budget: 5", "max_budget: 6")
    plan = fleets.plan(changed)
    fleets.apply(changed)

    changes = [change for change in plan.changes if isinstance(change, KeyChange)]
    assert len(changes) == 40
    assert len({id(change.fields) for change in changes}) == 1
    assert len({id(change.values) for change in changes}) == 1
    assert not any(isinstance(getattr(changes[0], name), Key) for name in KeyChange.__slots__)
    assert fleets.plan(changed).changes == []
    AuditService(fleets.workspace).verify(state=True, step=lambda: None)
