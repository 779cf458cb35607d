"""Show a person the panel with the one-time key, and the verdict of a dry run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from keyctl.cli import screen
from keyctl.cli.console import Console, one_line, told
from keyctl.cli.tables import cell
from keyctl.errors import ExitCode, Violation
from keyctl.keystring import KeyString

if TYPE_CHECKING:
    from keyctl.cli.session import Session
    from keyctl.services.authorize.verdict import Judgement

_REFUSED_SHOWN: Final = 10
_FACTS: Final = (
    ("key id", "key_id"),
    ("alias", "key_alias"),
    ("team", "team_id"),
    ("owner", "user_id"),
    ("organization", "organization_id"),
    ("models", "models"),
    ("budget", "max_budget"),
    ("budget period", "budget_duration"),
    ("requests/min", "rpm_limit"),
    ("tokens/min", "tpm_limit"),
    ("expires", "expires"),
    ("rotates every", "rotation_interval"),
)
_WIDEST: Final = 100


def key_panel(
    answer: dict[str, Any], key: KeyString | None, console: Console, *, place: str | None = None
) -> str:
    """Return the panel for a key that was made or rotated; *place* took the key string if *key* is None.

    It has no lines at its sides, so that a triple click takes the key and nothing else; the key
    is never wrapped or cut, whatever the width.
    """
    import io
    import shutil

    from rich.box import HORIZONTALS
    from rich.console import Console as RichConsole
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for label, value in [*facts(answer), *_delivery(answer, place)]:
        grid.add_row(Text(label, "dim"), Text(value))
    parts: list[Any] = [grid]
    if key is not None:
        parts += [
            Text(),
            Text(key.reveal(), "bold green", no_wrap=True, overflow="ignore"),
            Text(),
            Text("Shown once: it is stored as a hash only. Copy it now.", "yellow"),
        ]
    needed = len(key.reveal()) + 4 if key else 0
    width = max(min(shutil.get_terminal_size().columns, _WIDEST), needed, 20)
    out = io.StringIO()
    rich = RichConsole(
        file=out,
        width=width,
        force_terminal=True,
        color_system="standard" if console.colour else None,
    )
    title = "New secret of an API key" if "old_secret" in answer else "New API key"
    rich.print(Panel(Group(*parts), box=HORIZONTALS, title=title), crop=False)
    return screen.plain(out.getvalue()) if console.ascii else out.getvalue()


def _delivery(answer: dict[str, Any], place: str | None) -> list[tuple[str, str]]:
    """Return where the key string went, and how long the one before it works."""
    found = []
    if place is not None:
        found.append(("delivered to", place.removeprefix("file:")))
    if old := answer.get("old_secret"):
        found.append(("old secret", old_secret(old, "%Y-%m-%d %H:%M:%S UTC")))
    return found


def old_secret(old: dict[str, Any], form: str) -> str:
    """Return until when the secret that was replaced works, the instant in the *form* of strftime."""
    # "works until" an instant that is over reads as if a leaked key still worked.
    if old["state"] == "revoked":
        return f"sk-{old['id']}… works no more"
    return f"sk-{old['id']}… works until {old['not_after']:{form}}"


def facts(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a key may do, in the words of a person."""
    found = []
    for label, name in _FACTS:
        value = answer.get(name)
        if name == "models":
            owned = answer.get("team_id") or answer.get("user_id")
            all_models = "all that its team and owner have" if owned else "all"
            found.append((label, ", ".join(value) if value else all_models))
        elif name == "max_budget":
            found.append((label, "unlimited" if value is None else screen.money(value)))
        elif name == "expires":
            found.append((label, f"{value:%Y-%m-%d %H:%M:%S} UTC" if value else "never"))
        elif value is not None:
            found.append((label, str(value)))
    found += [
        ("filled in", f"{item['field']} = {cell(item['value'])} ({item['source']})")
        for item in answer.get("filled", ())
    ]
    return found


def show_verdict(
    session: "Session",
    verdict: "Judgement",
    *,
    new: bool = False,
    counts: Mapping[str, Any] | None = None,
) -> None:
    """Show the verdict of a dry run; exit 4 if it is a denial.  The ids of a *new* key are not made yet.

    *counts* tells of many keys how many would be made and which not; the verdict is that of one.
    """
    from dataclasses import asdict

    import typer

    from keyctl import views

    record = views.key_view(verdict.key, now=verdict.key.updated_at)
    if new:
        record.update(dict.fromkeys(("key_id", "token", "token_id", "key_name")))
    report = {
        "allowed": not (verdict.violations or (counts or {}).get("failed")),
        "violations": [asdict(item) for item in verdict.violations],
        "record": record,
        "filled": [asdict(item) for item in verdict.filled],
        "overridden": [asdict(item) for item in verdict.stepped_over],
        **(counts or {}),
    }
    if session.speaks_json:
        session.show_json(report)
    else:
        session.console.write(verdict_text(report))
    if not report["allowed"]:
        raise typer.Exit(ExitCode.DENIED)


def verdict_text(report: dict[str, Any]) -> str:
    """Return the verdict of a dry run as lines."""
    lines = ["allowed" if report["allowed"] else "denied"]
    if "count" in report:
        lines = [f"{report['would_make']} of {screen.count(report['count'], 'key')} allowed"]
    lines += [f"  {item['rule']}: {told(Violation(**item))}" for item in report["violations"]]
    lines += [f"  overridden: {item['rule']}" for item in report["overridden"]]
    refused = [item for item in report.get("failed", ()) if item["key_alias"] is not None]
    lines += [
        f"  refused: {one_line(item['key_alias'])}: {one_line(item['error']['message'])}"
        for item in refused[:_REFUSED_SHOWN]
    ]
    if len(refused) > _REFUSED_SHOWN:
        lines.append(f"  refused: {len(refused) - _REFUSED_SHOWN} more")
    lines += [
        f"  {label}: {value}"
        for label, value in facts({**report["record"], "filled": report["filled"]})
        if label != "key id"
    ]
    return "\n".join(lines) + "\n"
