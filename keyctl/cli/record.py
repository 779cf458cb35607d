"""Show one object of the directory: its fields, its members, and where its change is on record."""

from typing import Any

from keyctl.cli import screen
from keyctl.cli.session import Session
from keyctl.cli.tables import cell, show_table


def show_record(session: Session, view: dict[str, Any]) -> None:
    """Print *view*: one JSON document, or a line for each field that says something."""
    if session.wants_json:
        session.console.json(view)
        return
    members = view.pop("members_with_roles", None)
    warnings = view.pop("warnings", [])
    anchor = view.pop("audit", None)
    left = view.pop("keys", ())
    shown = {name: value for name, value in view.items() if value not in (None, [], {})}
    session.console.write("".join(f"{name}: {cell(value)}\n" for name, value in shown.items()))
    if members:
        show_table(session.console, _member_columns(members), members)
    for key in left:
        session.console.write(f"{key['key_id']}: {key['result']}\n")
    for warning in warnings:
        session.console.warn(warning)
    if anchor:
        session.console.note(
            f"audit: {screen.anchor(anchor, whole=not session.console.is_terminal)}"
        )


def _member_columns(members: list[dict[str, Any]]) -> list[str]:
    """Return the columns in which some member has something."""
    names = list(dict.fromkeys(name for member in members for name in member))
    return [
        name
        for name in names
        if name == "user_id" or any(member.get(name) not in (None, 0) for member in members)
    ]
