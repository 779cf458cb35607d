"""Publish the JSON Schemas of what commands answer that neither make keys nor keep owners."""

from collections.abc import Callable
from typing import Final

from keyctl import lifecycle
from keyctl.owner_answers import OWNERS, tier_response, tiers_response
from keyctl.shapes import (
    CHANGES,
    CURSOR,
    DIALECT,
    ERROR,
    HEAD,
    HEAD_OR_NONE,
    INSTANT,
    MONEY,
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
    whole,
)


def status_response() -> Schema:
    """Return the schema of what `status` answers."""
    ending = {"key_id": WORD, "key_alias": TEXT, "expires": INSTANT}
    names = dict.fromkeys(("object_type", "object_id", "budget"), WORD)
    spent = {**names, "spend": MONEY, "max_budget": MONEY}
    waiting = {"hook": WORD, "waiting": NUMBER, "failed": NUMBER}
    budgets = {"reset_due": NUMBER, "nearly_spent": rows(whole(spent))}
    return whole(
        {
            "database": whole({"url": WORD, "revision": WORD, "state": WORD}),
            "caller": WORD,
            "keys": whole(dict.fromkeys(lifecycle.KEY_STATES, NUMBER)),
            "unfinished": NUMBER,
            "rotation": whole({"due": NUMBER, "failed_within_1d": NUMBER}),
            "ending_within_7d": rows(whole(ending)),
            "budgets": whole(budgets),
            "outbox": rows(whole(waiting)),
            "audit": HEAD,
        }
    )


def _rotation() -> Schema:
    old = whole({"id": WORD, "not_after": INSTANT, "state": {"enum": ["retiring", "revoked"]}})
    return {
        "key": {"type": "string", "pattern": "^sk-"},
        "key_id": key_properties()["key_id"],
        "key_alias": TEXT,
        "secret_id": WORD,
        "administers": TRUTH,
        "old_secret": {"anyOf": [old, {"type": "null"}]},
        "rotation_count": NUMBER,
        "key_rotation_at": INSTANT,
        "audit": HEAD,
    }


def rotate_response() -> Schema:
    """Return the schema of what `rotate KEY` answers; `key` is absent where a file or sink took it."""
    return whole(_rotation(), "key")


def rotations_response() -> Schema:
    """Return the schema of what `rotate` answers of several keys, and `rotate --due`."""
    row = _rotation()
    del row["key"]
    row["audit"] = HEAD_OR_NONE
    results = {"enum": ["rotated", "skipped", "failed", "due"]}
    own = object_of(
        {**row, "result": results, "reason": TEXT}, ["key_id", "key_alias", "result", "reason"]
    )
    return whole({"results": rows(own), "audit": HEAD_OR_NONE}, "audit")


def would_response() -> Schema:
    """Return the schema of what dry runs of rotate, block, unblock and delete answer."""
    verbs = ["rotate", "block", "unblock", "delete"]
    failed = rows(whole({"given": WORD, "key_id": TEXT, "reason": WORD}))
    return whole({"would": {"enum": verbs}, "keys": WORDS, "failed": failed}, "failed")


def verdicts_response() -> Schema:
    """Return the schema of what a dry run answers of many keys: `generate --from`, `update`."""
    row = {
        "place": WORD,
        "given": WORD,
        "key_alias": TEXT,
        "allowed": TRUTH,
        "violations": VIOLATIONS,
        "reason": TEXT,
    }
    found = rows(whole(row, "place", "given", "key_alias"))
    return whole({"allowed": TRUTH, "keys": found})


def spend_response() -> Schema:
    """Return the schema of what `spend` answers."""
    ids = dict.fromkeys(("key_id", "team_id", "user_id", "organization_id"), WORD)
    money = {"previous_spend": MONEY, "spend": MONEY, "max_budget": MONEY}
    return whole({**ids, **money, "budget_reset_at": INSTANT, "audit": HEAD}, *ids)


def budget_reset_response() -> Schema:
    """Return the schema of what `budget reset` answers; a dry run says how many are `due`."""
    row = {
        "object_type": WORD,
        "object_id": WORD,
        "budget": WORD,
        "previous_spend": MONEY,
        "spend": MONEY,
        "budget_reset_at": INSTANT,
        "audit": HEAD_OR_NONE,
    }
    properties = {"results": rows(whole(row)), "audit": HEAD_OR_NONE, "due": NUMBER}
    return object_of(properties, [])


def _plan() -> Schema:
    actions = ("create", "update", "delete", "adopt")
    change = {
        "action": {"enum": list(actions)},
        "object_type": WORD,
        "object_id": WORD,
        "key_id": TEXT,
        "fields": CHANGES,
        "violations": VIOLATIONS,
        "file": TEXT,
        "line": {"type": ["integer", "null"]},
    }
    return {
        "changes": rows(whole(change)),
        "summary": whole(dict.fromkeys((*actions, "unchanged"), NUMBER)),
        "head": HEAD,
        "warnings": WORDS,
        "prune": TRUTH,
        "only": WORDS,
        "left_keys": {"enum": ["block", "delete", "keep", None]},
    }


def plan_response() -> Schema:
    """Return the schema of what `plan` answers, and `apply --plan` takes."""
    return whole({**_plan(), "files": rows(whole({"name": WORD, "text": WORD}))})


def apply_response() -> Schema:
    """Return the schema of what `apply` answers; its keys are answers of generate without key strings."""
    made = {"type": "object", "properties": key_properties(), "required": ["key_id"]}
    failed = whole({"key_alias": TEXT, "error": ERROR})
    return whole({**_plan(), "keys": rows(made), "failed": rows(failed)})


def import_response() -> Schema:
    """Return the schema of what `import litellm` answers."""
    line = {
        **dict.fromkeys(("object_type", "source", "result"), WORD),
        **dict.fromkeys(("key_id", "key_alias", "reason"), TEXT),
        "violations": VIOLATIONS,
        "changes": WORDS,
        "lost": WORDS,
        "audit": HEAD_OR_NONE,
    }
    count = {"type": "object", "properties": {"object": WORD}, "additionalProperties": NUMBER}
    properties = {
        "dry_run": TRUTH,
        "counts": rows(count),
        "columns": rows(whole({"column": WORD, "rows": NUMBER})),
        "rows": rows(whole(line)),
        "audit": HEAD_OR_NONE,
    }
    return whole(properties)


def events_list_response() -> Schema:
    """Return the schema of what `events list` answers."""
    row = {
        **dict.fromkeys(("event_id", "hook", "event"), WORD),
        "seq": NUMBER,
        "created_at": INSTANT,
        "attempts": NUMBER,
        "next_at": INSTANT,
        "last_error": TEXT,
        "delivered_at": INSTANT,
    }
    return list_of("events", whole(row), CURSOR)


def events_sent_response() -> Schema:
    """Return the schema of what `events deliver` and `events retry` answer."""
    words = dict.fromkeys(("event_id", "hook", "event", "result"), WORD)
    return whole({"results": rows(whole({**words, "reason": TEXT, "next_at": INSTANT}))})


def remind_response() -> Schema:
    """Return the schema of what `remind` answers; each event has what it is about beside."""
    row = {
        **dict.fromkeys(("event", "object_type", "object_id"), WORD),
        "key_alias": TEXT,
    }
    own = {**whole(row), "additionalProperties": True}
    return list_of("reminders", own, CURSOR)


def db_check_response() -> Schema:
    """Return the schema of what `db check` answers, with --repair too."""
    row = {
        **dict.fromkeys(("key_id", "problem", "command", "result"), WORD),
        "key_alias": TEXT,
        "until": INSTANT,
    }
    routed = {"key_id": WORD, "key_alias": TEXT, "command": WORD}
    spoiled = {"object_type": WORD, "object_id": WORD, "columns": WORDS}
    properties = {
        "revision": WORD,
        "left": rows(whole(row, "result", "command")),
        "next": {"type": CURSOR},
        "administers_lost": _LOST,
        "earlier_routes": rows(whole(routed)),
        "unreadable": rows(whole(spoiled)),
    }
    return whole(properties, "earlier_routes", "unreadable")


_LOST: Final = rows(whole({"key_id": WORD, "key_alias": TEXT, "secret_id": WORD, "command": WORD}))


def _stands(**properties: Schema) -> Callable[[], Schema]:
    return lambda: whole(properties)


def _copy() -> Schema:
    counts = {"type": "object", "additionalProperties": NUMBER}
    places = {"source": WORD, "target": WORD, "state": {"enum": ["moved", "open"]}}
    told = {**places, "copied": TRUTH, "rows": counts, "audit": HEAD}
    return whole(told, "target", "copied", "rows")


def _config() -> Schema:
    return whole({"file": TEXT, "database": WORD, "settings": {"type": "object"}})


def _routes() -> Schema:
    return whole({"groups": {"type": "object", "additionalProperties": WORDS}})


def _metrics() -> Schema:
    labels = {"type": "object", "additionalProperties": WORD}
    sample = {"name": WORD, "labels": labels, "value": {"type": "number"}}
    return whole({"metrics": rows(whole(sample))})


def _table(plural: str, **columns: Schema) -> Callable[[], Schema]:
    row = whole(columns)
    return lambda: list_of(plural, row, CURSOR)


ANSWERS: Final[dict[str, Callable[[], Schema]]] = {
    **OWNERS,
    "status-response": status_response,
    "rotate-response": rotate_response,
    "rotations-response": rotations_response,
    "would-response": would_response,
    "verdicts-response": verdicts_response,
    "spend-response": spend_response,
    "budget-response": tier_response,
    "budget-list-response": tiers_response,
    "budget-reset-response": budget_reset_response,
    "plan-response": plan_response,
    "apply-response": apply_response,
    "import-response": import_response,
    "audit-head-response": lambda: HEAD,
    "audit-verify-response": lambda: whole({"valid": {"const": True}, **HEAD["properties"]}),
    "audit-accept-response": _stands(accepted=NUMBER, audit=HEAD_OR_NONE),
    "events-list-response": events_list_response,
    "events-sent-response": events_sent_response,
    "events-discard-response": _stands(event_id=WORD, discarded=WORDS, audit=HEAD_OR_NONE),
    "remind-response": remind_response,
    "db-check-response": db_check_response,
    "db-upgrade-response": _stands(database=WORD, before=TEXT, after=WORD, administers_lost=_LOST),
    "db-status-response": _stands(database=WORD, revision=TEXT, wanted=WORD, state=WORD),
    "db-prune-response": _stands(before=INSTANT, secrets=NUMBER, keys=NUMBER, events=NUMBER),
    "db-backup-response": _stands(file=WORD, bytes=NUMBER, revision=WORD, audit=HEAD),
    "db-copy-response": _copy,
    "config-response": _config,
    "config-path-response": _stands(path=WORD, exists=TRUTH),
    "metrics-response": _metrics,
    "rules-response": _table(
        "rules",
        rule=WORD,
        binds=WORD,
        overridable=TRUTH,
        closes=TRUTH,
        demands=WORD,
        guards=TEXT,
    ),
    "fields-response": lambda: {
        "$schema": DIALECT,
        **rows(
            whole({"field": WORD, "of": WORDS, "enforced_by": WORD, "order": WORD, "note": TEXT})
        ),
    },
    "authority-response": _table(
        "authority",
        **dict.fromkeys(("operation", "role", "whose", "allowed", "litellm"), WORD),
        rules=WORDS,
        route=TEXT,
        reason=TEXT,
    ),
    "routes-response": _routes,
    "version-response": _stands(version=WORD, schema=WORD, python=WORD),
}
