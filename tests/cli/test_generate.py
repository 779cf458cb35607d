"""keyctl generate, end to end, on both databases."""

import json

import jsonschema
import pytest
from harness import Cli

SEED_BODIES = (
    {
        "key_alias": "my-app-key",
        "max_budget": 100.0,
        "budget_duration": "30d",
        "models": ["gpt-4", "claude-3"],
        "metadata": {"app": "my-application"},
    },
    {
        "team_id": "team-engineering",
        "user_id": "user-123",
        "rpm_limit": 100,
        "tpm_limit": 50000,
        "max_budget": 50.0,
        "duration": "30d",
    },
    {
        "key_alias": "rotating-key",
        "auto_rotate": True,
        "rotation_interval": "90d",
        "max_budget": 200.0,
    },
)


class TestInAPipe:
    def test_prints_the_bare_key_and_it_verifies(self, cli: Cli) -> None:
        """KEY=$(keyctl generate …) holds a key that verify accepts."""
        cli("team", "create", "web", "--max-budget", "100", check=True)

        made = cli("generate", "--team", "web", "--max-budget", "50")
        checked = cli("verify", "-", "-o", "json", input=made.stdout)

        assert (made.exit_code, made.stdout.count("\n")) == (0, 1)
        assert (checked.exit_code, checked.json["valid"], checked.json["team_id"]) == (
            0,
            True,
            "web",
        )


@pytest.mark.parametrize("body", SEED_BODIES, ids=["basic", "team", "rotating"])
def test_the_seed_bodies_work_unchanged(cli: Cli, body: dict[str, object]) -> None:
    """LiteLLM's JSON bodies give LiteLLM's fields back, in the published shape."""
    cli("team", "create", "team-engineering", check=True)
    cli("user", "create", "user-123", check=True)
    cli("team", "add-member", "team-engineering", "user-123", check=True)

    made = cli("generate", "--request", "-", "-o", "json", input=json.dumps(body), check=True)

    schema = cli("schema", "generate-response", check=True).json
    jsonschema.validate(made.json, schema)
    assert {name: made.json[name] for name in body} == body
