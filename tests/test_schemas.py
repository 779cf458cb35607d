"""What keyctl prints keeps to the schemas that it prints."""

import json
from typing import Any

import jsonschema
import pytest
from harness import Cli, Result

from keyctl import schemas
from keyctl.requests import GatewayFields, GenerateRequest

# Scripts read these names: one that goes or changes breaks them.
GENERATE_ANSWER = """
    allowed_routes audit auto_rotate blocked blocked_by_admin budget_duration budget_fallbacks budget_id budget_limits
    budget_reset_at created_at created_by default_routes deleted_at duration expires filled grace_period guardrails
    key key_alias key_id key_name key_rotation_at key_type last_rotation_at last_used_at
    managed_by max_budget max_parallel_requests may_issue metadata model_max_budget model_rpm_limit model_tpm_limit
    models organization_id overrides permissions replayed rotation_count rotation_interval rpm_limit
    rpm_limit_type send_invite_email service_account sink sink_suspect_at soft_budget spend state
    tags team_id token token_id tpd_limit tpm_limit tpm_limit_type updated_at updated_by user_id
    warnings
"""
VERIFY_ANSWER = """
    valid reason key_id key_alias team_id user_id secret_id secret_state expires spent
"""
# Every field there is but the key string, each with a value that is not its default.
FULL_REQUEST: dict[str, Any] = {
    "access_group_ids": [],  # another one would have to be there
    "aliases": {"fast": "gpt-4"},
    "allowed_cache_controls": ["no-cache"],
    "allowed_passthrough_routes": ["/a"],
    "allowed_vector_store_indexes": [{"index_name": "i", "index_permissions": ["read"]}],
    "auto_rotate": True,
    "blocked": True,
    "budget_duration": "30d",
    "budget_fallbacks": {"gpt-4": ["claude-3"]},
    "budget_id": "small",
    "budget_limits": [{"budget_duration": "1d", "max_budget": 0.25}],
    "default_estimated_output_tokens": 10,
    "default_estimated_output_tokens_per_model": {"gpt-4": 10},
    "denied_passthrough_routes": ["/b"],
    "disable_global_guardrails": True,
    "duration": "90d",
    "enable_prompt_caching": True,
    "enforced_params": ["user"],
    "grace_period": "1h",
    "guardrails": ["pii"],
    "key_alias": "full",
    "key_type": "llm_api",
    "max_budget": 12.345678901,
    "max_parallel_requests": 3,
    "may_issue": {"max_budget": 0.5, "duration": "90d", "models": ["gpt-4"], "max_keys": 3},
    "mcp_rpm_limit": {"tool": 1},
    "metadata": {"app": "web", "nested": {"list": [1, 2.5, None, "ä"]}},
    "model_max_budget": {"gpt-4": {"max_budget": 1, "budget_duration": "1d"}},
    "model_rpm_limit": {"gpt-4": 5},
    "model_tpm_limit": {"gpt-4": 500},
    "models": ["gpt-4"],
    "object_permission": {"mcp_servers": ["s"]},
    "organization_id": "acme",
    "permissions": {"chat": True},
    "policies": ["strict"],
    "prompts": ["p"],
    "rotation_interval": "30d",
    "router_settings": {"timeout": 10},
    "rpm_limit": 60,
    "rpm_limit_type": "best_effort_throughput",
    "send_invite_email": True,
    "soft_budget": 0.000000001,
    "spend": 9000000000,
    "tag_rpm_limit": {"batch": 1},
    "tags": ["batch"],
    "team_id": "web",
    "throttle_on_budget_exceeded": True,
    "tpd_limit": 1000,
    "tpm_limit": 100,
    "tpm_limit_type": "guaranteed_throughput",
    "user_id": "alice",
}
# Elsewhere in the answer: a life is answered with its end.
NOT_ECHOED = {"key", "expires", "allowed_routes"}


@pytest.fixture(name="filled_cli")
def _filled_cli(cli: Cli) -> Cli:
    """A database with an organization, a team, a member of both and a tier."""
    cli("budget", "create", "small", check=True)
    cli("org", "create", "acme", check=True)
    cli("team", "create", "web", "--org", "acme", check=True)
    cli("user", "create", "alice", check=True)
    cli("team", "add-member", "web", "alice", check=True)
    return cli


def check(document: Any, schema: str) -> None:
    """Validate *document* against the schema that `keyctl schema` prints under this name."""
    jsonschema.validate(
        document, schemas.SCHEMAS[schema](), format_checker=jsonschema.FormatChecker()
    )


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_every_schema_is_a_valid_one(bare_cli: Cli, name: str) -> None:
    """`keyctl schema NAME` prints a JSON Schema of the dialect it says, without a database."""
    shown = bare_cli("schema", name, check=True).json

    assert shown["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(shown)


def test_an_unknown_schema_names_the_known_ones(bare_cli: Cli) -> None:
    """The hint lists everything that can be printed."""
    result = bare_cli("schema", "nonsense", "-o", "json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert all(name in result.error["hint"] for name in ["rules", *schemas.SCHEMAS])


def test_the_rules_are_printed_as_json(bare_cli: Cli) -> None:
    """`keyctl schema rules -o json` is the table, every rule once."""
    shown = bare_cli("schema", "rules", "-o", "json", check=True).json["rules"]

    assert shown == schemas.rule_table()
    assert len({rule["rule"] for rule in shown}) == len(shown)


class TestGenerate:
    def test_answers_in_its_shape(self, cli: Cli) -> None:
        """A bare request gives every name of the answer and no others."""
        answer = cli("generate", "-o", "json", check=True).json

        check(answer, "generate-response")
        assert sorted(answer) == GENERATE_ANSWER.split()

    def test_answers_a_full_request_in_its_shape(self, filled_cli: Cli) -> None:
        """Every field comes back as it was given, money to the last decimal."""
        body = json.dumps(FULL_REQUEST)

        answer = filled_cli("generate", "--request", "-", "-o", "json", input=body, check=True).json

        check(FULL_REQUEST, "generate-request")
        check(answer, "generate-response")
        assert {name: answer[name] for name in FULL_REQUEST} == FULL_REQUEST

    def test_knows_every_field(self) -> None:
        """The full request above leaves none out."""
        assert set(FULL_REQUEST) == set(GenerateRequest.model_fields) - NOT_ECHOED

    def test_answers_a_replay_in_its_shape(self, cli: Cli) -> None:
        """The second time there is no key string, and the answer says so."""
        again = ("generate", "--request-id", "r", "-o", "json")
        cli(*again, check=True)

        answer = cli(*again, check=True).json

        check(answer, "generate-response")
        assert (answer["replayed"], "key" in answer) == (True, False)

    def test_answers_in_its_shape_when_a_file_took_the_key(self, cli: Cli) -> None:
        """stdout has the answer without the key, the file has the key."""
        path = cli.home / "key.txt"

        answer = cli("generate", "--out-file", str(path), "-o", "json", check=True).json

        check(answer, "generate-response")
        assert "key" not in answer
        assert cli.verdict(path.read_text())["key_id"] == answer["key_id"]

    def test_says_what_it_filled_in(self, cli: Cli) -> None:
        """Filled fields are listed with where they come from."""
        cli("team", "create", "web", "--max-budget", "7.5", check=True)

        answer = cli("generate", "--team", "web", "-o", "json", check=True).json

        check(answer, "generate-response")
        assert answer["filled"] == [
            {"field": "max_budget", "value": 7.5, "source": "team.max_budget"}
        ]


class TestInfo:
    def test_answers_in_its_shape(self, filled_cli: Cli) -> None:
        """Everything that generate answered is still there, and the secrets."""
        made = filled_cli(
            "generate", "--request", "-", "-o", "json", input=json.dumps(FULL_REQUEST), check=True
        ).json

        shown = filled_cli("info", "full", "-o", "json", check=True).json

        check(shown, "info-response")
        same = set(FULL_REQUEST) | {"key_id", "key_name", "expires", "allowed_routes"}
        assert {name: shown[name] for name in same} == {name: made[name] for name in same}
        assert [secret["state"] for secret in shown["secrets"]] == ["active"]


class TestVerify:
    def test_answers_in_its_shape(self, cli: Cli) -> None:
        """A valid key tells whose it is."""
        key = cli.key("--alias", "ci")

        verdict = cli.verdict(key)

        check(verdict, "verify-response")
        assert list(verdict) == VERIFY_ANSWER.split()
        assert (verdict["valid"], verdict["key_alias"]) == (True, "ci")

    @pytest.mark.parametrize("presented", ["nonsense", "sk-unknown-but-possible"])
    def test_answers_in_its_shape_when_it_is_not_valid(self, cli: Cli, presented: str) -> None:
        """A stranger's key has the same names, all null but the reason."""
        cli.key()

        result = cli("verify", "-", "-o", "json", input=presented)

        check(result.json, "verify-response")
        assert (result.exit_code, result.json["valid"], result.json["key_id"]) == (10, False, None)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "body", "code"),
        [
            (["nonsense"], None, "usage"),
            (["generate", "--nonsense"], None, "usage"),
            (["generate", "--max-budget", "nan"], None, "invalid_money"),
            (["generate", "--request", "-"], "{", "malformed_request"),
            (["generate", "--request", "-"], '{"a": 1, "budget_id": 2}', "malformed_request"),
            (["generate", "--team", "nowhere"], None, "team_not_found"),
            (["info", "nobody"], None, "key_not_found"),
            (["generate", "--team", "web", "--max-budget", "9"], None, "policy_denied"),
            (["team", "create", "web"], None, "already_exists"),
            (["generate", "--alias", "ci"], None, "alias_taken"),
        ],
    )
    def test_have_their_shape(
        self, cli: Cli, arguments: list[str], body: str | None, code: str
    ) -> None:
        """One JSON object on stderr, nothing on stdout, and the exit code in both places."""
        cli("team", "create", "web", "--max-budget", "5", "--model", "m", check=True)
        cli.key("--alias", "ci")

        result = cli(*arguments, "-o", "json", input=body)

        check(error_of(result), "error-response")
        assert (result.stdout, result.error["code"]) == ("", code)
        assert result.error["exit_code"] == result.exit_code

    def test_carry_every_violation(self, cli: Cli) -> None:
        """A denied request names each rule with the bound and the value."""
        cli("team", "create", "web", "--max-budget", "5", "--model", "m", check=True)

        result = cli("generate", "--team", "web", "--max-budget", "9", "--model", "x", "-o", "json")

        check(error_of(result), "error-response")
        assert {
            (item["rule"], json.dumps(item["bound"]), json.dumps(item["value"]))
            for item in result.error["violations"]
        } == {("team.max_budget", "5", "9"), ("team.models", '["m"]', '["x"]')}


def error_of(result: Result) -> Any:
    """Return the whole of stderr as the one JSON document that it has to be."""
    return json.loads(result.stderr)


def test_gateway_fields_are_only_there_when_given(filled_cli: Cli) -> None:
    """Fields that only a gateway reads come back under their own names, and only then."""
    plain = filled_cli("generate", "-o", "json", check=True).json
    given = filled_cli("generate", "--prompt", "p", "-o", "json", check=True).json

    assert set(plain) & set(GatewayFields.model_fields) == set()
    assert set(given) & set(GatewayFields.model_fields) == {"prompts"}
