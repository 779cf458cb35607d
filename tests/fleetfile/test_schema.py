"""The schema of fleet files: editors complete from it, and it accepts what is accepted."""

from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from keyctl.fleetfile.described import FleetText, read_fleet
from keyctl.fleetfile.schema import fleet

EXAMPLE = """
version: 1
fleet: web
organizations: {acme: {max_budget: 1000}}
users: {alice@example.com: {user_role: internal_user}}
teams:
  web:
    organization_id: acme
    models: ["gpt-4*"]
    policy: {require_expiry: true}
    members: {alice@example.com: {role: admin}}
    adopt: true
budgets: {small: {max_budget: 5, budget_duration: 1d}}
keys:
  checkout: {team_id: web, max_budget: 20, auto_rotate: true, rotation_interval: 30d, deliver: vault}
  worker-{n}: {count: 20, team_id: web, rpm_limit: null, deliver: files}
  empty:
"""


def fields(schema: Any) -> dict[str, Any]:
    """Return every field in a schema, however deep."""
    found: dict[str, Any] = {}
    if isinstance(schema, dict):
        found |= schema.get("properties") or {}
        for value in schema.values():
            found |= fields(value)
    elif isinstance(schema, list):
        for value in schema:
            found |= fields(value)
    return found


def test_every_field_has_its_sentence() -> None:
    """Nobody has to guess what a field means."""
    assert [name for name, field in fields(fleet()).items() if not field["description"]] == []


def test_accepts_what_is_read() -> None:
    """The example of the manual is a fleet, to an editor and to keyctl."""
    Draft202012Validator.check_schema(fleet())
    Draft202012Validator(fleet()).validate(yaml.safe_load(EXAMPLE))

    assert len(read_fleet([FleetText(name="f", text=EXAMPLE)]).keys) == 3


@pytest.mark.parametrize(
    "text", ["keys: {a: {key: sk-x}}", "keys: {a: {spend: 1}}", "teem: {}", "teams: {a: {id: a}}"]
)
def test_refuses_what_is_refused(text: str) -> None:
    """What keyctl would refuse an editor underlines."""
    assert not Draft202012Validator(fleet()).is_valid(yaml.safe_load(text))
