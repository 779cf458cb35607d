"""Publish the JSON Schemas of what commands other than generate, list, info and verify answer."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from keyctl import lifecycle
from keyctl.records import Member, Organization, Team, Tier, User
from keyctl.shapes import (
    CHANGES,
    DIALECT,
    ERROR,
    HEAD,
    INSTANT,
    MONEY,
    TEXT,
    VIOLATION,
    key_properties,
    list_of,
    object_of,
    record_properties,
)

Schema = dict[str, Any]

_WORD: Final = {"type": "string"}
_NUMBER: Final = {"type": "integer", "minimum": 0}
_TRUTH: Final = {"type": "boolean"}
_HEAD_OR_NONE: Final = {"anyOf": [HEAD, {"type": "null"}]}
_VIOLATIONS: Final = {"type": "array", "items": VIOLATION}
_WORDS: Final = {"type": "array", "items": _WORD}
_CURSOR: Final = ["string", "null"]
_NOUNS: Final = {
    "team": (Team, {"id": "team_id", "name": "team_alias"}),
    "user": (User, {"id": "user_id", "email": "user_email", "role": "user_role"}),
    "org": (Organization, {"id": "organization_id", "name": "organization_alias"}),
}
# What becomes of the keys of somebody who leaves.
_LEFT_KEYS: Final = {
    "type": "array",
    "items": object_of(
        {"key_id": _WORD, "key_alias": TEXT, "result": _WORD}, ["key_id", "key_alias", "result"]
    ),
}


def _rows(row: Schema) -> Schema:
    return {"type": "array", "items": row}


def _whole(properties: Schema, *optional: str) -> Schema:
    """Return an object that has all of *properties*, but for those that are *optional*."""
    return object_of(properties, [name for name in properties if name not in optional])


def _principal(noun: str) -> Schema:
    kind, renamed = _NOUNS[noun]
    return record_properties(kind, without=("deleted_at", "budget_anchor_at"), renamed=renamed)


def _tier() -> Schema:
    without = ("deleted_at", "budget_anchor_at")
    return record_properties(Tier, without=without, renamed={"id": "budget_id"})


def _member() -> Schema:
    without = ("team_id", "created_at", "budget_anchor_at")
    return {**record_properties(Member, without=without, renamed={}), "spend": MONEY}


def _changed(noun: str) -> Schema:
    """Return the schema of what `create` and `update` answer."""
    return _whole({**_principal(noun), "audit": HEAD, "keys": _LEFT_KEYS}, "keys")


def _page(noun: str) -> Schema:
    """Return the schema of what `info` answers: the record, its members, what is left, its keys by spend."""
    key = {"key_id": _WORD, "key_alias": TEXT, "spend": MONEY, "max_budget": MONEY}
    keys = {"count": _NUMBER, "spend": MONEY, "dearest": _rows(_whole(key))}
    properties = {**_principal(noun), "left": MONEY, "keys": _whole(keys)}
    if noun == "team":
        properties["members_with_roles"] = _rows(_whole(_member()))
    elif noun == "org":
        properties["members_with_roles"] = _rows(_whole({"user_id": _WORD, "role": _WORD}))
    return _whole(properties)


def _listed(noun: str) -> Schema:
    return list_of(f"{noun}s", _whole(_principal(noun)), _CURSOR)


def member_response() -> Schema:
    """Return the schema of what the commands about members answer."""
    owner = {"team_id": _WORD, "organization_id": _WORD}
    more = {"warnings": _WORDS, "keys": _LEFT_KEYS}
    return object_of({**owner, **_member(), "audit": HEAD, **more}, ["user_id", "audit"])


def deleted_response() -> Schema:
    """Return the schema of what `team|user|org|budget delete` answer, and what their dry runs do."""
    ids = dict.fromkeys(("team_id", "user_id", "organization_id", "budget_id"), _WORD)
    told = {"deleted": {"const": True}, "would": {"const": "delete"}}
    return object_of({**ids, **told, "audit": HEAD, "keys": _LEFT_KEYS}, [])


def status_response() -> Schema:
    """Return the schema of what `status` answers."""
    ending = {"key_id": _WORD, "key_alias": TEXT, "expires": INSTANT}
    spent = {"object_type": _WORD, "object_id": _WORD, "spend": MONEY, "max_budget": MONEY}
    waiting = {"hook": _WORD, "waiting": _NUMBER, "failed": _NUMBER}
    budgets = {"reset_due": _NUMBER, "nearly_spent": _rows(_whole(spent))}
    return _whole(
        {
            "database": _whole({"url": _WORD, "revision": _WORD}),
            "caller": _WORD,
            "keys": _whole(dict.fromkeys(lifecycle.KEY_STATES, _NUMBER)),
            "unfinished": _NUMBER,
            "rotation": _whole({"due": _NUMBER, "failed_within_1d": _NUMBER}),
            "ending_within_7d": _rows(_whole(ending)),
            "budgets": _whole(budgets),
            "outbox": _rows(_whole(waiting)),
            "audit": HEAD,
        }
    )


def _rotation() -> Schema:
    old = _whole({"id": _WORD, "not_after": INSTANT, "state": {"enum": ["retiring", "revoked"]}})
    return {
        "key": {"type": "string", "pattern": "^sk-"},
        "key_id": key_properties()["key_id"],
        "key_alias": TEXT,
        "secret_id": _WORD,
        "administers": _TRUTH,
        "old_secret": {"anyOf": [old, {"type": "null"}]},
        "rotation_count": _NUMBER,
        "key_rotation_at": INSTANT,
        "audit": HEAD,
    }


def rotate_response() -> Schema:
    """Return the schema of what `rotate KEY` answers; `key` is absent where a file or sink took it."""
    return _whole(_rotation(), "key")


def rotations_response() -> Schema:
    """Return the schema of what `rotate` answers of several keys, and `rotate --due`."""
    row = _rotation()
    del row["key"]
    row["audit"] = _HEAD_OR_NONE
    results = {"enum": ["rotated", "skipped", "failed", "due"]}
    own = object_of(
        {**row, "result": results, "reason": TEXT}, ["key_id", "key_alias", "result", "reason"]
    )
    return _whole({"results": _rows(own), "audit": _HEAD_OR_NONE}, "audit")


def would_response() -> Schema:
    """Return the schema of what dry runs of rotate, block, unblock and delete answer."""
    return _whole({"would": {"enum": ["rotate", "block", "unblock", "delete"]}, "keys": _WORDS})


def verdicts_response() -> Schema:
    """Return the schema of what a dry run answers of many keys: `generate --from`, `update`."""
    row = {
        "place": _WORD,
        "given": _WORD,
        "key_alias": TEXT,
        "allowed": _TRUTH,
        "violations": _VIOLATIONS,
        "reason": TEXT,
    }
    rows = _rows(_whole(row, "place", "given", "key_alias"))
    return _whole({"allowed": _TRUTH, "keys": rows})


def spend_response() -> Schema:
    """Return the schema of what `spend` answers."""
    ids = dict.fromkeys(("key_id", "team_id", "user_id", "organization_id"), _WORD)
    money = {"previous_spend": MONEY, "spend": MONEY, "max_budget": MONEY}
    return _whole({**ids, **money, "budget_reset_at": INSTANT, "audit": HEAD}, *ids)


def budget_reset_response() -> Schema:
    """Return the schema of what `budget reset` answers; a dry run says how many are `due`."""
    row = {
        "object_type": _WORD,
        "object_id": _WORD,
        "previous_spend": MONEY,
        "spend": MONEY,
        "budget_reset_at": INSTANT,
        "audit": _HEAD_OR_NONE,
    }
    properties = {"results": _rows(_whole(row)), "audit": _HEAD_OR_NONE, "due": _NUMBER}
    return object_of(properties, [])


def _plan() -> Schema:
    actions = ("create", "update", "delete", "adopt")
    change = {
        "action": {"enum": list(actions)},
        "object_type": _WORD,
        "object_id": _WORD,
        "key_id": TEXT,
        "fields": CHANGES,
        "violations": _VIOLATIONS,
        "file": TEXT,
        "line": {"type": ["integer", "null"]},
    }
    return {
        "changes": _rows(_whole(change)),
        "summary": _whole(dict.fromkeys((*actions, "unchanged"), _NUMBER)),
        "head": HEAD,
        "warnings": _WORDS,
        "prune": _TRUTH,
        "only": _WORDS,
    }


def plan_response() -> Schema:
    """Return the schema of what `plan` answers, and `apply --plan` takes."""
    return _whole({**_plan(), "files": _rows(_whole({"name": _WORD, "text": _WORD}))})


def apply_response() -> Schema:
    """Return the schema of what `apply` answers; its keys are answers of generate without key strings."""
    made = {"type": "object", "properties": key_properties(), "required": ["key_id"]}
    failed = _whole({"key_alias": TEXT, "error": ERROR})
    return _whole({**_plan(), "keys": _rows(made), "failed": _rows(failed)})


def import_response() -> Schema:
    """Return the schema of what `import litellm` answers."""
    line = {
        **dict.fromkeys(("object_type", "source", "result"), _WORD),
        **dict.fromkeys(("key_id", "key_alias", "reason"), TEXT),
        "violations": _VIOLATIONS,
        "changes": _WORDS,
        "lost": _WORDS,
        "audit": _HEAD_OR_NONE,
    }
    count = {"type": "object", "properties": {"object": _WORD}, "additionalProperties": _NUMBER}
    properties = {
        "dry_run": _TRUTH,
        "counts": _rows(count),
        "columns": _rows(_whole({"column": _WORD, "rows": _NUMBER})),
        "rows": _rows(_whole(line)),
        "audit": _HEAD_OR_NONE,
    }
    return _whole(properties)


def events_list_response() -> Schema:
    """Return the schema of what `events list` answers."""
    row = {
        **dict.fromkeys(("event_id", "hook", "event"), _WORD),
        "seq": _NUMBER,
        "created_at": INSTANT,
        "attempts": _NUMBER,
        "next_at": INSTANT,
        "last_error": TEXT,
        "delivered_at": INSTANT,
    }
    return list_of("events", _whole(row), _CURSOR)


def events_sent_response() -> Schema:
    """Return the schema of what `events deliver` and `events retry` answer."""
    words = dict.fromkeys(("event_id", "hook", "event", "result"), _WORD)
    return _whole({"results": _rows(_whole({**words, "reason": TEXT, "next_at": INSTANT}))})


def remind_response() -> Schema:
    """Return the schema of what `remind` answers; each event has what it is about beside."""
    row = {
        **dict.fromkeys(("event", "object_type", "object_id"), _WORD),
        "key_alias": TEXT,
    }
    own = {**_whole(row), "additionalProperties": True}
    return list_of("reminders", own, _CURSOR)


def db_check_response() -> Schema:
    """Return the schema of what `db check` answers, with --repair too."""
    row = {
        **dict.fromkeys(("key_id", "problem", "command", "result"), _WORD),
        "key_alias": TEXT,
        "until": INSTANT,
    }
    routed = {"key_id": _WORD, "key_alias": TEXT, "command": _WORD}
    spoiled = {"object_type": _WORD, "object_id": _WORD, "columns": _WORDS}
    properties = {
        "revision": _WORD,
        "left": _rows(_whole(row, "result", "command")),
        "next": {"type": _CURSOR},
        "administers_lost": _LOST,
        "earlier_routes": _rows(_whole(routed)),
        "unreadable": _rows(_whole(spoiled)),
    }
    return _whole(properties, "earlier_routes", "unreadable")


_LOST: Final = _rows(
    _whole({"key_id": _WORD, "key_alias": TEXT, "secret_id": _WORD, "command": _WORD})
)


def _stands(**properties: Schema) -> Callable[[], Schema]:
    return lambda: _whole(properties)


def _copy() -> Schema:
    counts = {"type": "object", "additionalProperties": _NUMBER}
    places = {"source": _WORD, "target": _WORD, "state": {"enum": ["moved", "open"]}}
    return _whole({**places, "rows": counts, "audit": HEAD}, "target", "rows")


def _config() -> Schema:
    return _whole({"file": TEXT, "database": _WORD, "settings": {"type": "object"}})


def _routes() -> Schema:
    return _whole({"groups": {"type": "object", "additionalProperties": _WORDS}})


def _metrics() -> Schema:
    labels = {"type": "object", "additionalProperties": _WORD}
    sample = {"name": _WORD, "labels": labels, "value": {"type": "number"}}
    return _whole({"metrics": _rows(_whole(sample))})


def _table(plural: str, **columns: Schema) -> Callable[[], Schema]:
    row = _whole(columns)
    return lambda: list_of(plural, row, _CURSOR)


ANSWERS: Final[dict[str, Callable[[], Schema]]] = {
    **{f"{noun}-response": partial(_changed, noun) for noun in _NOUNS},
    **{f"{noun}-info-response": partial(_page, noun) for noun in _NOUNS},
    **{f"{noun}-list-response": partial(_listed, noun) for noun in _NOUNS},
    "member-response": member_response,
    "deleted-response": deleted_response,
    "status-response": status_response,
    "rotate-response": rotate_response,
    "rotations-response": rotations_response,
    "would-response": would_response,
    "verdicts-response": verdicts_response,
    "spend-response": spend_response,
    "budget-response": lambda: _whole({**_tier(), "audit": HEAD}, "audit"),
    "budget-list-response": lambda: list_of("budgets", _whole(_tier()), _CURSOR),
    "budget-reset-response": budget_reset_response,
    "plan-response": plan_response,
    "apply-response": apply_response,
    "import-response": import_response,
    "audit-head-response": lambda: HEAD,
    "audit-verify-response": lambda: _whole({"valid": {"const": True}, **HEAD["properties"]}),
    "audit-accept-response": _stands(accepted=_NUMBER, audit=_HEAD_OR_NONE),
    "events-list-response": events_list_response,
    "events-sent-response": events_sent_response,
    "events-discard-response": _stands(event_id=_WORD, discarded=_WORDS, audit=_HEAD_OR_NONE),
    "remind-response": remind_response,
    "db-check-response": db_check_response,
    "db-upgrade-response": _stands(
        database=_WORD, before=TEXT, after=_WORD, administers_lost=_LOST
    ),
    "db-status-response": _stands(database=_WORD, revision=TEXT, wanted=_WORD, state=_WORD),
    "db-prune-response": _stands(before=INSTANT, secrets=_NUMBER, keys=_NUMBER, events=_NUMBER),
    "db-backup-response": _stands(file=_WORD, bytes=_NUMBER, revision=_WORD, audit=HEAD),
    "db-copy-response": _copy,
    "config-response": _config,
    "config-path-response": _stands(path=_WORD, exists=_TRUTH),
    "metrics-response": _metrics,
    "rules-response": _table(
        "rules",
        rule=_WORD,
        binds=_WORD,
        overridable=_TRUTH,
        closes=_TRUTH,
        demands=_WORD,
        guards=TEXT,
    ),
    "fields-response": lambda: {
        "$schema": DIALECT,
        **_rows(
            _whole(
                {"field": _WORD, "of": _WORDS, "enforced_by": _WORD, "order": _WORD, "note": TEXT}
            )
        ),
    },
    "authority-response": _table(
        "authority",
        **dict.fromkeys(("operation", "role", "whose", "allowed", "litellm"), _WORD),
        rules=_WORDS,
        route=TEXT,
        reason=TEXT,
    ),
    "routes-response": _routes,
    "version-response": _stands(version=_WORD, schema=_WORD, python=_WORD),
}
