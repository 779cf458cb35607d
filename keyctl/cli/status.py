"""Declare keyctl status, help and version."""

import platform
from typing import Annotated, Any

import typer

from keyctl import __version__, nearest
from keyctl.cli import screen
from keyctl.cli.command import command
from keyctl.cli.helping import Named
from keyctl.cli.pages import Fact, show_facts
from keyctl.cli.session import Session
from keyctl.errors import UsageError
from keyctl.purses import OWN


def add_to(app: typer.Typer) -> None:
    """Declare the commands."""

    @command(app, "status", reads=True)
    def status(session: Session) -> None:
        """Show in one screen what exists, what is due, what ends soon and what failed."""
        from keyctl.services.status import StatusService

        found = StatusService(session.workspace).status()
        if session.wants_json:
            session.console.json(found)
        else:
            now = session.database.time() if session.console.is_terminal else None
            show_facts(session.console, _facts(found, now))

    @command(app, "version", reads=True)
    def version(session: Session) -> None:
        """Show the version of the program, and the schema it works with."""
        from keyctl.db.schema import HEAD

        found = {"version": __version__, "schema": HEAD, "python": platform.python_version()}
        if session.wants_json:
            session.console.json(found)
        else:
            session.console.write(f"keyctl {__version__}, schema {HEAD}\n")

    @app.command("help", cls=Named)
    def help_(
        context: typer.Context,
        words: Annotated[
            list[str] | None,
            typer.Argument(metavar="COMMAND…", help="Such as generate, or team create."),
        ] = None,
    ) -> None:
        """Show the help of a command, as its --help does."""
        found: Any = context.find_root()
        for word in words or ():
            commands = getattr(found.command, "commands", {})
            if word not in commands:
                raise UsageError(
                    f"there is no command {' '.join(words or ())!r}",
                    hint=nearest.meant(
                        word, list(commands), otherwise=f"try: {found.command_path} --help"
                    ),
                )
            found = typer.Context(commands[word], parent=found, info_name=word)
        context.obj.write(f"{found.get_help()}\n")


def _facts(found: dict[str, Any], now: Any) -> list[Fact]:
    """Return the screen's lines; what wants attention has a colour."""
    counts = found["keys"]
    live = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    rotation, budgets = found["rotation"], found["budgets"]
    ending, nearly = found["ending_within_7d"], budgets["nearly_spent"]
    lines = [
        Fact("database", f"{found['database']['url']} (schema {found['database']['revision']})"),
        *_move(found["database"]["state"]),
        Fact("acting as", found["caller"]),
        Fact("keys", live or "none"),
        _count("unfinished", found["unfinished"], "keyctl db check"),
        _count("rotations due", rotation["due"], "keyctl rotate --due"),
        _count(
            "rotations failed",
            rotation["failed_within_1d"],
            "keyctl audit list --action key_rotation_failed",
        ),
        _count("budgets to reset", budgets["reset_due"], "keyctl budget reset --due"),
        _count("ending in 7 days", len(ending), "keyctl list --expires-before 7d"),
    ]
    lines += [
        Fact(
            "",
            f"{key['key_alias'] or key['key_id']} {screen.when(key['expires'], now) if now else screen.instant(key['expires'])}",
        )
        for key in ending
    ]
    lines.append(_count("nearly spent", len(nearly), "keyctl list --over-budget"))
    for item in nearly:
        text, colour = screen.budget(item["spend"], item["max_budget"])
        which = "" if item["budget"] == OWN else f", {item['budget']}"
        whose = f"{item['object_type']} {item['object_id']}{which}"
        lines.append(Fact("", f"{text}  {whose}", colour))
    waiting = found["outbox"]
    lines.append(
        _count("events waiting", sum(item["waiting"] for item in waiting), "keyctl events list")
    )
    lines += [
        Fact(
            "",
            f"{item['hook']}: {item['waiting']} waiting, {item['failed']} tried in vain",
            "yellow",
        )
        for item in waiting
    ]
    lines.append(Fact("audit head", screen.anchor(found["audit"], whole=now is None)))
    return lines


def _move(state: str) -> list[Fact]:
    """Return the line that says that this is the old one of two databases."""
    if state == "current":
        return []
    told = {"moved": "moved: all of it is in another one", "moving": "being moved to another one"}
    return [Fact("", f"{told.get(state, state)}, and closed to writers", "red")]


def _count(label: str, count: int, look: str) -> Fact:
    return Fact(label, f"{count}  ({look})" if count else "0", "yellow" if count else "")
