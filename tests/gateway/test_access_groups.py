"""Groups of models: named in the configuration, used by keys and teams, looked up by gateways."""

import json
from pathlib import Path

import pytest
from harness import Cli

from keyctl.gateway import Verifier

GROUPS = 'bcrypt_cost = 4\n[access_groups]\nbeta = ["gpt-5", "o9*"]\nold = ["gpt-3"]\n'


def reason_of(cli: Cli, key: str, model: str) -> str | None:
    """Return why the key may not use the model; None if it may."""
    url = cli.database_url or f"sqlite:///{Path(cli.home) / '.local/share/keyctl/keyctl.db'}"
    with Verifier(url) as verifier:
        return verifier.verify(key, model=model).reason


class TestGroups:
    def test_a_key_may_use_what_is_in_its_groups(self, cli: Cli) -> None:
        """Besides its own models; a group changed in the configuration changes with the next write."""
        cli.configure(GROUPS)
        body = json.dumps({"models": ["gpt-4o"], "access_group_ids": ["beta"]})
        key = cli("generate", "--request", "-", input=body, check=True).stdout.strip()

        told = [reason_of(cli, key, model) for model in ("gpt-4o", "gpt-5", "o9-mini", "gpt-3")]
        assert told == [None, None, None, "model_denied"]

        cli.configure(GROUPS.replace('"gpt-5", ', ""))
        cli("team", "create", "web", check=True)
        assert reason_of(cli, key, "gpt-5") == "model_denied"

    def test_a_group_s_name_among_the_models_stands_for_them(self, cli: Cli) -> None:
        """Of a key and of its team."""
        cli.configure(GROUPS)
        cli("team", "create", "web", "--model", "beta", "--model", "gpt-4o", check=True)
        key = cli.key("--team", "web", "--model", "beta")

        assert [reason_of(cli, key, model) for model in ("gpt-5", "gpt-4o")] == [
            None,
            "model_denied",
        ]

    def test_a_key_of_groups_only_may_use_nothing_else(self, cli: Cli) -> None:
        """An empty group is one without models, and not all of them."""
        cli.configure(GROUPS + "none = []\n")
        body = json.dumps({"access_group_ids": ["none"]})
        key = cli("generate", "--request", "-", input=body, check=True).stdout.strip()

        assert reason_of(cli, key, "gpt-4o") == "model_denied"

    @pytest.mark.parametrize("command", [["generate"], ["update", "a"]])
    def test_an_unknown_group_is_not_found(self, cli: Cli, command: list[str]) -> None:
        """With the nearest name."""
        cli.configure(GROUPS)
        cli("generate", "--alias", "a", check=True)
        body = json.dumps({"access_group_ids": ["betta"]})

        got = cli(*command, "--request", "-", input=body)

        assert (got.exit_code, got.stdout) == (3, "")
        assert "did you mean beta?" in got.stderr
