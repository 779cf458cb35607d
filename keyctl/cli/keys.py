"""Declare keyctl verify, list and info."""

from dataclasses import asdict
from typing import Annotated, Final

import typer

from keyctl.cli import inputs
from keyctl.cli.command import command
from keyctl.cli.listing import Page, show_list
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout, cell, pipe_only, show_table
from keyctl.errors import UsageError

KEYS: Final = Layout(
    "keys",
    (
        Column("key_id", "key", "id", rank=0),
        Column("key_alias", "alias", rank=1),
        Column("state", kind="state", rank=2),
        Column("team_id", "team", rank=5),
        Column("user_id", "user", rank=6),
        pipe_only("max_budget", "money"),
        Column("spend", "spent", "spent", rank=4),
        Column("expires", "ends", "instant", rank=3),
        Column("created_at", "made", "instant", rank=7),
    ),
    (
        Column("key_name", "shown as"),
        Column("organization_id", "organization"),
        Column("models"),
        Column("tags"),
        Column("rpm_limit", "requests/min", "number"),
        Column("tpm_limit", "tokens/min", "number"),
        Column("budget_duration", "budget period"),
        Column("budget_reset_at", "budget starts again", "instant"),
        Column("last_used_at", "used", "instant"),
        Column("key_rotation_at", "rotates", "instant"),
        Column("rotation_count", "rotations", "number"),
        Column("sink"),
        Column("created_by", "made by"),
    ),
)


def add_to(app: typer.Typer) -> None:
    """Declare the commands."""

    @command(app, "verify")
    def verify(
        session: Session,
        source: Annotated[str, typer.Argument(metavar="[-]", help="- for stdin.")] = "-",
    ) -> None:
        """Check a presented key: whose, and is it valid?  Exit 10 when it is not."""
        from keyctl.services.verify import verify

        if source != "-":
            raise UsageError(
                "verify reads the key from stdin", hint='printf %s "$KEY" | keyctl verify -'
            )
        text = inputs.read_key("-", what="the presented key")
        verdict = asdict(verify(session.database, text))
        if session.wants_json:
            session.console.json(verdict)
        else:
            session.console.write(
                "".join(f"{name}: {cell(value)}\n" for name, value in verdict.items())
            )
        if not verdict["valid"]:
            raise typer.Exit(10)

    @command(app, "list", layout=KEYS)
    def list_(
        session: Session,
        page: Page,
        team: Annotated[str | None, typer.Option("--team", help="Only keys of this team.")] = None,
        user: Annotated[str | None, typer.Option("--user", help="Only keys of this user.")] = None,
        org: Annotated[
            str | None, typer.Option("--org", help="Only keys of this organization.")
        ] = None,
        alias: Annotated[
            str | None, typer.Option("--alias", help="Only the key with this alias.")
        ] = None,
        state: Annotated[
            str | None, typer.Option("--state", help="active|blocked|expired|pending|deleted.")
        ] = None,
        expires_before: Annotated[
            str | None, typer.Option("--expires-before", help="Only keys that end within this: 7d.")
        ] = None,
        unused_for: Annotated[
            str | None, typer.Option("--unused-for", help="Only keys unused for so long: 90d.")
        ] = None,
        due: Annotated[bool, typer.Option("--due", help="Only keys due for rotation.")] = False,
    ) -> None:
        """List keys, the newest first."""
        from keyctl.db.queries import KeyFilter
        from keyctl.lifecycle import KEY_STATES
        from keyctl.services.keys.read import KeyService

        if state is not None and state not in KEY_STATES:
            raise UsageError(f"there is no state {state!r}", hint=f"give {', '.join(KEY_STATES)}")
        wanted = KeyFilter(
            team_id=team, user_id=user, organization_id=org, key_alias=alias, state=state
        )
        if expires_before or unused_for or due:
            wanted = KeyService(session.workspace).since(
                wanted, expires_before=expires_before, unused_for=unused_for, due=due
            )
        service = KeyService(session.workspace)
        show_list(
            session,
            KEYS,
            page,
            lambda after, limit: service.page(wanted, after=after, limit=limit),
        )

    @command(app, "info", reads=True)
    def info(
        session: Session,
        key: Annotated[str, typer.Argument(metavar="KEY", help="An id, an alias, sk-<id>, or -.")],
    ) -> None:
        """Show what a key may do, and its secrets."""
        from keyctl.services.keys.read import KeyService

        view = KeyService(session.workspace).info(named(key))
        if session.wants_json:
            session.console.json(view)
            return
        secrets = view.pop("secrets")
        shown = {name: value for name, value in view.items() if value not in (None, [], {}, False)}
        session.console.write("".join(f"{name}: {cell(value)}\n" for name, value in shown.items()))
        session.console.write("\n")
        show_table(session.console, ("id", "state", "created_at", "not_after"), secrets)


def named(key: str) -> str:
    """Return what KEY says: itself, or for ``-`` the key string on stdin.

    Raises:
        UsageError: Stdin holds none, or what cannot be asked for.
    """
    if key != "-":
        return key
    text = inputs.read_key("-", what="the key on stdin")
    if "\0" in text:
        raise UsageError("the key on stdin has a NUL in it", hint="a key is printable ASCII")
    return text
