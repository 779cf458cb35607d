"""Publish the JSON Schemas of requests and answers, and the table of rules."""

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel

from keyctl import actions, lifecycle, limits
from keyctl.answers import ANSWERS
from keyctl.config.document import Configuration
from keyctl.fleetfile.schema import fleet
from keyctl.owner_answers import MANY_OWNERS
from keyctl.policy import authority, engine
from keyctl.policy.documents import Policy
from keyctl.principals import (
    MemberRequest,
    OrganizationRequest,
    TeamRequest,
    TierRequest,
    UserRequest,
)
from keyctl.records import DEFAULT_ROUTES
from keyctl.requests import GatewayFields, GenerateRequest, UpdateRequest
from keyctl.shapes import (
    CHANGES,
    CURSOR,
    DIALECT,
    ERROR,
    FILLED,
    HEAD,
    INSTANT,
    LEFT,
    MOMENT,
    NUMBER,
    TEXT,
    TRUTH,
    VIOLATIONS,
    WORD,
    WORDS,
    Schema,
    key_properties,
    list_of,
    object_of,
    rows,
    secrets,
    whole,
)

# Shown of a key that names no routes itself.
_DEFAULT_ROUTES: Final = {DEFAULT_ROUTES: WORDS}


def _model(model: type[BaseModel]) -> Callable[[], Schema]:
    return lambda: {"$schema": DIALECT, **model.model_json_schema()}


def generate_response() -> Schema:
    """Return the schema of what `generate -o json` prints."""
    properties = key_properties()
    required = list(properties)
    gateway = GatewayFields.model_json_schema()
    properties.update({**gateway["properties"], **_DEFAULT_ROUTES})
    properties.update(
        {
            "key": {"type": "string", "pattern": "^sk-"},
            "filled": FILLED,
            "warnings": WORDS,
            "replayed": TRUTH,
            "secrets": secrets(),
            "audit": HEAD,
        }
    )
    # `key` is absent where a file or sink took it, the last four in the answer to a replay.
    return {**object_of(properties, required), "$defs": gateway.get("$defs", {})}


def update_response() -> Schema:
    """Return the schema of what `update KEY -o json` prints: the key, and what changed of it."""
    made = generate_response()
    own = dict(made["properties"])
    del own["key"], own["replayed"]
    own["changes"] = CHANGES
    required = [*made["required"], "secrets", "changes", "filled", "audit"]
    return {**object_of(own, required), "$defs": made["$defs"]}


def verdict_response() -> Schema:
    """Return the schema of what `generate|update --dry-run -o json` print of one key."""
    listed = list_response()
    record = dict(listed["properties"]["keys"]["items"])
    # The ids of a key that is not made yet are null.
    ids = dict.fromkeys(("key_id", "token", "token_id", "key_name"), TEXT)
    record["properties"] = {**record["properties"], **ids}
    properties = {
        "allowed": TRUTH,
        "violations": VIOLATIONS,
        "record": record,
        "filled": FILLED,
        "overridden": VIOLATIONS,
        # Of `--count`: the rest is the verdict on one key, the first that a rule is against.
        "count": NUMBER,
        "would_make": NUMBER,
        "failed": rows(whole({"key_alias": TEXT, "error": ERROR})),
    }
    of_many = ("count", "would_make", "failed")
    return {**whole(properties, *of_many), "$defs": listed["$defs"]}


def info_response() -> Schema:
    """Return the schema of what `info -o json` prints."""
    properties = key_properties()
    required = [*properties, "secrets"]
    gateway = GatewayFields.model_json_schema()
    properties.update({**gateway["properties"], **_DEFAULT_ROUTES})
    properties["secrets"] = secrets()
    properties["effective"] = _effective()
    return {**object_of(properties, [*required, "effective"]), "$defs": gateway.get("$defs", {})}


def _effective() -> Schema:
    """Return the schema of what a key may do in effect: each limit with whose it is."""
    owner = {"of": {"enum": ["key", "team", "user", "organization"]}, "id": WORD}
    limit = object_of({**owner, "limit": {"type": "integer"}}, ["limit", "of", "id"])
    properties = {
        "works": TRUTH,
        "reason": TEXT,
        "remedy": WORD,
        "until": INSTANT,
        "models": rows(whole({**owner, "models": WORDS})),
        **{
            name: {"anyOf": [limit, {"type": "null"}]}
            for name in ("rpm_limit", "tpm_limit", "max_parallel_requests")
        },
        "budgets": rows(LEFT),
    }
    return object_of(properties, ["works", "reason", "until", "models", "budgets"])


def verify_response() -> Schema:
    """Return the schema of what `verify -o json` prints."""
    reasons = (
        "malformed unknown revoked blocked expired team_blocked org_blocked user_blocked"
        " budget_exceeded"
    )
    properties = {
        "valid": TRUTH,
        "reason": {"enum": [None, *reasons.split()]},
        **dict.fromkeys(("key_id", "key_alias", "team_id", "user_id", "secret_id"), TEXT),
        "secret_state": {"enum": [None, *lifecycle.SECRET_STATES]},
        "expires": INSTANT,
        "spent": rows(LEFT),
    }
    return whole(properties)


def error_response() -> Schema:
    """Return the schema of the error that `-o json` prints on stderr."""
    return whole({"error": ERROR})


def event() -> Schema:
    """Return the schema of what a hook is sent: Standard Webhooks' `type`, `timestamp` and `data`."""
    data = {
        "object_type": WORD,
        "object_id": WORD,
        "actor": WORD,
        "changed_by": TEXT,
        "reason": TEXT,
        "seq": {"type": "integer", "minimum": 1},
        "changes": CHANGES,
        "key": {"type": "object", "properties": key_properties()},
        # Of a rotation: where its new secret went, null if it was shown.
        "sink": TEXT,
    }
    properties = {
        "type": {"enum": sorted(actions.ACTIONS)},
        "timestamp": MOMENT,
        "data": {
            "type": "object",
            "properties": data,
            "required": [name for name in data if name not in ("key", "sink")],
            "additionalProperties": False,
        },
    }
    return whole(properties)


def rule_table() -> list[dict[str, Any]]:
    """Return every rule: its id, whom it binds, whether it can be overridden, what it demands.

    `closes` marks those without which a caller could end up with more than they were given;
    `guards` says of the others that bind callers what they are there for.
    """
    return [
        {
            "rule": rule.id,
            "binds": rule.binds,
            "overridable": rule.overridable,
            "closes": rule.closes,
            "demands": rule.demands,
            "guards": rule.guards or None,
        }
        for rule in engine.RULES
    ]


def field_table() -> list[dict[str, Any]]:
    """Return every limit: whose it is, who enforces it, how it is compared, and what else to know."""
    return [
        {
            "field": limit.field,
            "of": list(limit.of),
            "enforced_by": limit.enforced_by,
            "order": limit.order,
            "note": limit.note,
        }
        for limit in limits.LIMITS
    ]


def authority_table() -> list[dict[str, Any]]:
    """Return who may do what to whose key, as the rules decide it, with LiteLLM's answer beside."""
    return [
        {
            "operation": cell.operation,
            "route": cell.route,
            "role": cell.role,
            "whose": cell.whose,
            "allowed": cell.allowed,
            "rules": list(cell.rules),
            "litellm": cell.litellm,
            "reason": cell.reason,
        }
        for cell in authority.table()
    ]


def list_response() -> Schema:
    """Return the schema of what `list -o json` prints; a line of `-o jsonl` is one of its rows."""
    gateway = GatewayFields.model_json_schema()
    properties = key_properties()
    row = object_of({**properties, **gateway["properties"], **_DEFAULT_ROUTES}, list(properties))
    return {**list_of("keys", row, CURSOR), "$defs": gateway.get("$defs", {})}


def many_response() -> Schema:
    """Return the schema of what `generate --count -o json` prints."""
    made = generate_response()
    properties = {
        "keys": rows({name: made[name] for name in made if name != "$defs"}),
        "failed": rows(whole({"key_alias": TEXT, "error": ERROR})),
    }
    return {**whole(properties), "$defs": made["$defs"]}


def results_response() -> Schema:
    """Return the schema of what `block|unblock|delete|revoke -o json` print."""
    row = object_of(
        dict.fromkeys(("given", "key_id", "result", "reason"), TEXT), ["given", "result"]
    )
    return whole({"results": rows(row), "audit": {"type": ["object", "null"]}}, "audit")


def audit_list_response() -> Schema:
    """Return the schema of what `audit list -o json` prints."""
    names = ("actor", "changed_by", "action", "object_type", "object_id", "reason")
    properties: Schema = {
        "seq": {"type": "integer"},
        "at": WORD,
        **dict.fromkeys(names, TEXT),
        # Documents, or the text that is there instead where somebody tampered with them.
        "before": {"type": ["object", "string", "null"]},
        "after": {"type": ["object", "string", "null"]},
    }
    row = {**whole(properties), "additionalProperties": True}
    return list_of("events", row, ["integer", "null"])


SCHEMAS: Final[dict[str, Callable[[], Schema]]] = {
    "generate-request": _model(GenerateRequest),
    "update-request": _model(UpdateRequest),
    "generate-response": generate_response,
    "info-response": info_response,
    "list-response": list_response,
    "many-response": many_response,
    **MANY_OWNERS,
    "results-response": results_response,
    "audit-list-response": audit_list_response,
    "verify-response": verify_response,
    "error-response": error_response,
    "event": event,
    "team-policy": _model(Policy),
    "team": _model(TeamRequest),
    "user": _model(UserRequest),
    "organization": _model(OrganizationRequest),
    "budget": _model(TierRequest),
    "member": _model(MemberRequest),
    "fleet": fleet,
    "configuration": _model(Configuration),
    "update-response": update_response,
    "verdict-response": verdict_response,
    **ANSWERS,
}
