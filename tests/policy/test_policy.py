"""Every rule at its bound and one step past it, for every caller; and what all of them promise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import CALLERS, Hand, World

from keyctl import money, schemas
from keyctl.db.queries import directory
from keyctl.errors import PolicyDeniedError, UsageError, Violation
from keyctl.policy import ceiling, whom
from keyctl.policy.callers import ADMIN_ONLY
from keyctl.policy.facts import Caller
from keyctl.policy.models import glob_matches, nearest_usable
from keyctl.records import Team
from keyctl.services.keys.end import EndingService
from keyctl.services.keys.update import ChangeService
from keyctl.services.rotate.one import RotateOrder, RotateService
from keyctl.services.tiers import TierService
from keyctl.services.workspace import Workspace

pytestmark = pytest.mark.sqlite_mostly

ADA = {"team_id": "web", "user_id": "ada"}
TINA = {"team_id": "web", "user_id": "tina"}
PERSONAL = {"user_id": "ada", "organization_id": "acme"}
STRONG = "sk-0123456789abcdefghijKL"
WEAK = "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
GUARANTEED = "guaranteed_throughput"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One rule: what surrounds a request, the request at the bound and one step past it.

    `then` changes what is around between the two.  `filled` is what a request that leaves the
    field out gets; `clear` is a change that would take the bounded field away.
    """

    rule: str
    at: Mapping[str, Any]
    beyond: Mapping[str, Any]
    told: tuple[str, Any, Any]
    around: Mapping[str, Any] = field(default_factory=dict)
    then: Mapping[str, Any] = field(default_factory=dict)
    existing: tuple[Mapping[str, Any], ...] = ()
    base: Mapping[str, Any] = field(default_factory=lambda: ADA)
    filled: Any = None
    clear: Mapping[str, Any] | None = None
    service_account: bool = False


def of_layer(name: str, policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the surroundings in which the layer *name* has this policy."""
    if name != "global":
        return {name: {"policy": dict(policy)}}
    outermost = ("upperbound_key_generate_params", "key_alias_pattern")
    own = {key: value for key, value in policy.items() if key in outermost}
    rules = {key: value for key, value in policy.items() if key not in outermost}
    return {"settings": {**own, "key_generation_settings": {"team_key_generation": rules}}}


LAYERS = ("team", "organization", "global")
# Field, its bound, one step past it, and how the refused value is told.
BOUNDS: tuple[tuple[str, Any, Any, Any], ...] = (
    ("max_budget", 10, Decimal("10.000000001"), Decimal("10.000000001")),
    ("tpm_limit", 100, 101, 101),
    ("rpm_limit", 100, 101, 101),
    ("max_parallel_requests", 5, 6, 6),
    ("duration", "30d", "31d", "2030-03-03T12:00:00.000000Z"),
    ("budget_duration", "7d", "8d", "8d"),
)


def upperbounds() -> list[Case]:
    """Return a case for each bound of each layer's policy."""
    return [
        Case(
            rule=f"{name}.upperbound.{bounded}",
            around=of_layer(name, {"upperbound_key_generate_params": {bounded: bound}}),
            base={**ADA, **({"max_budget": 1} if bounded == "budget_duration" else {})},
            at={bounded: bound},
            beyond={bounded: past},
            told=(bounded, bound, told),
            filled=bound,
            clear={bounded: None},
        )
        for name in LAYERS
        for bounded, bound, past, told in BOUNDS
    ]


def own_limits() -> list[Case]:
    """Return a case for each limit of the team, the organization and the user themselves."""
    return [
        Case(
            rule=f"{name}.{bounded}",
            around={name: {bounded: bound * money.NANO if bounded == "max_budget" else bound}},
            at={bounded: bound},
            beyond={bounded: past},
            told=(bounded, bound, told),
            filled=bound,
            clear={bounded: None},
        )
        for name in ("team", "organization", "user")
        for bounded, bound, past, told in BOUNDS[: 3 if name == "user" else 4]
    ]


def model_lists() -> list[Case]:
    """Return a case for each owner of a list of models."""
    return [
        Case(
            rule=f"{name}.models",
            around={name: {"models": ["gpt-*", "o3"]}},
            at={"models": ["gpt-4", "o3"]},
            beyond={"models": ["gpt-4", "claude-3"]},
            told=("models", ["gpt-*", "o3"], ["gpt-4", "claude-3"]),
        )
        for name in ("team", "organization", "user")
    ]


def families() -> list[Case]:
    """Return a case for each other demand of each layer's policy."""
    cases = []
    for name in LAYERS:
        counted = {"team": "team_id", "organization": "organization_id", "global": ""}[name]
        cases += [
            Case(
                rule=f"{name}.required_params",
                around=of_layer(name, {"required_params": ["metadata"]}),
                at={"metadata": {"app": "web"}},
                beyond={},
                told=("metadata", "metadata", None),
            ),
            Case(
                rule=f"{name}.key_alias_pattern",
                around=of_layer(name, {"key_alias_pattern": "web-[a-z]+"}),
                at={"key_alias": "web-ci"},
                beyond={"key_alias": "web-ci-2"},
                told=("key_alias", "web-[a-z]+", "web-ci-2"),
                clear={"key_alias": None},
            ),
            Case(
                rule=f"{name}.require_expiry",
                around=of_layer(name, {"require_expiry": True}),
                at={"duration": "365d"},
                beyond={},
                told=("expires", True, None),
                clear={"duration": None},
            ),
            Case(
                rule=f"{name}.max_rotation_interval",
                around=of_layer(name, {"max_rotation_interval": "30d"}),
                at={"auto_rotate": True, "rotation_interval": "30d"},
                beyond={"auto_rotate": True, "rotation_interval": "31d"},
                told=("rotation_interval", "30d", "31d"),
                clear={"auto_rotate": None, "rotation_interval": None},
            ),
            Case(
                rule=f"{name}.allowed_tags",
                around=of_layer(name, {"allowed_tags": ["ci", "prod"]}),
                at={"tags": ["ci", "prod"]},
                beyond={"tags": ["ci", "test"]},
                told=("tags", ["ci", "prod"], ["ci", "test"]),
            ),
            Case(
                rule=f"{name}.max_keys",
                around=of_layer(name, {"max_keys": 1}),
                at={},
                then={"existing": (ADA,)},
                beyond={},
                told=(counted, 1, 2),
            ),
        ]
    return cases


def allocations() -> list[Case]:
    """Return a case for each sum over the live keys of a team and of an organization."""
    cases = []
    for name in ("team", "organization"):
        for kind in ("tpm", "rpm"):
            guaranteed = {f"{kind}_limit_type": GUARANTEED}
            cases += [
                Case(
                    rule=f"{name}.throughput.{kind}",
                    around={name: {f"{kind}_limit": 100}},
                    existing=({**ADA, **guaranteed, f"{kind}_limit": 60},),
                    at={**guaranteed, f"{kind}_limit": 40},
                    beyond={**guaranteed, f"{kind}_limit": 41},
                    told=(f"{kind}_limit", 100, 101),
                ),
                Case(
                    rule=f"{name}.throughput.model_{kind}",
                    around={name: {f"model_{kind}_limit": {"gpt-4": 100}}},
                    existing=({**ADA, **guaranteed, f"model_{kind}_limit": {"gpt-4": 60}},),
                    at={**guaranteed, f"model_{kind}_limit": {"gpt-4": 40}},
                    beyond={**guaranteed, f"model_{kind}_limit": {"gpt-4": 41}},
                    told=(f"model_{kind}_limit.gpt-4", 100, 101),
                ),
            ]
        cases.append(
            Case(
                rule=f"{name}.budget_allocation",
                around={
                    name: {
                        "max_budget": 100 * money.NANO,
                        "policy": {"budget_allocation": "guaranteed"},
                    }
                },
                existing=({**ADA, "max_budget": 60},),
                at={"max_budget": 40},
                beyond={"max_budget": 41},
                told=("max_budget", 100, 101),
            )
        )
    return cases


FIXED = [
    *(
        Case(
            rule=f"{name}.blocked",
            at={},
            then={name: {"blocked": True}},
            beyond={},
            told=(
                f"{name}_id",
                False,
                {"team": "web", "organization": "acme", "user": "ada"}[name],
            ),
        )
        for name in ("team", "organization", "user")
    ),
    Case(
        rule="team.owner_member",
        base={"team_id": "web"},
        at={"user_id": "ada"},
        beyond={"user_id": "eve"},
        told=("user_id", "web", "eve"),
    ),
    Case(
        rule="organization.owner_member",
        base={"organization_id": "acme"},
        at={"user_id": "ada"},
        beyond={"user_id": "eve"},
        told=("user_id", "acme", "eve"),
    ),
    Case(
        rule="team.organization",
        at={"organization_id": "acme"},
        beyond={"organization_id": "other"},
        told=("organization_id", "acme", "other"),
    ),
    Case(
        rule="personal.required_params",
        around={
            "settings": {
                "key_generation_settings": {
                    "personal_key_generation": {"required_params": ["metadata"]}
                }
            }
        },
        base=PERSONAL,
        at={"metadata": {"app": "web"}},
        beyond={},
        told=("metadata", "metadata", None),
    ),
    Case(rule="key.strength", at={"key": STRONG}, beyond={"key": WEAK}, told=("key", 22, None)),
    Case(
        rule="key.custom",
        around={"settings": {"disable_custom_api_keys": True}},
        at={},
        beyond={"key": STRONG},
        told=("key", False, None),
    ),
    Case(
        rule="key.service_account",
        base={"team_id": "web"},
        service_account=True,
        at={},
        beyond={"user_id": "ada"},
        told=("user_id", None, None),
    ),
]
CASES = [*upperbounds(), *own_limits(), *model_lists(), *families(), *allocations(), *FIXED]
IDS = [case.rule for case in CASES]


@pytest.fixture(name="world")
def _world(workspace: Workspace) -> World:
    """Organization acme, team web and their people."""
    return World(workspace)


def of_rule(violations: Any, rule: str) -> list[Violation]:
    """Return the violations of one rule."""
    return [item for item in violations if item.rule == rule]


def prepare(world: World, case: Case) -> None:
    """Put the case's surroundings in place."""
    world.change(case.around)
    for request in case.existing:
        world.make(request)


def go_on(world: World, case: Case) -> None:
    """Change what the case changes between its two requests."""
    world.change({name: values for name, values in case.then.items() if name != "existing"})
    for request in case.then.get("existing", ()):
        world.make(request)


@pytest.mark.parametrize("case", CASES, ids=IDS)
class TestRulesAboutKeys:
    def test_at_the_bound_and_past_it_for_every_caller(self, world: World, case: Case) -> None:
        """Nobody's role steps over a rule about keys: allowed at the bound, refused past it."""
        prepare(world, case)
        options: dict[str, Any] = {"service_account": case.service_account}
        at, beyond = {**case.base, **case.at}, {**case.base, **case.beyond}
        names = [name for name, caller in CALLERS.items() if not caller.is_viewer]

        for name in names:
            verdict = world.verdict(at, CALLERS[name], **options)
            assert of_rule(verdict.violations, case.rule) == [], name
        assert list(world.verdict(at, **options).violations) == []
        go_on(world, case)
        for name in names:
            found = of_rule(world.verdict(beyond, CALLERS[name], **options).violations, case.rule)
            assert [(item.field, item.bound, item.value) for item in found] == [case.told], name
            assert found[0].message

    def test_stepping_over_it(self, world: World, case: Case) -> None:
        """An admin steps over the rule by its name, where the table says that it can be."""
        overridable = {row["rule"]: row["overridable"] for row in schemas.rule_table()}
        prepare(world, case)
        go_on(world, case)
        request = {**case.base, **case.beyond}
        options: dict[str, Any] = {
            "service_account": case.service_account,
            "overrides": (case.rule,),
        }

        if not overridable[case.rule]:
            with pytest.raises(UsageError, match="cannot be overridden"):
                world.verdict(request, **options)
            return
        verdict = world.verdict(request, **options)
        assert [item.rule for item in verdict.stepped_over] == [case.rule]
        assert list(verdict.violations) == []
        other = world.verdict(request, CALLERS["team_admin"], **options)
        assert {case.rule, "caller.override"} <= {item.rule for item in other.violations}


FILLING = [case for case in CASES if case.filled is not None]
CLEARING = [case for case in CASES if case.clear is not None]


@pytest.mark.parametrize("case", FILLING, ids=[case.rule for case in FILLING])
def test_a_missing_value_is_filled_with_the_bound(world: World, case: Case) -> None:
    """A request that leaves a bounded field out gets the bound, and is told so."""
    prepare(world, case)

    verdict = world.verdict(case.base)

    assert list(verdict.violations) == []
    assert [(item.field, item.source) for item in verdict.filled] == [(case.told[0], case.rule)]
    row = {**verdict.key.columns(), "max_budget": verdict.key.max_budget}
    value = row[case.told[0]]
    assert (value // money.NANO if case.told[0] == "max_budget" else value) == case.filled


@pytest.mark.parametrize("case", CLEARING, ids=[case.rule for case in CLEARING])
def test_a_bounded_field_cannot_be_cleared(world: World, case: Case) -> None:
    """An update that would take the field away is refused by the rule that bounds it."""
    prepare(world, case)
    key_id = world.make({**case.base, **case.at})

    with pytest.raises(PolicyDeniedError) as refused:
        ChangeService(world.workspace).update(key_id, dict(case.clear or {}))

    assert case.rule in {item.rule for item in refused.value.violations}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerCase:
    """One rule about callers: who asks, what is allowed and what is not."""

    rule: str
    caller: Caller
    beyond: Mapping[str, Any]
    told: tuple[str, Any, Any]
    at: Mapping[str, Any] | None = None
    allowed: Caller | None = None
    around: Mapping[str, Any] = field(default_factory=dict)


PERMITTED = {"team": {"policy": {"team_member_permissions": ["/key/generate"]}}}
ROLES = {"allowed_team_member_roles": ["admin"]}


CALLER_CASES = [
    *(
        CallerCase(
            rule="caller.read_only",
            caller=CALLERS[name],
            allowed=CALLERS["internal_user"],
            around=PERMITTED,
            at=ADA,
            beyond=ADA,
            told=("caller", None, name),
        )
        for name in ("internal_user_viewer", "proxy_admin_viewer")
    ),
    CallerCase(
        rule="caller.no_rights", caller=CALLERS["nobody"], beyond=ADA, told=("caller", None, None)
    ),
    CallerCase(
        rule="caller.self_only",
        caller=CALLERS["internal_user"],
        around=PERMITTED,
        at=ADA,
        beyond={"team_id": "web", "user_id": "tina"},
        told=("user_id", "ada", "tina"),
    ),
    CallerCase(
        rule="caller.team_member",
        caller=CALLERS["internal_user"],
        around=PERMITTED,
        at=ADA,
        beyond={"team_id": "else", "user_id": "ada"},
        told=("team_id", "else", "ada"),
    ),
    CallerCase(
        rule="caller.service_account_team",
        caller=CALLERS["service_account"],
        around=PERMITTED,
        at={"team_id": "web"},
        beyond={"team_id": "else"},
        told=("team_id", "web", "else"),
    ),
    CallerCase(
        rule="caller.organization",
        caller=CALLERS["internal_user"],
        at=PERSONAL,
        beyond={"user_id": "ada", "organization_id": "other"},
        told=("organization_id", None, "other"),
    ),
    CallerCase(
        rule="caller.member_keys",
        caller=CALLERS["team_admin"],
        at=TINA,
        beyond=ADA,
        told=("user_id", "tina", "ada"),
    ),
    *(
        CallerCase(
            rule=f"{name}.allowed_team_member_roles",
            caller=CALLERS["internal_user"],
            allowed=CALLERS["local"],
            around=of_layer(name, ROLES),
            at=ADA,
            beyond=ADA,
            told=("caller", ["admin"], "user"),
        )
        for name in LAYERS
    ),
    *(
        CallerCase(
            rule="team.team_member_permissions",
            caller=CALLERS[name],
            allowed=CALLERS["local"],
            around={"team": {"policy": {"team_member_permissions": ["/key/update"]}}},
            at=request,
            beyond=request,
            told=("caller", ["/key/update"], "/key/generate"),
        )
        for name, request in (("internal_user", ADA), ("service_account", {"team_id": "web"}))
    ),
    CallerCase(
        rule="personal.allowed_user_roles",
        caller=CALLERS["internal_user"],
        allowed=CALLERS["local"],
        around={
            "settings": {
                "key_generation_settings": {
                    "personal_key_generation": {"allowed_user_roles": ["proxy_admin"]}
                }
            }
        },
        at=PERSONAL,
        beyond=PERSONAL,
        told=("caller", ["proxy_admin"], "internal_user"),
    ),
]


@pytest.mark.parametrize("case", CALLER_CASES, ids=[case.rule for case in CALLER_CASES])
def test_rules_about_callers(world: World, case: CallerCase) -> None:
    """What one caller may not do, another may, or the same in another form."""
    world.change(case.around)

    if case.at is not None:
        assert list(world.verdict(case.at, case.allowed or case.caller).violations) == []
    found = of_rule(world.verdict(case.beyond, case.caller).violations, case.rule)

    assert [(item.field, item.bound, item.value) for item in found] == [case.told]
    assert of_rule(world.verdict(case.beyond).violations, case.rule) == []  # an admin meets it


ADMIN_FIELDS: dict[str, Any] = {
    "spend": 1,
    "allowed_routes": ["llm_api_routes"],
    "permissions": {"get_spend_routes": True},
    "key_type": "management",
    "allowed_passthrough_routes": ["/v1/rerank"],
    "denied_passthrough_routes": ["/v1/rerank"],
    "disable_global_guardrails": True,
    "throttle_on_budget_exceeded": True,
    "default_estimated_output_tokens": 100,
    "default_estimated_output_tokens_per_model": {"gpt-4": 100},
    "router_settings": {"timeout": 10},
    "may_issue": {"max_keys": 3},
    "budget_id": "small",
}


@pytest.mark.parametrize("name", ADMIN_ONLY)
def test_fields_for_admins_are_refused_to_others(world: World, name: str) -> None:
    """A team admin may make keys, but not with what only a proxy admin may set."""
    TierService(world.workspace).create("small", {})
    request = {**TINA, name: ADMIN_FIELDS[name]}

    verdict = world.verdict(request, CALLERS["team_admin"])

    assert [(item.rule, item.field) for item in verdict.violations] == [("caller.admin_only", name)]
    assert list(world.verdict(request).violations) == []


class TestOtherOperations:
    def test_only_who_administers_the_team_suspends(self, world: World) -> None:
        """A member may not block the key that an admin blocked or may yet block: caller.suspend."""
        key_id = world.make(ADA)
        world.change({"team": {"policy": {"team_member_permissions": ["/key/block"]}}})

        refused = EndingService(world.acting(CALLERS["internal_user"])).block(
            [key_id], blocked=True
        )
        allowed = EndingService(world.acting(CALLERS["team_admin"])).block([key_id], blocked=True)

        error = refused[0].error
        assert isinstance(error, PolicyDeniedError)
        assert [(item.rule, item.field) for item in error.violations] == [
            ("caller.suspend", "caller")
        ]
        assert allowed[0].result == "blocked"

    def test_what_is_out_of_use_is_not_rotated(self, world: World) -> None:
        """A rotation revives nothing: key.rotatable."""
        key_id = world.make(ADA)
        EndingService(world.workspace).block([key_id], blocked=True)

        with pytest.raises(PolicyDeniedError) as refused:
            RotateService(world.workspace).rotate(RotateOrder(given=key_id), Hand())

        told = [(item.rule, item.bound, item.value) for item in refused.value.violations]
        assert told == [("key.rotatable", "active", "blocked")]

    def test_moving_a_key_is_judged_as_creation_there(self, world: World) -> None:
        """Another team's required fields and members count as if the key were made there."""
        key_id = world.make({"team_id": "else"})
        world.change({"team": {"policy": {"required_params": ["metadata"], "max_keys": 0}}})

        with pytest.raises(PolicyDeniedError) as refused:
            ChangeService(world.workspace).update(key_id, {"team_id": "web", "user_id": "eve"})

        assert {item.rule for item in refused.value.violations} == {
            "team.required_params",
            "team.max_keys",
            "team.owner_member",
        }

    def test_the_hook_is_asked_and_a_stranger_may_not_override(self, world: World) -> None:
        """hook.custom_key_generate and caller.override are raised outside the pure rules."""
        world.change({"settings": {"custom_key_generate": "no_such_module:decide"}})
        with pytest.raises(PolicyDeniedError) as refused:
            world.make(ADA)
        verdict = world.verdict(TINA, CALLERS["team_admin"], overrides=("team.models",))

        rules = {item.rule for item in (*refused.value.violations, *verdict.violations)}
        assert rules == {"hook.custom_key_generate", "caller.override"}


def test_every_rule_of_the_table_is_raised_here_and_no_other_exists() -> None:
    """The generated table and the cases above name the same rules."""
    elsewhere = {rule.id for rule in (*ceiling.RULES, *whom.RULES)}  # test_ceiling.py, test_whom.py
    raised = {
        *IDS,
        *elsewhere,
        *(case.rule for case in CALLER_CASES),
        *("caller.route", "caller.admin_block"),
        *("caller.issued_by_another", "caller.raises_administration", "caller.restricted"),
        *("caller.member_role", "caller.member_of_organization"),
        *("caller.admin_only", "caller.suspend", "key.rotatable"),
        *("hook.custom_key_generate", "caller.override"),
    }
    assert raised == {row["rule"] for row in schemas.rule_table()}
    assert set(ADMIN_FIELDS) == set(ADMIN_ONLY)


def test_seven_broken_rules_are_seven_violations(world: World) -> None:
    """A refused request says everything that is wrong with it at once."""
    world.change(
        {
            "team": {
                "models": ["gpt-4"],
                "max_budget": 10 * money.NANO,
                "policy": {
                    "required_params": ["metadata"],
                    "key_alias_pattern": "web-.*",
                    "require_expiry": True,
                    "allowed_tags": ["ci"],
                },
            }
        }
    )
    request = {
        "team_id": "web",
        "user_id": "eve",
        "models": ["claude-3"],
        "max_budget": 11,
        "tags": ["prod"],
    }

    with pytest.raises(PolicyDeniedError) as refused:
        world.make(request)

    assert sorted(item.rule for item in refused.value.violations) == [
        "team.allowed_tags",
        "team.key_alias_pattern",
        "team.max_budget",
        "team.models",
        "team.owner_member",
        "team.require_expiry",
        "team.required_params",
    ]


class TestModels:
    @pytest.mark.parametrize(
        ("pattern", "text", "matches"),
        [
            ("gpt-4", "gpt-4", True),
            ("gpt-4", "gpt-4o", False),
            ("gpt-3.5*", "gpt-345", False),
            ("gpt-*", "gpt-", True),
            ("*/gpt-*", "openai/gpt-4", True),
            ("a*b*c", "aXbYc", True),
            ("a*b*c", "acb", False),
            ("*", "", True),
            ("a*a", "a", False),
            ("gpt-*", "gpt-4*", True),
            ("gpt-4", "gpt-*", False),
        ],
    )
    def test_globs(self, pattern: str, text: str, matches: bool) -> None:
        """A star stands for any characters, and nothing else is special."""
        assert glob_matches(pattern, text) is matches

    def test_a_hostile_pattern_takes_linear_steps(self) -> None:
        """A thousand stars against a long name are no exponential search."""
        assert glob_matches("*a" * 1000 + "b", "a" * 5000) is False

    @pytest.mark.parametrize(
        ("team", "asked", "allowed"),
        [
            ([], ["anything"], True),
            (["gpt-4"], [], True),
            (["gpt-4"], ["all-team-models"], True),
            (["gpt-4"], ["all-proxy-models"], False),
            (["all-proxy-models"], ["claude-3"], True),
            (["*"], ["all-proxy-models"], True),
            (["gpt-*"], ["gpt-4*"], True),
            (["gpt-4"], ["gpt-*"], False),
        ],
    )
    def test_a_team_s_list(
        self, world: World, team: list[str], asked: list[str], allowed: bool
    ) -> None:
        """An empty list inherits, a wider pattern than the team's is refused."""
        world.change({"team": {"models": team}})
        assert (not world.verdict({**ADA, "models": asked}).violations) is allowed

    def test_a_misspelt_model_is_told_with_the_nearest(self, world: World) -> None:
        """Of the names in the list: what is like none of them is told alone."""
        world.change({"team": {"models": ["gpt-4o-mini", "gpt-*-image"]}})

        (violation,) = world.verdict({**ADA, "models": ["gpt-4o-mni", "o1"]}).violations

        assert violation.message == (
            "not among the team's models: gpt-4o-mni (did you mean gpt-4o-mini?), o1"
        )

    def test_a_gateway_tells_what_the_key_may_use(self, world: World) -> None:
        """A name of the team's list that the key's own does not have is none to ask for."""
        world.change({"team": {"models": ["gpt-4o-mini", "gpt-4o-max"]}})
        key = world.verdict({**ADA, "models": ["gpt-4o-mini"]}).key
        with world.workspace.database.read() as connection:
            team = directory.find_all(connection, Team, ["web"])["web"]

        found = nearest_usable("gpt-4o-mx", key, team=team, organization=None, user=None)

        assert found == ["gpt-4o-mini"]

    @pytest.mark.parametrize(("team_id", "allowed"), [("web", True), (None, False)])
    def test_no_default_models_means_through_a_team_only(
        self, world: World, team_id: str | None, allowed: bool
    ) -> None:
        """A user with no-default-models has no personal keys to use."""
        world.change({"user": {"models": ["no-default-models"]}})
        request = {"user_id": "ada", **({"team_id": team_id} if team_id else {})}
        assert (not world.verdict(request).violations) is allowed


class TestLayersMeet:
    def test_the_smallest_bound_counts(self, world: World) -> None:
        """What is left out is filled with the smallest of all layers' bounds."""
        world.change(
            {
                **of_layer("global", {"upperbound_key_generate_params": {"max_budget": 30}}),
                **of_layer("organization", {"upperbound_key_generate_params": {"max_budget": 20}}),
                "team": {
                    "max_budget": 25 * money.NANO,
                    "policy": {"upperbound_key_generate_params": {"max_budget": 40}},
                },
            }
        )
        filled = world.verdict(ADA).filled
        assert [(item.field, item.value, item.source) for item in filled] == [
            ("max_budget", 20, "organization.upperbound.max_budget")
        ]

    def test_the_nearest_default_counts(self, world: World) -> None:
        """A team's default wins over its organization's, and that over the configuration's."""
        world.change(
            {
                "settings": {"default_key_generate_params": {"tpm_limit": 1, "rpm_limit": 1}},
                "organization": {
                    "policy": {"default_key_generate_params": {"tpm_limit": 2, "rpm_limit": 2}}
                },
                "team": {"policy": {"default_key_generate_params": {"tpm_limit": 3}}},
            }
        )
        key = world.verdict(ADA).key
        assert (key.tpm_limit, key.rpm_limit) == (3, 2)

    def test_a_default_above_a_bound_is_refused(self, world: World) -> None:
        """A default is judged like a request: the contradiction is told, not papered over."""
        world.change(
            {
                "settings": {"default_key_generate_params": {"tpm_limit": 200}},
                "team": {"tpm_limit": 100},
            }
        )
        violations = world.verdict(ADA).violations
        assert [(item.rule, item.value) for item in violations] == [("team.tpm_limit", 200)]


NUMBERS = ("max_budget", "tpm_limit", "rpm_limit", "max_parallel_requests")
LENGTHS = st.sampled_from(["1h", "1d", "7d", "30d", "1mo", "365d"])
SOME_BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.integers(0, 50) for name in NUMBERS},
        "duration": LENGTHS,
        "budget_duration": LENGTHS,
    },
)
HOURS = {"1h": 1, "1d": 24, "7d": 168, "30d": 720, "1mo": 672, "365d": 8760}


@given(
    around=st.fixed_dictionaries(dict.fromkeys(LAYERS, SOME_BOUNDS)),
    defaults=SOME_BOUNDS,
    own=st.fixed_dictionaries(
        {},
        optional={
            name: st.integers(0, 50) for name in ("tpm_limit", "rpm_limit", "max_parallel_requests")
        },
    ),
    request_=SOME_BOUNDS,
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_an_allowed_key_satisfies_all_bounds(
    worlds: list[World],
    around: dict[str, dict[str, Any]],
    defaults: dict[str, Any],
    own: dict[str, int],
    request_: dict[str, Any],
) -> None:
    """Whatever the defaults and layers: a key that may be made is within every bound of them."""
    world = worlds[0]
    world.change(
        {
            "settings": {
                "default_key_generate_params": defaults,
                "upperbound_key_generate_params": around["global"],
            },
            "organization": {"policy": {"upperbound_key_generate_params": around["organization"]}},
            "team": {
                **dict.fromkeys(("tpm_limit", "rpm_limit", "max_parallel_requests")),
                **own,
                "policy": {"upperbound_key_generate_params": around["team"]},
            },
        }
    )

    verdict = world.verdict({**ADA, **request_})

    if verdict.violations:
        return
    key = verdict.key
    for bounds in (*around.values(), own):
        for name in NUMBERS:
            if name in bounds:
                value = getattr(key, name)
                assert value is not None
                assert value <= bounds[name] * (money.NANO if name == "max_budget" else 1)
        if "duration" in bounds:
            longest = {"1mo": 744}.get(bounds["duration"], HOURS[bounds["duration"]])
            assert key.expires is not None
            assert key.expires - key.created_at <= timedelta(hours=longest)
        if "budget_duration" in bounds and key.max_budget is not None:
            assert key.budget_duration is not None
            assert HOURS[key.budget_duration] <= {"1mo": 744}.get(
                bounds["budget_duration"], HOURS[bounds["budget_duration"]]
            )


@pytest.fixture(name="worlds")
def _worlds(workspace: Workspace) -> list[World]:
    """One world for all examples of a property."""
    return [World(workspace)]
