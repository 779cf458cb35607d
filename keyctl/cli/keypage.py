"""Show one key as a page: whose, what it may do in effect, its secrets, what happened last."""

from datetime import datetime
from typing import Any, Final

from keyctl.cli import screen
from keyctl.cli.differences import told
from keyctl.cli.pages import Fact, left, owner, show_facts, show_heading
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, cell, show_table

_SECRETS: Final = (
    Column("id", "secret", "id", rank=0),
    Column("state", kind="state", rank=1),
    Column("created_at", "since", "instant", rank=2),
    Column("not_after", "until", "instant", rank=1),
    Column("administers", "administers", "flag", rank=4),
    Column("issued_by", "issued by", rank=3),
)
_EVENTS: Final = (
    Column("at", "when", "instant", rank=1),
    Column("actor", "who", rank=3),
    Column("action", rank=0),
    Column("changes", rank=2),
)
_LIMITS: Final = (
    ("rpm_limit", "requests/min"),
    ("tpm_limit", "tokens/min"),
    ("max_parallel_requests", "at the same time"),
)
# Told by the page in its own words, or names of the same thing.
_TOLD: Final = frozenset(
    [
        "key_id",
        "token",
        "token_id",
        "key_alias",
        "state",
        "team_id",
        "user_id",
        "organization_id",
        "models",
        "default_routes",
        "allowed_routes",
        "max_budget",
        "spend",
        "budget_duration",
        "budget_reset_at",
        "expires",
        "duration",
        "rpm_limit",
        "tpm_limit",
        "max_parallel_requests",
        "auto_rotate",
        "rotation_interval",
        "key_rotation_at",
        "last_used_at",
        "created_at",
        "created_by",
        "updated_at",
        "updated_by",
        "secrets",
        "effective",
        "key_name",
    ]
)


_WORDS: Final = {"model_routes": "those of models"}


def show_key(session: Session, view: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """Write the page of *view*, as `info` gives it, with its last *events*."""
    console = session.console
    now = session.database.time() if console.is_terminal else None
    show_facts(console, _for_eyes(view, now) if now is not None else _whole(view))
    show_heading(console, "secrets")
    show_table(console, _SECRETS, view["secrets"], now=now)
    if events:
        show_heading(console, "last events")
        rows = [{**event, "changes": told(event["before"], event["after"])} for event in events]
        show_table(console, _EVENTS, rows, now=now)


def _whole(view: dict[str, Any]) -> list[Fact]:
    """Return every field that has a value, under its name, and what holds in effect."""
    found = [
        Fact(name, cell(value))
        for name, value in view.items()
        if name not in ("secrets", "effective") and value not in (None, [], {}, False)
    ]
    effect = view["effective"]
    found.append(Fact("works", "yes" if effect["works"] else f"no: {effect['reason']}"))
    if "remedy" in effect:
        found.append(Fact("remedy", effect["remedy"]))
    found += [Fact("left", left(item)) for item in effect["budgets"]]
    return found


def _for_eyes(view: dict[str, Any], now: datetime) -> list[Fact]:
    effect = view["effective"]
    state = view["state"]
    works = "" if effect["works"] or state != "active" else f", refused: {effect['reason']}"
    found = [
        Fact("key", view["key_id"], "cyan"),
        Fact("alias", view["key_alias"] or ""),
        Fact("state", f"{state}{works}", "red" if works else screen.STATES.get(state, "")),
        Fact("remedy", effect.get("remedy", "")),
        *(
            Fact(label, view[name] or "")
            for label, name in (
                ("team", "team_id"),
                ("owner", "user_id"),
                ("organization", "organization_id"),
            )
        ),
        *_models(effect["models"]),
        Fact("routes", _routes(view)),
        Fact("spent", *screen.budget(view["spend"], view["max_budget"])),
        *(
            Fact("left" if index == 0 else "", left(item), "" if item["left"] else "red")
            for index, item in enumerate(effect["budgets"])
        ),
        *(
            Fact(label, f"{item['limit']} ({owner(item)})")
            for name, label in _LIMITS
            if (item := effect.get(name))
        ),
        Fact("expires", _moment(view["expires"], now) if view["expires"] else "never"),
        Fact("last used", _moment(view["last_used_at"], now) if view["last_used_at"] else "never"),
        Fact("made", f"{_moment(view['created_at'], now)} by {view['created_by']}"),
    ]
    if view["auto_rotate"] and view["key_rotation_at"]:
        text = f"every {view['rotation_interval']}, next {_moment(view['key_rotation_at'], now)}"
        found.append(Fact("rotates", text))
    found += [
        Fact(name, cell(value))
        for name, value in view.items()
        if name not in _TOLD and value not in (None, [], {}, False, 0, "default")
    ]
    return [fact for fact in found if fact.text]


def _models(lists: list[dict[str, Any]]) -> list[Fact]:
    if not lists:
        return [Fact("models", "all")]
    return [
        Fact("models" if index == 0 else "", f"{', '.join(item['models'])} ({owner(item)})")
        for index, item in enumerate(lists)
    ]


def _routes(view: dict[str, Any]) -> str:
    """Return which paths of a gateway the key reaches, and whether it says so itself."""
    if view.get("allowed_routes"):
        return ", ".join(view["allowed_routes"])
    routes = view.get("default_routes") or []
    return f"{', '.join(map(_WORDS.get, routes, routes))} (by default)" if routes else ""


def _moment(moment: datetime, now: datetime) -> str:
    return f"{screen.when(moment, now)} ({moment:%Y-%m-%d %H:%M} UTC)"
