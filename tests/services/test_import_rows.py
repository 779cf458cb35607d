"""What each column of LiteLLM's rows becomes: pure functions, row by row."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from keyctl.errors import KeyctlError, UnmappableRowError, UsageError
from keyctl.litellm import inventory, values
from keyctl.litellm.dump import Dump
from keyctl.litellm.keys import MappedKey, digest_of, map_key
from keyctl.litellm.members import MappedMember
from keyctl.litellm.owners import map_organization, map_team, map_user
from keyctl.policy.models import is_allowed
from keyctl.policy.resolve import given_values

TOKEN = "0123456789abcdef" * 4
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)


def mapped(**columns: Any) -> MappedKey:
    """Return what a key row with these columns becomes."""
    return map_key(values.decoded({"token": TOKEN, **columns}))


def asked(**columns: Any) -> dict[str, Any]:
    """Return the column values that such a row asks for, without what every row has."""
    found = given_values(mapped(**columns).request)
    assert found.pop("spend") == 0
    return found


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, {}),
        # Access.
        ({"models": ["gpt-4"]}, {"models": ["gpt-4"]}),
        ({"models": []}, {}),
        ({"models": ["all-team-models"]}, {"models": ["all-team-models"]}),
        ({"aliases": {"fast": "gpt-4"}}, {"aliases": {"fast": "gpt-4"}}),
        ({"permissions": {"pii": False}}, {"permissions": {"pii": False}}),
        ({"allowed_routes": ["/chat"], "key_type": "default"}, {"allowed_routes": ["/chat"]}),
        ({"allowed_routes": ["llm_api_routes"], "key_type": "llm_api"}, {"key_type": "llm_api"}),
        # In LiteLLM the routes are in force, whatever the type says.
        ({"allowed_routes": ["info_routes"], "key_type": "llm_api"}, {"allowed_routes": ["info_routes"]}),
        ({"allowed_routes": [], "key_type": "management"}, {}),
        ({"allowed_cache_controls": ["no-cache"]}, {"allowed_cache_controls": ["no-cache"]}),
        ({"blocked": None}, {}),
        ({"blocked": False}, {}),
        ({"blocked": True}, {"blocked": True}),
        # Limits: zero is one.
        ({"rpm_limit": 0, "tpm_limit": 5}, {"rpm_limit": 0, "tpm_limit": 5}),
        ({"max_parallel_requests": 2, "tpd_limit": 9}, {"max_parallel_requests": 2, "tpd_limit": 9}),
        # Money.
        ({"max_budget": 0.1}, {"max_budget": 100_000_000}),
        ({"max_budget": 0.12345678901}, {"max_budget": 123_456_790}),
        ({"max_budget": 0.0}, {"max_budget": 0}),
        ({"budget_duration": "30days"}, {"budget_duration": "30d"}),
        ({"budget_duration": " Monthly "}, {"budget_duration": "monthly"}),
        (
            {"budget_limits": [{"budget_duration": "1d", "max_budget": 0.25, "reset_at": "x"}]},
            {"budget_limits": [{"budget_duration": "1d", "max_budget": Decimal("0.25")}]},
        ),
        (
            {"model_max_budget": {"gpt-4": {"budget_limit": "0.5", "time_period": "1month"}}},
            {"model_max_budget": {"gpt-4": {"max_budget": Decimal("0.5"), "budget_duration": "1mo"}}},
        ),
        # What LiteLLM keeps in `metadata` and enforces has fields of its own here.
        (
            {"metadata": {"tags": ["a"], "guardrails": ["g"], "app": 1, "policies": ["p", "q"]}, "policies": ["p"]},
            {"tags": ["a"], "guardrails": ["g"], "metadata": {"app": 1}, "policies": ["p", "q"]},
        ),
        (
            {"metadata": {"model_rpm_limit": {"gpt-4": 5, "gpt-5": None}}},
            {"model_rpm_limit": {"gpt-4": 5}},
        ),
        # Rotation: both halves or neither.
        (
            {"auto_rotate": True, "rotation_interval": "30d"},
            {"auto_rotate": True, "rotation_interval": "30d"},
        ),
        (
            {"auto_rotate": True, "rotation_interval": "weekly"},
            {"auto_rotate": True, "rotation_interval": "1w"},
        ),
        ({"auto_rotate": True}, {}),
        ({"rotation_interval": "30d"}, {}),
        # Empty texts are no names.
        ({"team_id": "", "user_id": "", "key_alias": ""}, {}),
        ({"key_alias": "-x"}, {}),
    ],
)  # fmt: skip
def test_a_column_becomes_a_field(columns: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each column is the field of equal meaning; nothing else is asked for."""
    assert asked(**columns) == expected


@pytest.mark.parametrize(
    ("columns", "changes"),
    [
        ({}, ()),
        ({"budget_duration": "30days"}, ("budget_duration '30days' is read as 30d",)),
        ({"key_alias": "sk-1234567890123456"}, ("key_alias must not start with '-', 'key_' or 'sk-': left out",)),
        ({"key_type": "management"}, ("key_type does not imply allowed_routes there: left out",)),
        ({"auto_rotate": True}, ("auto_rotate and rotation_interval are only set together: left out",)),
    ],
)  # fmt: skip
def test_what_means_something_else_is_told(
    columns: dict[str, Any], changes: tuple[str, ...]
) -> None:
    """A value that had to be read or left out is a note, which repeats no alias."""
    assert mapped(**columns).changes == changes


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"max_budget": -0.01}, "max_budget: -0.01 dollars is out of range"),
        ({"max_budget": float("nan")}, "max_budget: NaN dollars is out of range"),
        ({"max_budget": float("-inf")}, "max_budget: -Infinity dollars is out of range"),
        ({"max_budget": "much"}, "max_budget is not an amount of money"),
        ({"max_budget": True}, "max_budget is not an amount of money"),
        ({"spend": -1e-8}, "spend: -1e-8 dollars is out of range"),
        ({"budget_duration": "5ms"}, "budget_duration: '5ms' is not a budget period"),
        ({"budget_duration": "0d"}, "budget_duration: '0d' is not a budget period"),
        ({"budget_duration": "1y"}, "budget_duration: '1y' is not a budget period"),
        ({"expires": "infinity"}, "expires is not an instant"),
        ({"metadata": "{"}, "metadata is not JSON"),
        ({"metadata": '{"a": NaN}'}, "metadata is not JSON: NaN is not a JSON number"),
        ({"metadata": "[" * 100_000}, "metadata is nested too deep"),
        ({"metadata": "[1]"}, "metadata is not an object"),
        ({"models": '"gpt-4"'}, "models is not a list"),
        ({"policies": None, "metadata": {"policies": "p"}}, "policies is not a list"),
        ({"budget_limits": [1]}, "budget_limits holds something that is not an object"),
        ({"model_max_budget": [1]}, "model_max_budget is not an object"),
        ({"rotation_count": -1}, "rotation_count is not a count"),
        ({"user_id": "a\x00b"}, "the row is malformed: user_id: contains a NUL character"),
        ({"project_id": "p"}, "key.project_id restricts it there and has no home here"),
        ({"budget_id": "b"}, "key.budget_id restricts it there and has no home here"),
        ({"object_permission_id": "p", "object_permission": {"new": ["x"]}}, "object_permission.new is not known here"),
    ],
)  # fmt: skip
def test_a_row_without_an_equal_is_refused(columns: dict[str, Any], message: str) -> None:
    """What has no one clear meaning, or restricts and has no home, is refused with its reason."""
    with pytest.raises(KeyctlError) as caught:
        mapped(**columns)

    assert caught.value.message.startswith(message)


def test_the_budget_row_serves_what_the_key_leaves_open() -> None:
    """A value of the key's own wins, zero included; a period comes with its own date."""
    budget = {
        "max_budget": 5.0,
        "soft_budget": 4.0,
        "rpm_limit": 3,
        "model_max_budget": {"gpt-4": {"max_budget": 1.0}},
        "budget_duration": "1d",
        "budget_reset_at": "2030-02-01 00:00:00",
    }

    key = mapped(budget_id="b", litellm_budget_table=budget, rpm_limit=0, budget_reset_at=NOON)

    request = key.request
    assert (request.max_budget, request.soft_budget) == (5 * 10**9, 4 * 10**9)
    assert (request.rpm_limit, request.budget_duration) == (0, "1d")
    assert given_values(request)["model_max_budget"] == {"gpt-4": {"max_budget": 1}}
    assert key.kept["budget_reset_at"] == datetime(2030, 2, 1, tzinfo=UTC)


def test_what_a_request_cannot_say_is_kept() -> None:
    """Times, counts and who made it come along; an actor of keyctl it is not."""
    key = mapped(
        created_at="2029-01-01 10:00:00.5",
        created_by="ada",
        last_active="2029-01-02T10:00:00+02:00",
        expires="2029-06-01 00:00:00",
        auto_rotate=True,
        rotation_interval="30d",
        rotation_count=3,
        last_rotation_at=None,
        key_rotation_at="2029-02-01 00:00:00",
    )

    assert key.kept == {
        "created_at": datetime(2029, 1, 1, 10, 0, 0, 500_000, tzinfo=UTC),
        "created_by": "litellm:ada",
        "last_used_at": datetime(2029, 1, 2, 8, tzinfo=UTC),
        "expires": datetime(2029, 6, 1, tzinfo=UTC),
        "rotation_count": 3,
        "key_rotation_at": datetime(2029, 2, 1, tzinfo=UTC),
    }


@pytest.mark.parametrize(
    ("spend", "nano"),
    [(0.0, 0), (1.5, 1_500_000_000), (1e-12, 1), (-2.7e-17, 0), (Decimal("0.1000000001"), 100_000_001)],
)  # fmt: skip
def test_spend_is_rounded_up(spend: Any, nano: int) -> None:
    """Nothing that was spent is free; what a reset leaves below zero by a float's error is nothing."""
    assert mapped(spend=spend).request.spend == nano


@pytest.mark.parametrize(
    ("columns", "is_one"),
    [
        ({"team_id": "web", "metadata": {"service_account_id": "ci"}}, True),
        ({"team_id": "web", "user_id": "ada", "metadata": {"service_account_id": "ci"}}, False),
        ({"metadata": {"service_account_id": "ci"}}, False),
        ({"team_id": "web"}, False),
    ],
)
def test_a_service_account_belongs_to_a_team_and_no_user(
    columns: dict[str, Any], is_one: bool
) -> None:
    """That is what LiteLLM takes for one, whatever else names a service account."""
    assert mapped(**columns).service_account is is_one


@pytest.mark.parametrize(
    ("name", "allows"),
    [("all-team-models", True), ("all-proxy-models", True), ("no-default-models", False)],
)
def test_special_names_of_models_mean_the_same(name: str, allows: bool) -> None:
    """They stay as they are: keyctl reads them as LiteLLM does."""
    assert asked(models=[name]) == {"models": [name]}
    assert is_allowed("gpt-4", [name]) is allows


@pytest.mark.parametrize("token", [None, "", "sk-1234567890abcdef", TOKEN[:-1], TOKEN.upper(), 7])
def test_a_token_must_be_a_hash(token: Any) -> None:
    """Anything else is refused and not repeated."""
    with pytest.raises(UnmappableRowError) as caught:
        digest_of({"token": token})

    assert str(token or "nothing") not in caught.value.message


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("30d", "30d"),
        ("30days", "30d"),
        ("2hrs", "2h"),
        ("5min", "5m"),
        ("90seconds", "90s"),
        ("1month", "1mo"),
        ("2weeks", "2w"),
        ("DAILY", "daily"),
    ],
)
def test_lengths_of_time_with_one_clear_meaning(text: str, read: str) -> None:
    """A unit that is written out is read; what was not of the grammar is noted."""
    changes: list[str] = []

    assert values.length("budget_duration", text, changes) == read
    assert len(changes) == (text != read)


class TestOwners:
    @pytest.mark.parametrize(
        ("role", "here"),
        [
            ("proxy_admin", "proxy_admin"),
            ("internal_user_viewer", "internal_user_viewer"),
            (None, "internal_user"),
            ("team", "internal_user_viewer"),
            ("customer", "internal_user_viewer"),
            ("PROXY_ADMIN", "internal_user_viewer"),
        ],
    )
    def test_roles_are_never_mapped_upwards(self, role: str | None, here: str) -> None:
        """A role that is none here is the least one; without one, LiteLLM assumes an internal user."""
        assert map_user({"user_id": "ada", "user_role": role}).columns["role"] == here

    def test_a_user(self) -> None:
        """Budget, limits and models come along; an address that is none is left out and told."""
        row = {
            "user_id": "ada",
            "user_email": "not an address",
            "max_budget": 2.5,
            "spend": 0.5,
            "budget_duration": "1mo",
            "budget_reset_at": "2030-02-01 00:00:00",
            "models": ["no-default-models"],
        }

        user = map_user(values.decoded(row))

        reset_at = datetime(2030, 2, 1, tzinfo=UTC)
        assert user.columns == {
            "id": "ada",
            "role": "internal_user",
            "max_budget": 2_500_000_000,
            "spend": 500_000_000,
            "budget_duration": "1mo",
            "budget_reset_at": reset_at,
            "budget_anchor_at": reset_at,
            "models": ["no-default-models"],
        }
        assert user.changes == ("email must be an e-mail address: left out",)

    def test_a_team(self) -> None:
        """Limits by model leave `metadata`; members without an id are nobody."""
        row = {
            "team_id": "web",
            "metadata": {"model_rpm_limit": {"gpt-4": 5}, "cost_center": "7"},
            "members_with_roles": [
                {"user_id": "ada", "role": "admin"},
                {"user_id": None, "user_email": "bob@example.com", "role": "admin"},
                {"user_id": "eve", "role": "owner"},
            ],
        }

        team = map_team(values.decoded(row))

        assert team.columns == {
            "id": "web",
            "spend": 0,
            "model_rpm_limit": {"gpt-4": 5},
            "metadata": {"cost_center": "7"},
        }
        assert team.members == (
            MappedMember(user_id="ada", role="admin"),
            MappedMember(user_id="eve", role="user"),
        )
        assert team.changes == ("a member without a user_id is nobody: left out",)

    def test_an_organization(self) -> None:
        """What it may spend is its budget row's; a viewer of it has no equal here."""
        row = {
            "organization_id": "acme",
            "organization_alias": "Acme",
            "budget_id": "b",
            "litellm_budget_table": {"max_budget": 7.0, "tpm_limit": 8, "budget_duration": None},
            "members": [
                {"user_id": "ada", "user_role": "org_admin"},
                {"user_id": "eve", "user_role": "internal_user_viewer"},
                {"user_id": "bob", "user_role": None, "budget_id": "b"},
            ],
        }

        organization = map_organization(values.decoded(row))

        assert organization.columns == {
            "id": "acme",
            "name": "Acme",
            "max_budget": 7 * 10**9,
            "tpm_limit": 8,
            "spend": 0,
        }
        assert [(item.user_id, item.role, item.lost) for item in organization.members] == [
            ("ada", "org_admin", ()),
            ("eve", None, ()),
            ("bob", "internal_user", ("member.budget_id",)),
        ]

    @pytest.mark.parametrize(
        ("own", "default", "limits", "tier"),
        [
            ({}, {"max_budget": 2.0, "rpm_limit": 3}, {"max_budget": 2 * 10**9}, {}),
            ({"max_budget": 1.0}, {"max_budget": 2.0}, {"max_budget": 10**9}, {}),
            ({"rpm_limit": 3}, {"max_budget": -1.0}, {"rpm_limit": 3}, {}),
            ({}, {"max_budget": float("inf")}, {}, {}),
            ({}, {"model_max_budget": {"o1": {"max_budget": 1}}}, {}, {"litellm budget d": {"o1"}}),
            (
                {"tpd_limit": 9},
                {"model_max_budget": {"o1": {"max_budget": 1}}},
                {},
                {"litellm budget b d": {"o1"}},
            ),
            (
                {"model_max_budget": {"o3": {"max_budget": 1}}},
                {"model_max_budget": {"o1": {"max_budget": 1}}},
                {},
                {"litellm budget b": {"o3"}},
            ),
        ],
    )
    def test_a_teams_default_budget(
        self,
        own: dict[str, Any],
        default: dict[str, Any],
        limits: dict[str, Any],
        tier: dict[str, set[str]],
    ) -> None:
        """It serves what the member's own budget row does not say, as LiteLLM reads it."""
        row = {
            "team_id": "web",
            "members_with_roles": [{"user_id": "ada"}],
            "default_member_budget": {"budget_id": "d", **default},
            "limited_members": [
                {
                    "user_id": "ada",
                    "budget_id": "b",
                    "litellm_budget_table": {"budget_id": "b", **own},
                }
            ],
        }

        (member,) = map_team(values.decoded(row)).members

        assert member.refusal is None
        assert {name: item for name, item in member.limits.items() if name != "budget_id"} == limits
        of_models = (
            {str(member.tier_id): set(member.tier["model_max_budget"])} if member.tier else {}
        )
        assert of_models == tier

    @pytest.mark.parametrize("column", inventory.RESTRICTING["team"])
    def test_a_teams_restrictions_refuse_it(self, column: str) -> None:
        """Each of them would bind the team's keys there; the operator may drop it by name."""
        name, _, inner = column.partition(".")
        row = {"team_id": "web", name: {inner: ["x"]} if inner else ["x"]}

        with pytest.raises(UnmappableRowError, match=f"team.{column} restricts it"):
            map_team(row)

        assert map_team(row, dropped={f"team.{column}"}).columns["id"] == "web"


class TestInventory:
    def test_counts_what_says_something(self) -> None:
        """Unknown columns, known ones without a home, and names inside documents."""
        row = {
            "token": TOKEN,
            "total_spend": 0.0,
            "model_spend": {},
            "new_column": 0,
            "other_column": None,
            "project_id": "p",
            "metadata": {"temp_budget_increase": 5, "end_user_budget_id": "e", "app": "web"},
            "budget_id": "b",
            "litellm_budget_table": {"max_budget": 1, "max_parallel_requests": 2},
        }

        assert sorted(inventory.lost("key", row)) == [
            "key.budget.max_parallel_requests",
            "key.metadata.end_user_budget_id",
            "key.metadata.temp_budget_increase",
            "key.new_column",
            "key.project_id",
        ]

    def test_a_reference_to_nothing_counts(self) -> None:
        """Nobody knows what a budget that is not there would have limited."""
        assert inventory.lost("key", {"budget_id": "b"}) == ["key.budget_id"]

    def test_only_columns_that_refuse_can_be_dropped(self) -> None:
        """Any other name is a slip."""
        inventory.check_droppable(inventory.DROPPABLE)

        with pytest.raises(UsageError, match="there is no column"):
            inventory.check_droppable({"key.models"})


def test_a_dump_gives_keys_only() -> None:
    """Its pages are one source, in which organizations may have LiteLLM's older name."""
    dump = Dump.of([{"keys": [{"token": "a", "org_id": "acme"}]}, {"keys": []}])

    assert (dump.count_keys(), [*dump.users(), *dump.organizations(), *dump.teams()]) == (1, [])
    (row,) = dump.keys()
    assert row["organization_id"] == "acme"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("models", 5),
        ("policies", 5),
        ("team_member_permissions", '{"a": 1}'),
        ("budget_limits", 5),
        ("metadata", "5"),
        ("key_type", ["llm_api"]),
    ],
)
def test_a_value_of_another_type_refuses_its_row(column: str, value: object) -> None:
    """It is an error of that row, not of the import."""
    with pytest.raises(UnmappableRowError, match=column):
        values.decoded({column: value})
