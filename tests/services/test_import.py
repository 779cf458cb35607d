"""keyctl import litellm: from real tables in a real database, every old key string works here."""

import json
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from clock import Clock
from harness import Cli
from litellm_tables import LiteLLM, digest, key
from migrating import OLD, OLDER, RunImport, environment, events, results, stored
from sqlalchemy import text

from keyctl.config.settings import Settings
from keyctl.db.litellm_source import opened
from keyctl.db.queries import directory, tiers
from keyctl.errors import BusyError, DeniedError, UnconfirmedError, UsageError
from keyctl.gateway import Verifier
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Team, User
from keyctl.services.audit import AuditService
from keyctl.services.directory import DirectoryService
from keyctl.services.import_litellm.report import ImportLine, ImportOrder
from keyctl.services.import_litellm.service import ImportService
from keyctl.services.members import MemberService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace

DEEP: Any = json.loads('{"a":' * 500 + "1" + "}" * 500)


class TestKeys:
    def test_an_old_key_string_works(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """The string that a client holds verifies here, and the key is what it was there."""
        reset_at = datetime(2030, 2, 1)  # noqa: DTZ001  # the column has no zone
        litellm.add(
            "keys",
            key(
                OLD,
                key_alias="ci",
                models=["gpt-4"],
                max_budget=12.1,
                spend=3.0000000001,
                budget_duration="1mo",
                budget_reset_at=reset_at,
                rpm_limit=7,
                metadata={"tags": ["a"], "app": "web"},
                created_by="ada",
            ),
        )

        lines = run()

        assert results(lines) == {("key", "imported"): 1}
        verdict = verify(workspace.database, OLD)
        found = stored(workspace, OLD)
        assert (verdict.valid, verdict.key_id, verdict.key_alias) == (True, found.id, "ci")
        assert (found.max_budget, found.spend) == (12_100_000_000, 3_000_000_001)
        assert (found.models, found.tags, found.metadata) == (["gpt-4"], ["a"], {"app": "web"})
        assert (found.budget_duration, found.rpm_limit) == ("1mo", 7)
        assert f"{found.budget_reset_at}" == "2030-02-01 00:00:00+00:00"
        assert f"{found.created_at} {found.created_by}" == "2029-06-01 08:30:00+00:00 litellm:ada"

    def test_another_key_string_does_not(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """Neither the hash itself nor another string is a credential."""
        litellm.add("keys", key(OLD))

        run()

        assert verify(workspace.database, OLDER).reason == "unknown"
        assert verify(workspace.database, digest(OLD)).reason == "malformed"

    def test_all_are_told_before_they_are_read_back(
        self, workspace: Workspace, litellm: LiteLLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A database that stays away by then hides none, and is said to have what was imported."""
        DirectoryService(workspace).create(Team, "web", {"policy": {"max_keys": 1}})
        litellm.add("keys", key(OLD, team_id="web"), key(OLDER, team_id="web"))

        def away(*_: object) -> None:
            raise BusyError("the database is busy")

        monkeypatch.setattr("keyctl.services.import_litellm.service.check_written", away)
        monkeypatch.setattr("keyctl.services.delivery.confirm.RETRY_SECONDS", 0)
        lines: list[ImportLine] = []

        with (
            opened(litellm.url) as source,
            pytest.raises(UnconfirmedError, match=r"^1 key was imported, but not read back: the"),
        ):
            lines.extend(ImportService(workspace).run(source, ImportOrder()))

        assert results(lines) == {("key", "imported"): 1, ("key", "failed"): 1}

    def test_a_grace_period_goes_on(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport, clock: Clock
    ) -> None:
        """The string before the last rotation works until LiteLLM would have revoked it, not longer."""
        until = (clock.now + timedelta(hours=5)).replace(tzinfo=None)
        past = (clock.now - timedelta(hours=5)).replace(tzinfo=None)
        litellm.add("keys", key(OLD))
        litellm.add(
            "grace",
            {"id": "1", "token": digest(OLDER), "active_token_id": digest(OLD), "revoke_at": until},
            {
                "id": "2",
                "token": digest("sk-" + "p" * 22),
                "active_token_id": digest(OLD),
                "revoke_at": past,
            },
            {
                "id": "3",
                "token": digest("sk-" + "o" * 22),
                "active_token_id": "gone",
                "revoke_at": until,
            },
        )

        run()

        old, older = verify(workspace.database, OLD), verify(workspace.database, OLDER)
        assert (old.secret_state, older.secret_state) == ("active", "retiring")
        assert older.key_id == old.key_id
        assert verify(workspace.database, "sk-" + "p" * 22).reason == "unknown"
        assert verify(workspace.database, "sk-" + "o" * 22).reason == "unknown"
        clock.advance(timedelta(hours=5))
        assert (verify(workspace.database, OLDER).valid, verify(workspace.database, OLD).valid) == (
            False,
            True,
        )

    def test_a_second_alias_is_dropped(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport, clock: Clock
    ) -> None:
        """LiteLLM lets two keys share an alias: the older one keeps it, and the report says so."""
        newer = (clock.now - timedelta(days=1)).replace(tzinfo=None)
        litellm.add("keys", key(OLDER, key_alias="ci", created_at=newer), key(OLD, key_alias="ci"))

        lines = run()

        first = stored(workspace, OLD)
        assert (first.key_alias, stored(workspace, OLDER).key_alias) == ("ci", None)
        assert [list(line.changes) for line in lines] == [
            [],
            [f"alias 'ci' is that of {first.id}: imported without it"],
        ]

    def test_expired_keys_are_skipped(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport, clock: Clock
    ) -> None:
        """Unless they are asked for; then they are here as what they are."""
        litellm.add("keys", key(OLD, expires=(clock.now - timedelta(days=1)).replace(tzinfo=None)))

        skipped, included = run(), run(include_expired=True)

        assert [(line.result, line.reason) for line in skipped] == [("skipped", "expired")]
        assert results(included) == {("key", "imported"): 1}
        assert verify(workspace.database, OLD).reason == "expired"

    def test_an_imported_key_rotates_like_any_other(self, cli: Cli, litellm: LiteLLM) -> None:
        """It gets a string of keyctl's own form, and the old one lives on for the grace period."""
        litellm.add("keys", key(OLD, key_alias="ci"))
        cli("import", "litellm", environment=environment(litellm), check=True)

        new = cli("rotate", "ci", "--grace", "1h", check=True).stdout.strip()

        states = {
            cli.verdict(text)["secret_state"]: cli.verdict(text)["valid"] for text in (OLD, new)
        }
        assert states == {"retiring": True, "active": True}
        assert cli("db", "check", "-o", "json", check=True).json["left"] == []

    def test_blocked_keys_stay_blocked(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """What LiteLLM refused is refused here; blocked NULL is not blocked."""
        litellm.add("keys", key(OLD, blocked=True), key(OLDER, blocked=None))

        run()

        assert verify(workspace.database, OLD).reason == "blocked"
        assert verify(workspace.database, OLDER).valid

    def test_the_web_interfaces_sessions_are_skipped(
        self, litellm: LiteLLM, run: RunImport
    ) -> None:
        """They are no keys, though they lie in the same table."""
        litellm.add("keys", key(OLD, team_id="litellm-dashboard"))

        assert [line.result for line in run()] == ["skipped"]

    def test_a_budget_row_is_taken_over(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """What the key leaves open is its budget row's; a budget row that is gone refuses the key."""
        litellm.add(
            "budgets", {"budget_id": "b", "max_budget": 5.0, "soft_budget": 4.0, "rpm_limit": 3}
        )
        litellm.add("keys", key(OLD, budget_id="b", rpm_limit=2), key(OLDER, budget_id="gone"))

        lines = run()

        found = stored(workspace, OLD)
        limits = (found.max_budget, found.soft_budget, found.rpm_limit)
        assert limits == (5_000_000_000, 4_000_000_000, 2)
        assert results(lines) == {("key", "imported"): 1, ("key", "failed"): 1}

    def test_an_object_permission_is_taken_over(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """It restricts the key here too; one that is gone refuses the key."""
        litellm.add(
            "permissions",
            {
                "object_permission_id": "p",
                "mcp_servers": ["s"],
                "mcp_tool_permissions": {"s": ["t"]},
            },
        )
        litellm.add(
            "keys", key(OLD, object_permission_id="p"), key(OLDER, object_permission_id="gone")
        )

        lines = run()

        assert stored(workspace, OLD).gateway["object_permission"] == {
            "mcp_servers": ["s"],
            "mcp_tool_permissions": {"s": ["t"]},
        }
        assert results(lines) == {("key", "imported"): 1, ("key", "failed"): 1}


class TestOwners:
    def test_come_first(self, workspace: Workspace, litellm: LiteLLM, run: RunImport) -> None:
        """Users, organizations and teams with their budgets, roles and members, then the keys."""
        litellm.add("budgets", {"budget_id": "b", "max_budget": 100.0, "rpm_limit": 9})
        litellm.add(
            "organizations",
            {"organization_id": "acme", "organization_alias": "Acme", "budget_id": "b"},
        )
        litellm.add(
            "users",
            {"user_id": "ada", "user_role": "proxy_admin", "user_email": "ada@example.com"},
            {"user_id": "bob", "user_role": "customer", "metadata": {"scim_active": False}},
        )
        litellm.add(
            "teams",
            {
                "team_id": "web",
                "team_alias": "Web",
                "organization_id": "acme",
                "max_budget": 50.0,
                "members_with_roles": [
                    {"user_id": "ada", "role": "admin"},
                    {"user_id": "bob", "role": "user"},
                ],
                "team_member_permissions": ["/key/generate", "/key/invented"],
            },
        )
        litellm.add(
            "members", {"organization_id": "acme", "user_id": "ada", "user_role": "org_admin"}
        )
        litellm.add("keys", key(OLD, team_id="web", user_id="ada", max_budget=10.0))

        lines = run()

        assert results(lines) == {
            ("user", "imported"): 2,
            ("organization", "imported"): 1,
            ("team", "imported"): 1,
            ("member", "imported"): 3,
            ("key", "imported"): 1,
        }
        with workspace.database.read() as connection:
            team = directory.find(connection, Team, "web")
            organization = directory.find(connection, Organization, "acme")
            bob = directory.find(connection, User, "bob")
            members = directory.members(connection, Team, "web")
            own = directory.members(connection, Organization, "acme")
        assert team is not None
        assert organization is not None
        assert bob is not None
        assert (team.name, team.organization_id, team.max_budget) == ("Web", "acme", 50 * 10**9)
        assert team.policy == {"team_member_permissions": ["/key/generate"]}
        assert (organization.max_budget, organization.rpm_limit) == (100 * 10**9, 9)
        assert (bob.role, bob.blocked) == ("internal_user_viewer", True)
        assert (members, own) == ({"ada": "admin", "bob": "user"}, {"ada": "org_admin"})
        found = stored(workspace, OLD)
        assert (found.team_id, found.user_id, found.organization_id) == ("web", "ada", "acme")

    def test_those_here_are_left_alone(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """A user or team of the same id keeps what it has here; a deleted one stays deleted."""
        service = DirectoryService(workspace)
        service.create(User, "ada", {"role": "internal_user_viewer"})
        service.create(Team, "web", {})
        service.create(Team, "old", {})
        service.delete(Team, "old")
        litellm.add("users", {"user_id": "ada", "user_role": "proxy_admin"})
        members = [{"user_id": "ada", "role": "admin"}]
        litellm.add(
            "teams",
            {"team_id": "web", "max_budget": 1.0, "members_with_roles": members},
            {"team_id": "old"},
        )

        lines = run()

        assert results(lines) == {("user", "present"): 1, ("team", "present"): 2}
        with workspace.database.read() as connection:
            ada = directory.find(connection, User, "ada")
            assert ada is not None
            assert ada.role == "internal_user_viewer"
            assert directory.members(connection, Team, "web") == {}
            assert directory.find(connection, Team, "old") is None

    def test_users_that_only_keys_name_are_made(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """LiteLLM asks for no user row, and takes such an owner for an internal user without limits."""
        litellm.add("keys", key(OLD, user_id="ghost"))

        lines = run()

        assert results(lines) == {("user", "imported"): 1, ("key", "imported"): 1}
        assert verify(workspace.database, OLD).user_id == "ghost"

    def test_a_refused_user_is_not_made_by_its_keys(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """Whose limits have no home is kept out with the keys, until the operator names the column."""
        litellm.add("users", {"user_id": "ada", "policies": ["p"]})
        litellm.add("teams", {"team_id": "web", "members_with_roles": [{"user_id": "ada"}]})
        litellm.add("keys", key(OLD, user_id="ada", team_id="web"))

        refused = run()
        imported = run(dropped=frozenset({"user.policies"}), reason="none needed")

        assert results(refused) == {
            ("user", "failed"): 1,
            ("team", "imported"): 1,
            ("member", "skipped"): 1,
            ("key", "failed"): 1,
        }
        # The membership comes with the user although the team is here already.
        assert results(imported) == {
            ("user", "imported"): 1,
            ("team", "present"): 1,
            ("member", "imported"): 1,
            ("key", "imported"): 1,
        }
        assert verify(workspace.database, OLD).valid

    def test_a_members_own_budget_comes_along(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """What a member may spend with all keys of the team, and what is spent of it."""
        litellm.add(
            "budgets",
            {"budget_id": "b", "max_budget": 1.0, "budget_duration": "30d", "rpm_limit": 3},
            {"budget_id": "free"},
        )
        litellm.add("users", {"user_id": "ada"}, {"user_id": "bob"})
        members = [{"user_id": "ada", "role": "user"}, {"user_id": "bob", "role": "user"}]
        litellm.add("teams", {"team_id": "web", "members_with_roles": members})
        litellm.add(
            "team_members",
            {"team_id": "web", "user_id": "ada", "budget_id": "b", "spend": 0.25},
            {"team_id": "web", "user_id": "bob", "budget_id": "free"},
        )

        lines = [line for line in run() if line.object_type == "member"]

        assert {line.source: line.result for line in lines} == {
            "team web: ada": "imported",
            "team web: bob": "imported",
        }
        with workspace.database.read() as connection:
            query = text(
                "SELECT max_budget, budget_duration, rpm_limit FROM team_members"
                " WHERE user_id = 'ada'"
            )
            assert connection.execute(query).one() == (10**9, "30d", 3)
            meter = connection.execute(text("SELECT meter, spend FROM meters")).one()
            assert meter == ("member:ada", 250_000_000)

    def test_what_only_a_tier_limits_comes_along_as_one(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """Of members that share a budget row one tier, of which each spends their own; of a user another one."""
        of_model = {"gpt-4o": {"budget_limit": 2, "time_period": "1d"}}
        litellm.add("budgets", {"budget_id": "b", "tpd_limit": 9, "model_max_budget": of_model})
        litellm.add("users", {"user_id": "ada", "max_parallel_requests": 2}, {"user_id": "bob"})
        members = [{"user_id": "ada", "role": "user"}, {"user_id": "bob", "role": "user"}]
        litellm.add("teams", {"team_id": "web", "members_with_roles": members})
        litellm.add(
            "team_members",
            {"team_id": "web", "user_id": "ada", "budget_id": "b"},
            {"team_id": "web", "user_id": "bob", "budget_id": "b"},
        )

        lines = run()

        assert results(lines)["member", "imported"] == 2
        assert results(lines)["user", "imported"] == 2
        assert [name for line in lines for name in line.lost] == []
        with workspace.database.read() as connection:
            told = {tier.id: tier for tier in tiers.list_tiers(connection, after=None, limit=9)}
            named = connection.execute(
                text("SELECT budget_id FROM team_members UNION ALL SELECT budget_id FROM users")
            ).scalars()
            assert sorted(map(str, named)) == [
                "None",
                "litellm budget b",
                "litellm budget b",
                "litellm user ada",
            ]
        assert told["litellm budget b"].tpd_limit == 9
        assert told["litellm budget b"].model_max_budget == {
            "gpt-4o": {"max_budget": 2, "budget_duration": "1d"}
        }
        assert told["litellm user ada"].max_parallel_requests == 2

    def test_a_member_limited_by_more_than_that_is_refused_until_it_is_dropped(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """`--drop` works on the next run too, although the team and the user are here by then."""
        litellm.add("budgets", {"budget_id": "b", "allowed_models": ["gpt-4o"]})
        litellm.add("users", {"user_id": "ada"})
        members = [{"user_id": "ada", "role": "user"}]
        litellm.add("teams", {"team_id": "web", "members_with_roles": members})
        litellm.add("team_members", {"team_id": "web", "user_id": "ada", "budget_id": "b"})

        refused = [line for line in run() if line.object_type == "member"]
        dropped = [
            line
            for line in run(dropped=("member.allowed_models",), reason="agreed")
            if line.object_type == "member"
        ]

        lost = ["member.allowed_models"]
        assert [(line.result, list(line.lost)) for line in refused] == [("failed", lost)]
        assert [(line.result, list(line.lost)) for line in dropped] == [("imported", lost)]
        last = events(workspace)[-1]
        assert (last.action, last.reason) == ("team_member_imported", "agreed")
        assert json.loads(last.after)["dropped"] == lost

    def test_a_budget_for_whoever_has_none_is_each_members_own(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """What a team allows each member without an amount, with what is spent of it; not those who join here."""
        litellm.add(
            "budgets",
            {"budget_id": "all", "max_budget": 2.0, "budget_duration": "30d"},
            {"budget_id": "own", "max_budget": 1.0},
            {"budget_id": "rates", "rpm_limit": 3},
        )
        users = ["ada", "bob", "cid", "dan"]
        litellm.add("users", *({"user_id": name} for name in users))
        litellm.add(
            "teams",
            {
                "team_id": "web",
                "metadata": {"team_member_budget_id": "all"},
                "members_with_roles": [{"user_id": name} for name in users],
            },
        )
        litellm.add(
            "team_members",
            {"team_id": "web", "user_id": "ada", "budget_id": "own"},
            {"team_id": "web", "user_id": "bob", "budget_id": "rates"},
            {"team_id": "web", "user_id": "cid", "spend": 0.5},
        )

        lines = run()

        assert results(lines)["member", "imported"] == 4
        assert [line.lost for line in lines if line.object_type == "team"] == [
            ["team.metadata.team_member_budget_id"]
        ]
        with workspace.database.read() as connection:
            query = text(
                "SELECT user_id, max_budget, budget_duration, rpm_limit FROM team_members"
                " ORDER BY user_id"
            )
            assert [tuple(row) for row in connection.execute(query)] == [
                ("ada", 10**9, None, None),
                ("bob", 2 * 10**9, "30d", 3),
                ("cid", 2 * 10**9, "30d", None),
                ("dan", 2 * 10**9, "30d", None),
            ]
            spent = text("SELECT spend FROM meters WHERE meter = 'member:cid'")
            assert connection.execute(spent).scalar() == 500_000_000

    def test_nothing_is_refused_that_has_a_home_here(
        self, litellm: LiteLLM, run: RunImport
    ) -> None:
        """Members' budgets, what becomes a tier, groups of models and of routes, windows, budgets of single models."""
        of_model = {"gpt-4o": {"budget_limit": 2, "time_period": "1d"}}
        windows = [{"budget_duration": "1d", "max_budget": 1, "reset_at": "2029-01-01T00:00:00Z"}]
        litellm.add("groups", {"access_group_id": "g", "access_model_names": ["gpt-5"]})
        litellm.add(
            "budgets",
            {"budget_id": "m", "max_budget": 1.0, "budget_duration": "7d", "tpm_limit": 5},
            {"budget_id": "t", "tpd_limit": 9, "max_parallel_requests": 2},
            {"budget_id": "k", "max_budget": 3.0, "model_max_budget": of_model, "tpd_limit": 7},
            {"budget_id": "o", "max_budget": 9.0, "rpm_limit": 4, "tpd_limit": 5},
        )
        litellm.add(
            "users",
            {"user_id": "ada", "model_max_budget": of_model, "max_parallel_requests": 2},
            {"user_id": "bob", "tpd_limit": 8, "max_budget": 5.0},
        )
        litellm.add("organizations", {"organization_id": "acme", "budget_id": "o"})
        litellm.add(
            "teams",
            {
                "team_id": "web",
                "organization_id": "acme",
                "models": ["gpt-4o"],
                "access_group_ids": ["g"],
                "max_parallel_requests": 3,
                "tpd_limit": 9,
                "budget_limits": windows,
                "model_max_budget": of_model,
                "metadata": {"model_rpm_limit": {"gpt-4o": 5}},
                "members_with_roles": [{"user_id": "ada"}, {"user_id": "bob", "role": "admin"}],
            },
        )
        litellm.add(
            "team_members",
            {"team_id": "web", "user_id": "ada", "budget_id": "m", "spend": 0.25},
            {"team_id": "web", "user_id": "bob", "budget_id": "t"},
        )
        litellm.add(
            "keys",
            key(OLD, team_id="web", user_id="ada", budget_id="k", budget_limits=windows),
            key(
                OLDER,
                access_group_ids=["g"],
                allowed_routes=["openai_routes", "/v1/models"],
                model_max_budget=of_model,
                tpd_limit=6,
                soft_budget=1.0,
                max_budget=2.0,
            ),
        )

        lines = run()

        assert [(line.source, line.reason) for line in lines if line.result != "imported"] == []
        assert [name for line in lines for name in line.lost] == []

    def test_a_budget_in_an_organization_is_told_and_refuses_nobody(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """LiteLLM checks it nowhere, and keyctl has no field for it."""
        litellm.add("budgets", {"budget_id": "b", "max_budget": 1.0})
        litellm.add("users", {"user_id": "ada"})
        litellm.add("organizations", {"organization_id": "acme"})
        litellm.add(
            "members",
            {
                "organization_id": "acme",
                "user_id": "ada",
                "user_role": "org_admin",
                "budget_id": "b",
            },
        )

        (member,) = [line for line in run() if line.object_type == "member"]

        assert (member.result, list(member.lost)) == ("imported", ["member.budget_id"])
        with workspace.database.read() as connection:
            assert directory.members(connection, Organization, "acme") == {"ada": "org_admin"}

    def test_a_team_s_windows_and_models_hold_here(
        self, database_url: str, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """In LiteLLM's forms, for all of the team's keys together; the chain tells of them."""
        windows = [{"budget_duration": "1mo", "max_budget": 5, "reset_at": "2029-01-01T00:00:00Z"}]
        of_model = {"gpt-4o": {"budget_limit": 0.5, "time_period": "1d"}}
        litellm.add(
            "teams", {"team_id": "web", "budget_limits": windows, "model_max_budget": of_model}
        )
        litellm.add("keys", key(OLD, team_id="web"), key(OLDER, team_id="web"))

        lines = run()

        assert {line.result for line in lines} == {"imported"}
        with workspace.database.read() as connection:
            team = directory.find(connection, Team, "web")
        assert team is not None
        assert team.budget_limits == [{"budget_duration": "1mo", "max_budget": 5}]
        assert team.model_max_budget == {
            "gpt-4o": {"max_budget": Decimal("0.5"), "budget_duration": "1d"}
        }
        with Verifier(database_url) as verifier:
            verifier.verify(OLD, model="gpt-4o").record(0.5)
            told = [verifier.verify(OLDER, model=name).reason for name in ("gpt-4o", "o1")]
            assert told == ["budget_exceeded", None]
            verifier.verify(OLD, model="o1").record(4.5)
            assert verifier.verify(OLDER, model="o1").reason == "budget_exceeded"
        AuditService(workspace).verify(state=True, step=lambda: None)

    def test_of_two_windows_of_a_length_the_smaller_one_holds(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """There both count the same spend; the report says so, of a key and of a team."""
        windows = [
            {"budget_duration": length, "max_budget": amount}
            for length, amount in (("1d", 5), ("1day", 2.5), ("7d", 9), ("1d", 3))
        ]
        litellm.add("teams", {"team_id": "web", "budget_limits": windows})
        litellm.add("keys", key(OLD, budget_limits=windows))

        lines = run()

        assert {line.result for line in lines} == {"imported"}
        with workspace.database.read() as connection:
            team = directory.find(connection, Team, "web")
        assert team is not None
        kept = [
            {"budget_duration": "1d", "max_budget": Decimal("2.5")},
            {"budget_duration": "7d", "max_budget": 9},
        ]
        assert [team.budget_limits, stored(workspace, OLD).budget_limits] == [kept, kept]
        told = "budget_limits names 1d twice: the smaller one is kept"
        assert [told in line.changes for line in lines] == [True, True]

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("budget_limits", [{"budget_duration": "1d", "max_budget": 5}]),
            ("model_max_budget", {"gpt-4o": {"budget_limit": 5, "time_period": "1d"}}),
            ("tpd_limit", 5),
        ],
    )
    def test_what_a_team_has_beside_a_budget_is_left_behind_where_it_is_dropped(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport, column: str, value: Any
    ) -> None:
        """Its windows, budgets of single models, tokens a day: named where they are given up."""
        litellm.add("teams", {"team_id": "web", column: value})

        (imported,) = run(dropped=frozenset({f"team.{column}"}), reason="keys have their own")

        with workspace.database.read() as connection:
            team = directory.find(connection, Team, "web")
        assert team is not None
        assert not getattr(team, column)
        assert (imported.result, imported.lost) == ("imported", [f"team.{column}"])
        last = events(workspace)[-1]
        assert (last.action, last.reason) == ("team_imported", "keys have their own")
        assert json.loads(last.after)["dropped"] == [f"team.{column}"]

    def test_what_limits_an_organization_holds_here(
        self, database_url: str, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """Each limit of its budget row, for all of its keys together; the chain tells of them."""
        of_model = {"o1": {"budget_limit": 0.5, "time_period": "1d"}}
        row = {"model_max_budget": of_model, "tpd_limit": 900, "max_parallel_requests": 2}
        litellm.add("budgets", {"budget_id": "b", **row})
        litellm.add("organizations", {"organization_id": "acme", "budget_id": "b"})
        litellm.add("keys", key(OLD, organization_id="acme"), key(OLDER, organization_id="acme"))

        lines = run()

        assert {line.result for line in lines} == {"imported"}
        with workspace.database.read() as connection:
            organization = directory.find(connection, Organization, "acme")
        assert organization is not None
        assert organization.model_max_budget == {
            "o1": {"max_budget": Decimal("0.5"), "budget_duration": "1d"}
        }
        assert (organization.tpd_limit, organization.max_parallel_requests) == (900, 2)
        with Verifier(database_url) as verifier:
            assert [verifier.verify(OLD).admit() is None for _ in range(3)] == [True, True, False]
            verifier.verify(OLD, model="o1").record(0.5, tokens=100)
            told = [verifier.verify(OLDER, model=name).reason for name in ("o1", "gpt-4o")]
            assert told == ["budget_exceeded", None]
            verifier.verify(OLD, model="gpt-4o").record(0.1, tokens=800)
            assert verifier.verify(OLDER, model="gpt-4o").reason == "budget_exceeded"
        AuditService(workspace).verify(state=True, step=lambda: None)

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("model_max_budget", {"gpt-4o": {"budget_limit": 5, "time_period": "1d"}}),
            ("max_parallel_requests", 5),
            ("tpd_limit", 5),
        ],
    )
    def test_what_limits_an_organization_is_left_behind_where_it_is_dropped(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport, column: str, value: Any
    ) -> None:
        """It is named in the report and on record."""
        litellm.add("budgets", {"budget_id": "b", column: value})
        litellm.add("organizations", {"organization_id": "acme", "budget_id": "b"})
        name = f"organization.budget.{column}"

        (imported,) = run(dropped=frozenset({name}), reason="keys have their own")

        with workspace.database.read() as connection:
            organization = directory.find(connection, Organization, "acme")
        assert organization is not None
        assert not getattr(organization, column)
        assert (imported.result, imported.lost) == ("imported", [name])
        assert json.loads(events(workspace)[-1].after)["dropped"] == [name]

    def test_a_group_that_nobody_could_name_stops_no_other(
        self, litellm: LiteLLM, run: RunImport
    ) -> None:
        """Its id or a model in it is no name here; the keys that name it say so themselves."""
        odd: list[tuple[Any, Any]] = [("x" * 300, ["m"]), (None, ["m"]), ("a\nb", []), ("g", [""])]
        for name, models in [*odd, ("good", None)]:
            litellm.add("groups", {"access_group_id": name, "access_model_names": models})
        litellm.add("keys", key(OLD, access_group_ids=["good"]))

        lines = run()

        assert results(lines) == {
            ("access_group", "failed"): 4,
            ("access_group", "imported"): 1,
            ("key", "imported"): 1,
        }
        reasons = {line.reason.partition(":")[0] for line in lines if line.reason}
        assert reasons == {"malformed_request"}
        assert {line.result for line in run()} == {"failed", "present"}

    def test_groups_of_models_come_along(
        self, database_url: str, litellm: LiteLLM, run: RunImport
    ) -> None:
        """A key and a team go on using what is in theirs; a key that could use all still can."""
        litellm.add(
            "groups",
            {"access_group_id": "g", "access_group_name": "beta", "access_model_names": ["gpt-5"]},
        )
        litellm.add("teams", {"team_id": "web", "models": ["gpt-4o"], "access_group_ids": ["g"]})
        litellm.add(
            "keys",
            key(OLD, team_id="web", models=["gpt-4o"], access_group_ids=["g"]),
            key(OLDER, access_group_ids=["g"]),
        )

        lines = run()

        assert results(lines)["access_group", "imported"] == 1
        with Verifier(database_url) as verifier:
            told = [
                verifier.verify(OLD, model=model).reason for model in ("gpt-4o", "gpt-5", "claude")
            ]
            assert told == [None, None, "model_denied"]
            assert verifier.verify(OLDER, model="claude").valid
        assert results(run())["access_group", "present"] == 1

    def test_who_joins_later_is_taken_along_and_who_was_removed_is_not(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """A membership that was ended here stays ended."""
        litellm.add("users", {"user_id": "ada"}, {"user_id": "bob"})
        litellm.add(
            "teams",
            {"team_id": "web", "members_with_roles": [{"user_id": "ada", "role": "user"}]},
        )
        run()
        MemberService(workspace).remove(Team, "web", "ada")
        litellm.execute(
            'UPDATE "LiteLLM_TeamTable" SET members_with_roles = '
            '\'[{"user_id": "ada", "role": "user"}, {"user_id": "bob", "role": "user"}]\''
        )

        lines = [line for line in run() if line.object_type == "member"]

        assert [(line.source, line.result) for line in lines] == [("team web: bob", "imported")]


class TestPolicy:
    def test_a_violation_refuses_the_row(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """An imported key is judged as one that is asked for; an override by name is on record."""
        DirectoryService(workspace).create(Team, "web", {"max_budget": 10**9})
        litellm.add("keys", key(OLD, team_id="web", max_budget=2.0))

        refused = run()
        overridden = run(overrides=("team.max_budget",), reason="agreed")

        assert [item.rule for item in refused[0].violations] == ["team.max_budget"]
        assert results(overridden) == {("key", "imported"): 1}
        recorded = [(event.action, event.object_type) for event in events(workspace)][1:]
        assert recorded == [
            ("key_import_denied", "key"),
            ("rule_overridden", "key"),
            ("key_imported", "key"),
        ]
        assert events(workspace)[-2].reason == "agreed"

    def test_what_is_left_open_is_filled(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """A bound cannot be escaped by an import, and the line says what was filled in."""
        DirectoryService(workspace).create(Team, "web", {"rpm_limit": 5})
        litellm.add("keys", key(OLD, team_id="web"))

        lines = run()

        assert stored(workspace, OLD).rpm_limit == 5
        assert lines[0].changes == ["rpm_limit is filled with 5 (team.rpm_limit)"]

    def test_strength_and_custom_keys_do_not_apply(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """Nobody chooses an imported key string: it is in use."""
        settings = Settings(bcrypt_cost=4, disable_custom_api_keys=True)
        weak = "sk-aaaaaaaaaaaaaaaa"
        litellm.add("keys", key(weak))

        lines = run(replace(workspace, settings=settings))

        assert results(lines) == {("key", "imported"): 1}
        assert verify(workspace.database, weak).valid

    def test_sums_count_the_keys_before(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """A limit on the number of keys holds within one batch, in a dry run too."""
        DirectoryService(workspace).create(Team, "web", {"policy": {"max_keys": 2}})
        litellm.add("keys", *(key(f"sk-{n:022}", team_id="web") for n in range(4)))

        planned, done = run(dry_run=True), run()

        assert results(planned) == results(done) == {("key", "imported"): 2, ("key", "failed"): 2}

    def test_only_admins_import(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """A caller with a lesser role is refused before anything is read."""
        caller = Caller(actor="key:ada", role="internal_user", user_id="ada")

        with pytest.raises(DeniedError, match="only an admin may import keys"):
            run(replace(workspace, caller=caller))

    def test_the_hook_is_asked(
        self,
        workspace: Workspace,
        litellm: LiteLLM,
        run: RunImport,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The configured hook decides about each imported key, and its no is on record."""
        module = f"hook_{uuid4().hex[:8]}"
        (tmp_path / f"{module}.py").write_text(
            "def decide(request, caller):\n"
            "    return {'decision': request.key_alias == 'good', 'message': 'not this one'}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        settings = Settings(bcrypt_cost=4, custom_key_generate=f"{module}:decide")
        litellm.add("keys", key(OLD, key_alias="good"), key(OLDER, key_alias="bad"))

        lines = run(replace(workspace, settings=settings))

        assert {line.source: line.result for line in lines} == {
            digest(OLD)[:8]: "imported",
            digest(OLDER)[:8]: "failed",
        }
        assert [event.action for event in events(workspace)] == [
            "key_import_denied",
            "key_imported",
        ]


class TestWhatHasNoHome:
    def test_unknown_columns_are_counted(self, litellm: LiteLLM, run: RunImport) -> None:
        """A column that this version does not know is in the report, and refuses nothing."""
        litellm.execute('ALTER TABLE "LiteLLM_VerificationToken" ADD COLUMN moon_phase text')
        litellm.execute('ALTER TABLE "LiteLLM_UserTable" ADD COLUMN shoe_size integer')
        litellm.add("keys", key(OLD, total_spend=3.5), key(OLDER))
        litellm.add("users", {"user_id": "ada", "password": "hash"})
        litellm.execute("""UPDATE "LiteLLM_VerificationToken" SET moon_phase = 'full'""")
        litellm.execute("""UPDATE "LiteLLM_UserTable" SET shoe_size = 0""")

        lines = run()

        lost = Counter(name for line in lines for name in line.lost)
        assert lost == {"key.moon_phase": 2, "key.total_spend": 1, "user.shoe_size": 1}
        assert {line.result for line in lines} == {"imported"}

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("project_id", "p"),
            ("agent_id", "a"),
            ("metadata.end_user_budget_id", "b"),
        ],
    )
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_restriction_refuses_the_row(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport, column: str, value: Any
    ) -> None:
        """What was limited there does not become unlimited here, unless the operator names the column."""
        name, _, inner = column.partition(".")
        litellm.add("keys", key(OLD, **{name: {inner: value} if inner else value}))

        refused = run()
        imported = run(dropped=frozenset({f"key.{column}"}), reason="projects are gone")

        assert [(line.result, list(line.lost)) for line in refused] == [
            ("failed", [f"key.{column}"])
        ]
        assert results(imported) == {("key", "imported"): 1}
        last = events(workspace)[-1]
        assert (last.action, last.reason) == ("key_imported", "projects are gone")
        assert json.loads(last.after)["dropped"] == [f"key.{column}"]

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_column_that_refuses_nothing_cannot_be_dropped(self, run: RunImport) -> None:
        """A slip in the name is no permission."""
        with pytest.raises(UsageError, match=r"there is no column 'key\.projectid'"):
            run(dropped=frozenset({"key.projectid"}))

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_callback_credentials_stay_where_they_are(
        self, workspace: Workspace, litellm: LiteLLM, run: RunImport
    ) -> None:
        """`metadata.logging` holds credentials of other services: neither the key nor its events have them."""
        logging = [{"callback_vars": {"langfuse_secret": "Canary"}}]
        litellm.add("keys", key(OLD, metadata={"logging": logging, "app": "web"}))

        lines = run()

        assert lines[0].lost == ["key.metadata.logging"]
        assert stored(workspace, OLD).metadata == {"app": "web"}
        assert "Canary" not in str(events(workspace))


class TestRowsThatFail:
    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"max_budget": float("nan")}, "max_budget: NaN dollars is out of range"),
            ({"max_budget": float("inf")}, "max_budget: Infinity dollars is out of range"),
            ({"max_budget": -1.0}, "max_budget: -1.0 dollars is out of range"),
            ({"spend": float("nan")}, "spend: NaN dollars is out of range"),
            ({"spend": -2.0}, "spend: -2.0 dollars is out of range"),
            ({"budget_duration": "5ms"}, "budget_duration: '5ms' is not a budget period"),
            ({"team_id": "gone"}, "there is no team 'gone'"),
            ({"rpm_limit": -1}, "rpm_limit"),
            ({"rotation_count": -1}, "rotation_count is not a count"),
            ({"metadata": [1]}, "metadata is not an object"),
            ({"metadata": {"deep": DEEP}}, "is nested too deep"),
            ({"metadata": {"model_rpm_limit": "x"}}, "model_rpm_limit"),
        ],
    )
    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_stop_none_of_the_others(
        self,
        workspace: Workspace,
        litellm: LiteLLM,
        run: RunImport,
        columns: dict[str, Any],
        reason: str,
    ) -> None:
        """A row that cannot be here is a line with its reason; the next one is imported."""
        litellm.add("keys", key(OLD, **columns), key(OLDER))

        lines = {line.source: line for line in run()}

        line = lines[digest(OLD)[:8]]
        assert line.result == "failed"
        assert reason in str(line.reason)
        assert verify(workspace.database, OLDER).valid

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_a_token_in_the_clear_is_not_repeated(self, litellm: LiteLLM, run: RunImport) -> None:
        """A token that is no hash fails its row; it may be the key string itself."""
        litellm.add("keys", {**key(OLD), "token": OLD})

        line = run()[0]

        assert (line.result, line.source) == ("failed", f"sha256:{digest(OLD)[:8]}")
        assert OLD not in str(line)

    @pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
    def test_another_string_with_the_same_lookup(self, litellm: LiteLLM, run: RunImport) -> None:
        """Half of a SHA-256 is what keys are found by: a second with that half is an error, not a success."""
        half = digest(OLD)[:32]
        litellm.add("keys", key(OLD), {**key(OLDER), "token": half + "0" * 32})

        lines = run()

        assert results(lines) == {("key", "imported"): 1, ("key", "failed"): 1}
        assert "key_taken" in str([line.reason for line in lines])

    def test_a_string_that_was_supplied_by_hand(self, cli: Cli, litellm: LiteLLM) -> None:
        """A key made here with the very string is that key; another string in its place is an error."""
        cli("generate", "--key-stdin", input=OLD, check=True)
        litellm.add("keys", key(OLD), {**key(OLDER), "token": digest(OLD)[:32] + "0" * 32})

        result = cli("import", "litellm", "-o", "json", environment=environment(litellm))

        assert result.exit_code == 9
        assert result.json["counts"][-1] == {
            "object": "key",
            "imported": 0,
            "present": 1,
            "skipped": 0,
            "failed": 1,
        }
