"""Show a team, a user or an organization as a page: limits, members, what is left, keys by spend."""

from datetime import datetime
from typing import Any, Final

from keyctl.cli import screen
from keyctl.cli.pages import Fact, left, show_facts, show_heading
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, cell, pipe_only, show_table

_MEMBERS: Final = (
    Column("user_id", "user", "id", rank=0),
    Column("role", rank=1),
    pipe_only("max_budget", "money"),
    Column("spend", "spent", "spent", rank=2),
)
_MEMBERSHIPS: Final = {
    word: (Column(f"{word}_id", word, "id", rank=0), Column("role", rank=1))
    for word in ("team", "organization")
}
_WORDS: Final = {"team_id": "team", "user_id": "user", "organization_id": "organization"}
_KEYS: Final = (
    Column("key_id", "key", "id", rank=0),
    Column("key_alias", "alias", rank=1),
    pipe_only("max_budget", "money"),
    Column("spend", "spent", "spent", rank=2),
)


def show_owner(session: Session, view: dict[str, Any]) -> None:
    """Write the page of *view*, as `info` gives it."""
    console = session.console
    now = session.database.time() if console.is_terminal else None
    keys, members = view["keys"], view.get("members_with_roles")
    shown = {
        name: value
        for name, value in view.items()
        if name not in ("keys", "members_with_roles", "budgets", "teams", "organizations")
        and value not in (None, [], {})
    }
    facts = [_fact(name, value, view, now) for name, value in shown.items()]
    windows = view.get("budgets", ())
    facts += [Fact("left", left(item), "" if item["left"] else "red") for item in windows]
    show_facts(console, facts)
    if members:
        show_heading(console, f"{len(members)} {'member' if len(members) == 1 else 'members'}")
        columns = _MEMBERS if any("spend" in member for member in members) else _MEMBERS[:2]
        show_table(console, columns, members, now=now)
    for word, columns in _MEMBERSHIPS.items():
        if belongs := view.get(f"{word}s"):
            show_heading(console, f"member of {screen.count(len(belongs), word)}")
            show_table(console, columns, belongs, now=now)
    if keys["count"]:
        exist, them = ("exists", "it") if keys["count"] == 1 else ("exist", "them")
        many, spent = screen.count(keys["count"], "key"), screen.money(keys["spend"])
        show_heading(console, f"{many} that {exist}, {spent} spent with {them}")
        show_table(console, _KEYS, keys["dearest"], now=now)
        if keys["count"] > len(keys["dearest"]):
            console.note("the keys that spent most are shown; keyctl list --sort -spend shows all")


def _fact(name: str, value: Any, view: dict[str, Any], now: datetime | None) -> Fact:
    """Return one field, on a terminal as a person reads it."""
    if now is None:
        return Fact(name, cell(value))
    if name == "spend":
        text, colour = screen.budget(value, view["max_budget"])
        # Deleted keys have spent a part of it, which the sum of the keys below leaves out.
        return Fact(name, f"{text}, charged to the {_WORDS[next(iter(view))]}", colour)
    if name in ("max_budget", "left"):
        return Fact(name, screen.money(value), "" if value else "red")
    if isinstance(value, datetime):
        return Fact(name, f"{screen.when(value, now)} ({value:%Y-%m-%d %H:%M} UTC)")
    if name == "blocked":
        return Fact(name, cell(value), "red" if value else "")
    return Fact(name, cell(value))
