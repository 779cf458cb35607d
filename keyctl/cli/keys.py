"""Declare keyctl verify, list and info."""

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from keyctl.cli import inputs
from keyctl.cli.command import command
from keyctl.cli.session import Session
from keyctl.cli.tables import cell, csv_text, show_table
from keyctl.errors import UsageError

COLUMNS: Final = (
    "key_id",
    "key_alias",
    "state",
    "team_id",
    "user_id",
    "max_budget",
    "spend",
    "expires",
    "created_at",
)
Page = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at the most.")]
After = Annotated[str | None, typer.Option("--after", help="Go on behind this cursor (`next`).")]


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

    @command(app, "list", outputs=("auto", "json", "jsonl", "csv", "table"))
    def list_(
        session: Session,
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
        limit: Page = 100,
        after: After = None,
        everything: Annotated[bool, typer.Option("--all", help="Every page.")] = False,
    ) -> None:
        """List keys, the newest first."""
        from keyctl.db.queries import KeyFilter
        from keyctl.lifecycle import KEY_STATES

        if state is not None and state not in KEY_STATES:
            raise UsageError(f"there is no state {state!r}", hint=f"give {', '.join(KEY_STATES)}")
        wanted = KeyFilter(
            team_id=team, user_id=user, organization_id=org, key_alias=alias, state=state
        )
        if expires_before or unused_for or due:
            from keyctl.services.keys.read import KeyService

            wanted = KeyService(session.workspace).since(
                wanted, expires_before=expires_before, unused_for=unused_for, due=due
            )
        _list(session, wanted, limit=limit, after=after, everything=everything)

    @command(app, "info")
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


def _list(
    session: Session, wanted: Any, *, limit: int, after: str | None, everything: bool
) -> None:
    from keyctl.services.keys.read import KeyService

    service, console, heading = KeyService(session.workspace), session.console, True
    collected: list[dict[str, Any]] = []
    while True:
        page, following = service.page(wanted, after=after, limit=500 if everything else limit)
        if session.output == "jsonl":
            console.lines(page)
        elif session.output == "csv":
            console.write(csv_text(COLUMNS, page, heading=heading))
        else:
            collected += page
        heading = False
        if not everything or following is None:
            break
        after = following
    if session.wants_json:
        console.json({"keys": collected, "next": following})
    elif session.output in ("auto", "table"):
        show_table(console, COLUMNS, collected)
    if following is not None and not session.wants_json:
        console.note(f"more: keyctl list … --after {following}, or --all")
