"""Routes: which groups there are, what each covers, and what a key reaches that names none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gate import Gate
from harness import Cli

from keyctl import routes
from keyctl.gateway import Verifier

MODEL_ROUTES = [
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/resp_1",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/utils/token_counter",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/rerank",
    "/v2/rerank",
    "/v1/realtime",
    "/openai/deployments/gpt-4o/chat/completions",
    "/engines/openai/gpt-4o/chat/completions",
    "/v1beta/models/gemini-2.5-pro:generateContent",
    "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
    "/models/gemini-2.5-pro:countTokens",
    "/v1/models",
    "/v1/models/gpt-4o",
    "/key/info",
    "/v1/models/",
]
OTHER_ROUTES = [
    "/v1/files",
    "/v1/files/file-1/content",
    "/v1/batches",
    "/v1/batches/batch_1",
    "/v1/vector_stores",
    "/v1/fine_tuning/jobs",
    "/v1/assistants",
    "/anthropic/v1/messages",
    "/vertex_ai/v1/projects/p",
    "/openai/v1/chat/completions",
    "/v1/realtime/client_secrets",
    "/key/list",
    "/key/generate",
    "/config/yaml",
    "/v1/models//",
    "/",
]


class TestGroups:
    @pytest.mark.parametrize("route", MODEL_ROUTES)
    def test_models_are_reached_by_default(self, route: str) -> None:
        """Whatever form of a request for a model LiteLLM has."""
        assert routes.is_allowed(route, [routes.DEFAULT])

    @pytest.mark.parametrize("route", OTHER_ROUTES)
    def test_nothing_else_is(self, route: str) -> None:
        """Other people's files and a provider's own interface are asked for by name."""
        assert not routes.is_allowed(route, [routes.DEFAULT])

    @pytest.mark.parametrize(
        ("group", "route", "covered"),
        [
            ("openai_routes", "/v1/files/file-1/content", True),
            ("openai_routes", "/v1/messages", False),
            ("openai_routes", "/v1/containers/a/b", True),
            ("anthropic_routes", "/v1/messages", True),
            ("google_routes", "/v1beta/models/gemini/x:generateContent", True),
            ("google_routes", "/v1beta/models/gemini:x:generateContent", False),
            ("llm_api_routes", "/anthropic/v1/messages", True),
            ("llm_api_routes", "/v1/batches/batch_1/cancel", True),
            ("llm_api_routes", "/key/generate", False),
            ("management_routes", "/key/generate", True),
            ("management_routes", "/key/sk-1/regenerate", True),
            ("management_routes", "/v1/chat/completions", False),
            ("info_routes", "/key/info", True),
            ("info_routes", "/key/delete", False),
            ("mcp_routes", "/mcp/tools/call", True),
            ("spend_tracking_routes", "/spend/logs", True),
        ],
    )
    def test_a_group_covers_what_it_covers_in_litellm(
        self, group: str, route: str, covered: bool
    ) -> None:
        """A place in braces takes one segment, a `:path` several, a `*` whatever follows."""
        assert routes.is_allowed(route, [group]) is covered

    @pytest.mark.parametrize("route", ["/v1/models/../files", "/v1/models/%2e%2e", "/v1//models"])
    def test_a_path_that_leads_elsewhere_is_covered_by_nothing(self, route: str) -> None:
        """What it leads to is only known to who resolves it."""
        assert not routes.is_allowed(route, ["*"])


class TestKeys:
    def test_an_unknown_group_is_refused_with_the_nearest(self, cli: Cli) -> None:
        """A word that stands for nothing would be a key that reaches nothing."""
        got = cli("generate", "--allowed-route", "llm_api_rotes")

        assert (got.exit_code, got.stdout) == (2, "")
        assert "'llm_api_rotes' is neither a path nor a group of routes" in got.stderr
        assert "llm_api_routes" in got.stderr.replace("llm_api_rotes", "")

    def test_a_new_key_has_its_default_written_down(self, cli: Cli) -> None:
        """So that no later release widens it; naming routes replaces it."""
        cli("generate", "--alias", "a", check=True)
        assert shown(cli, "a") == ([], ["model_routes"])

        cli("update", "a", "--allowed-route", "llm_api_routes", check=True)
        assert shown(cli, "a") == (["llm_api_routes"], None)

        cli("update", "a", "--request", "-", input='{"allowed_routes": []}', check=True)
        assert shown(cli, "a") == ([], ["model_routes"])

    def test_the_configuration_widens_the_default(self, cli: Cli) -> None:
        """`default_routes` adds to it for keys that are made from then on."""
        cli.configure('bcrypt_cost = 4\ndefault_routes = ["/v1/files"]\n')
        cli("generate", "--alias", "a", check=True)

        assert shown(cli, "a") == ([], ["model_routes", "/v1/files"])

    def test_db_check_lists_keys_from_before(self, cli: Cli) -> None:
        """With the command that gives them the narrower default, after which they are gone from it."""
        cli("generate", "--alias", "new", check=True)
        key = cli("generate", "--alias", "old", "-o", "json", check=True).json["key_id"]
        cli.execute("UPDATE keys SET gateway = '{}' WHERE key_alias = 'old'")

        (listed,) = cli("db", "check", "-o", "json", check=True).json["earlier_routes"]
        assert (listed["key_id"], listed["key_alias"]) == (key, "old")

        cli(*listed["command"].split()[1:], check=True)
        assert cli("db", "check", "-o", "json", check=True).json["earlier_routes"] == []
        assert shown(cli, "old") == ([], ["model_routes"])

    def test_schema_routes_lists_every_group(self, cli: Cli) -> None:
        """With its members, those of the groups within it included."""
        groups = json.loads(cli("schema", "routes", "-o", "json", check=True).stdout)["groups"]

        assert {"openai_routes", "llm_api_routes", "management_routes", "info_routes"} <= set(
            groups
        )
        assert set(groups["openai_routes"]) < set(groups["llm_api_routes"])


def shown(cli: Cli, alias: str) -> tuple[Any, Any]:
    """Return the routes and the default that `info` shows."""
    key = cli("info", alias, "-o", "json", check=True).json
    return key["allowed_routes"], key.get("default_routes")


def reason_of(gate: Gate, key: str, **request: str) -> str | None:
    """Return why the key may not make this request; None if it may."""
    with Verifier(gate.url) as verifier:
        return verifier.verify(key, **request).reason


@pytest.fixture(name="gate")
def _gate(database_url: str, tmp_path: Path) -> Iterator[Gate]:
    """A database to make keys in."""
    gate = Gate(database_url, tmp_path)
    yield gate
    gate.close()


class TestGateway:
    def test_a_default_key_reaches_models_only(self, gate: Gate) -> None:
        """In any gateway that tells the route."""
        key = gate.key()

        assert reason_of(gate, key, route="/v1/chat/completions") is None
        assert reason_of(gate, key, route="/v1/files/file-1") == "route_denied"

    def test_a_key_from_before_keeps_what_it_had(self, gate: Gate) -> None:
        """It has no default written down."""
        key = gate.key()
        gate.execute("UPDATE keys SET gateway = '{}'")

        assert reason_of(gate, key, route="/v1/files/file-1") is None

    def test_a_spent_budget_leaves_discovery(self, gate: Gate) -> None:
        """What costs nothing and tells what can be used."""
        key = gate.key(max_budget=1)
        gate.execute("UPDATE keys SET spend = 1000000000")

        assert reason_of(gate, key, route="/v1/models") is None
        assert reason_of(gate, key, route="/v1/models/gpt-4o") is None
        assert reason_of(gate, key, route="/v1/embeddings") == "budget_exceeded"

    @pytest.mark.parametrize(
        ("models", "model", "reason"),
        [
            (["openai/*"], "gpt-4o", None),
            (["anthropic/*"], "gpt-4o", "model_denied"),
            (["openai/gpt-4*"], "gpt-4o", None),
            (["openai/gpt-4o"], "gpt-4o", "model_denied"),
            (["openai/*"], "nobody-s", "model_denied"),
        ],
    )
    def test_a_bare_name_matches_its_provider_s_wildcard(
        self, gate: Gate, models: list[str], model: str, reason: str | None
    ) -> None:
        """As in LiteLLM: wildcards only, and names that LiteLLM knows a provider for."""
        assert reason_of(gate, gate.key(models=models), model=model) == reason
