"""Publish the JSON Schemas of what the commands about teams, users, organizations and tiers answer."""

from collections.abc import Callable
from functools import partial
from typing import Final

from keyctl.records import Member, Organization, Team, Tier, User
from keyctl.shapes import (
    CURSOR,
    ERROR,
    HEAD,
    LEFT,
    LEFT_KEYS,
    MONEY,
    NUMBER,
    TEXT,
    TRUTH,
    WORD,
    WORDS,
    Schema,
    list_of,
    object_of,
    record_properties,
    rows,
    whole,
)

_NOUNS: Final = {
    "team": (Team, {"id": "team_id", "name": "team_alias"}),
    "user": (User, {"id": "user_id", "email": "user_email", "role": "user_role"}),
    "org": (Organization, {"id": "organization_id", "name": "organization_alias"}),
}


def _principal(noun: str) -> Schema:
    kind, renamed = _NOUNS[noun]
    return record_properties(kind, without=("deleted_at", "budget_anchor_at"), renamed=renamed)


def tier_response() -> Schema:
    """Return the schema of what `budget create`, `info` and `update` answer."""
    return whole({**_tier(), "audit": HEAD}, "audit")


def tiers_response() -> Schema:
    """Return the schema of what `budget list` answers."""
    return list_of("budgets", whole(_tier()), CURSOR)


def _tier() -> Schema:
    without = ("deleted_at", "budget_anchor_at")
    return record_properties(Tier, without=without, renamed={"id": "budget_id"})


def _member() -> Schema:
    without = ("team_id", "created_at", "budget_anchor_at")
    return {**record_properties(Member, without=without, renamed={}), "spend": MONEY}


def _changed(noun: str) -> Schema:
    """Return the schema of what `create` and `update` answer."""
    return whole({**_principal(noun), "audit": HEAD, "keys": LEFT_KEYS}, "keys")


def _page(noun: str) -> Schema:
    """Return the schema of what `info` answers: the record, its members or its teams, what is left, its keys by spend."""
    key = {"key_id": WORD, "key_alias": TEXT, "spend": MONEY, "max_budget": MONEY}
    keys = {"count": NUMBER, "spend": MONEY, "dearest": rows(whole(key))}
    properties = {**_principal(noun), "left": MONEY, "budgets": rows(LEFT), "keys": whole(keys)}
    if noun == "team":
        properties["members_with_roles"] = rows(whole(_member()))
    elif noun == "user":
        for word in ("team", "organization"):
            properties[f"{word}s"] = rows(whole({f"{word}_id": WORD, "role": WORD}))
    elif noun == "org":
        properties["members_with_roles"] = rows(whole({"user_id": WORD, "role": WORD}))
    return whole(properties)


def _listed(noun: str) -> Schema:
    return list_of(f"{noun}s", whole(_principal(noun)), CURSOR)


def member_response() -> Schema:
    """Return the schema of what the commands about members answer."""
    owner = {"team_id": WORD, "organization_id": WORD}
    more = {"warnings": WORDS, "keys": LEFT_KEYS}
    return object_of({**owner, **_member(), "audit": HEAD, **more}, ["user_id", "audit"])


def deleted_response() -> Schema:
    """Return the schema of what `team|user|org|budget delete` answer, and what their dry runs do."""
    ids = dict.fromkeys(("team_id", "user_id", "organization_id", "budget_id"), WORD)
    told = {"deleted": {"const": True}, "would": {"const": "delete"}}
    return object_of({**ids, **told, "audit": HEAD, "keys": LEFT_KEYS}, [])


def owners_response(noun: str) -> Schema:
    """Return the schema of what `team|user|org create --from -o json` print."""
    _, renamed = _NOUNS[noun]
    failed = {"place": WORD, renamed["id"]: WORD, "error": ERROR}
    return whole({f"{noun}s": rows(_changed(noun)), "failed": rows(whole(failed))})


def owner_verdicts_response() -> Schema:
    """Return the schema of what `team|user|org create --dry-run -o json` print."""
    ids = dict.fromkeys((renamed["id"] for _, renamed in _NOUNS.values()), WORD)
    row = {"place": WORD, **ids, "allowed": TRUTH, "reasons": WORDS}
    return whole({"allowed": TRUTH, "rows": rows(whole(row, *ids))})


OWNERS: Final[dict[str, Callable[[], Schema]]] = {
    **{f"{noun}-response": partial(_changed, noun) for noun in _NOUNS},
    **{f"{noun}-info-response": partial(_page, noun) for noun in _NOUNS},
    **{f"{noun}-list-response": partial(_listed, noun) for noun in _NOUNS},
    "member-response": member_response,
    "deleted-response": deleted_response,
}
# What is answered of several of them.
MANY_OWNERS: Final[dict[str, Callable[[], Schema]]] = {
    **{f"{noun}s-response": partial(owners_response, noun) for noun in _NOUNS},
    "owner-verdicts-response": owner_verdicts_response,
}
