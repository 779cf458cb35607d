"""What teams and organizations have beside a budget: set, shown with what is left, held for all their keys.

Windows, budgets of single models, tokens a day, and requests at the same time.
"""

import json
from decimal import Decimal
from typing import Any, ClassVar

import jsonschema
import pytest
from harness import Cli

from keyctl import schemas
from keyctl.gateway import Verifier

BUDGETS: dict[str, Any] = {
    "budget_limits": [{"budget_duration": "1d", "max_budget": 2.5}],
    "model_max_budget": {"o1": {"budget_limit": 1, "time_period": "30d"}},
}
OWN_FORM = {"o1": {"max_budget": 1, "budget_duration": "30d"}}


def shown(cli: Cli) -> dict[str, Any]:
    """Return team web as `team info` tells it."""
    view: dict[str, Any] = cli("team", "info", "web", "-o", "json", check=True).json
    return view


class TestRequests:
    def test_make_and_change_a_team(self, cli: Cli) -> None:
        """What the options say goes before the request; --clear empties a field."""
        made = cli(
            *("team", "create", "web", "--request", "-", "--rpm-limit", "9", "-o", "json"),
            input=json.dumps({**BUDGETS, "rpm_limit": 5}),
            check=True,
        ).json
        assert (made["rpm_limit"], made["model_max_budget"]) == (9, OWN_FORM)
        assert made["budget_limits"] == BUDGETS["budget_limits"]

        body = json.dumps({"budget_limits": [{"budget_duration": "7d", "max_budget": 3}]})
        changed = cli(
            *("team", "update", "web", "--request", "-", "--clear", "model_max_budget"),
            *("-o", "json"),
            input=body,
            check=True,
        ).json

        assert (changed["budget_limits"][0]["max_budget"], changed["model_max_budget"]) == (3, {})
        cli("team", "update", "web", "--request", "-", input='{"budget_limits": null}', check=True)
        assert shown(cli)["budget_limits"] == []
        cli("audit", "verify", "--state", check=True)

    def test_take_an_amount_as_litellm_s_manual_writes_it(self, cli: Cli) -> None:
        """A `budget_limit` in quotation marks is exact; no other amount may be."""
        cli("team", "create", "web", check=True)
        cli("budget", "create", "small", "--max-budget", "5", check=True)
        body = {"model_max_budget": {"o1": {"budget_limit": "0.0000001", "time_period": "1d"}}}
        for words in (
            ("generate", "-o", "json"),
            ("team", "update", "web", "-o", "json"),
            ("budget", "update", "small", "-o", "json"),
        ):
            made = cli(*words, "--request", "-", input=json.dumps(body), check=True).stdout
            budget = json.loads(made, parse_float=str)["model_max_budget"]["o1"]
            assert Decimal(budget["max_budget"]) == Decimal("0.0000001")
        for wrong in ("0.5 $", "nan", "1e400", "-1", "", "٣"):
            body["model_max_budget"]["o1"]["budget_limit"] = wrong
            result = cli("generate", "--request", "-", input=json.dumps(body))
            assert (result.exit_code, "model_max_budget.o1" in result.stderr) == (2, True)
        own = json.dumps({"model_max_budget": {"o1": {"max_budget": "1"}}})
        assert cli("generate", "--request", "-", input=own).exit_code == 2
        slip = json.dumps({"model_max_budget": {"o1": {"budgetlimit": 1}}})
        told = cli("generate", "--request", "-", input=slip).stderr
        assert "did you mean budget_limit?" in told

    def test_that_are_malformed_are_refused(self, cli: Cli) -> None:
        """With the field and what is wrong about it."""
        day = {"budget_duration": "1d", "max_budget": 1}
        for body, told in (
            ({"budget_limits": [day, day]}, "names a budget_duration twice"),
            ({"budget_limits": [{"max_budget": 1}]}, "budget_duration"),
            ({"budget_limits": [{**day, "budget_duration": "often"}]}, "often"),
            ({"model_max_budget": {"o1": {"max_budget": -1}}}, "max_budget"),
            ({"model_max_budget": {"o1": {"max_budget": 1, "budget_limit": 1}}}, "not both"),
            ({"tpd_limit": -5}, "tpd_limit"),
            ({"soft_budget": 5}, "soft_budget"),
        ):
            result = cli(
                "team", "create", "web", "--request", "-", "-o", "json", input=json.dumps(body)
            )
            assert (result.exit_code, result.error["code"]) == (2, "malformed_request"), body
            assert told in result.stderr, body

    def test_make_one_for_each_row(self, cli: Cli) -> None:
        """A list of teams has the same fields."""
        rows = "\n".join(json.dumps({"team_id": name, **BUDGETS}) for name in ("web", "ops"))
        path = cli.home / "teams.jsonl"
        path.write_text(rows)
        cli("team", "create", "--from", str(path), check=True)
        assert shown(cli)["model_max_budget"] == OWN_FORM

    def test_are_for_admins(self, cli: Cli) -> None:
        """Who administers the team does not raise a window that it was given."""
        cli("team", "create", "web", "--request", "-", input=json.dumps(BUDGETS), check=True)
        cli("user", "create", "tina", check=True)
        cli("team", "add-member", "web", "tina", "--role", "admin", check=True)
        key = cli("generate", "--user", "tina", "--team", "web", check=True).stdout.strip()
        body = json.dumps({"budget_limits": [{"budget_duration": "1d", "max_budget": 999}]})
        result = cli(
            *("team", "update", "web", "--request", "-", "-o", "json"),
            input=body,
            environment={"KEYCTL_API_KEY": key},
        )
        assert (result.exit_code, shown(cli)["budget_limits"]) == (4, BUDGETS["budget_limits"])


def test_info_tells_what_is_left(cli: Cli) -> None:
    """Of each window and model, for people and for programs, of the team and of its keys."""
    cli("team", "create", "web", "--request", "-", input=json.dumps(BUDGETS), check=True)
    key = cli("generate", "--team", "web", "--alias", "ci", check=True).stdout.strip()
    with Verifier(str(cli.database_url)) as verifier:
        verifier.verify(key, model="o1").record(0.25)

    view = shown(cli)

    jsonschema.Draft202012Validator(schemas.SCHEMAS["team-info-response"]()).validate(view)
    left = {item["what"]: (item["of"], item["left"], item["period"]) for item in view["budgets"]}
    assert left == {"window:1d": ("team", 2.25, "1d"), "model:o1": ("team", 0.75, "30d")}
    of_key = cli("info", "ci", "-o", "json", check=True).json["effective"]["budgets"]
    assert {item["what"]: item["left"] for item in of_key} == {"window:1d": 2.25, "model:o1": 0.75}
    page = cli("team", "info", "web", check=True).stdout
    assert "$2.25 of $2.50 per 1d (of team web, window:1d)" in page


def test_verify_tells_which_budget_is_spent(cli: Cli) -> None:
    """All that are, for people and for programs; an owner's is told as the owner's."""
    cli("team", "create", "web", check=True)
    key = cli("generate", "--team", "web", "--alias", "ci", check=True).stdout.strip()
    cli("team", "update", "web", "--request", "-", input=json.dumps(BUDGETS), check=True)
    cli("update", "ci", "--tpd-limit", "10", check=True)
    with Verifier(str(cli.database_url)) as verifier:
        verifier.verify(key).record(3, tokens=10)

    found = cli("verify", "-", "-o", "json", input=key).json
    page = cli("verify", "-", input=key)

    jsonschema.Draft202012Validator(schemas.SCHEMAS["verify-response"]()).validate(found)
    assert found["reason"] == "budget_exceeded"
    of_key, of_team = found["spent"]
    assert (of_team["of"], of_team["id"], of_team["what"]) == ("team", "web", "window:1d")
    assert (of_team["limit"], of_team["spend"], of_team["left"]) == (2.5, 3, 0)
    assert (of_key["of"], of_key["id"], of_key["unit"]) == ("key", found["key_id"], "tokens")
    assert page.exit_code == 10
    anew = [f", starts again {item['resets_at'][:19]}Z" for item in (of_key, of_team)]
    assert page.stdout.splitlines()[-2:] == [
        f"spent: tokens:daily of key {found['key_id']}, 10 tokens per day{anew[0]}",
        f"spent: window:1d of team web, $2.5 per 1d{anew[1]}",
    ]


class TestTokensAndOrganizations:
    """Tokens a day of both, and what an organization limits as a team does."""

    LIMITS: ClassVar[dict[str, Any]] = {"tpd_limit": 500, "max_parallel_requests": 3}
    OPTIONS = ("--tpd-limit", "500", "--max-parallel-requests", "3")

    @pytest.mark.parametrize("noun", ["team", "org"])
    def test_are_set_changed_and_cleared(self, cli: Cli, noun: str) -> None:
        """By options and by a request; a dry run writes none of it."""
        models = json.dumps({"model_max_budget": BUDGETS["model_max_budget"]})
        start = (noun, "create", "web", *self.OPTIONS, "--request", "-", "-o", "json")
        assert cli(*start, "--dry-run", input=models, check=True).json["allowed"]
        assert cli(noun, "info", "web").exit_code == 3

        made = cli(*start, input=models, check=True).json

        assert {name: made[name] for name in self.LIMITS} == self.LIMITS
        assert made["model_max_budget"] == OWN_FORM
        update = (noun, "update", "web", "-o", "json")
        body = json.dumps({"tpd_limit": 7, "model_max_budget": {"o1": {"rpm_limit": 4}}})
        changed = cli(*update, "--request", "-", input=body, check=True).json
        assert (changed["tpd_limit"], changed["model_max_budget"]) == (7, {"o1": {"rpm_limit": 4}})
        clears = ("--clear", "tpd_limit", "--clear", "model_max_budget")
        cleared = cli(*update, *clears, "--clear", "max_parallel_requests", check=True).json
        assert cleared["model_max_budget"] == {}
        assert {cleared[name] for name in self.LIMITS} == {None}
        cli("audit", "verify", "--state", check=True)

    def test_of_an_organization_are_told_with_what_is_left(self, cli: Cli) -> None:
        """For people and for programs, of it and of its keys."""
        body = json.dumps({"tpd_limit": 500, "model_max_budget": BUDGETS["model_max_budget"]})
        cli("org", "create", "acme", "--request", "-", input=body, check=True)
        key = cli("generate", "--org", "acme", "--alias", "ci", check=True).stdout.strip()
        with Verifier(str(cli.database_url)) as verifier:
            verifier.verify(key, model="o1").record(0.25, tokens=100)

        view = cli("org", "info", "acme", "-o", "json", check=True).json

        jsonschema.Draft202012Validator(schemas.SCHEMAS["org-info-response"]()).validate(view)
        left = {item["what"]: (item["of"], item["left"], item["unit"]) for item in view["budgets"]}
        of_both = {
            "model:o1": ("organization", 0.75, "dollars"),
            "tokens:daily": ("organization", 400, "tokens"),
        }
        assert left == of_both
        of_key = cli("info", "ci", "-o", "json", check=True).json["effective"]["budgets"]
        assert {
            item["what"]: (item["of"], item["left"], item["unit"]) for item in of_key
        } == of_both
        page = cli("org", "info", "acme", check=True).stdout
        assert "400 of 500 tokens per day (of organization acme, tokens:daily)" in page
