"""Declare keyctl verify, list and info."""

import shlex
from dataclasses import asdict, replace
from typing import Annotated, Any, Final

import typer

from keyctl.cli import inputs
from keyctl.cli.choices import require_one_of
from keyctl.cli.choosing import OVER_BUDGET
from keyctl.cli.command import command
from keyctl.cli.console import one_line
from keyctl.cli.listing import Page, fields_of, show_list
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout, cell, pipe_only
from keyctl.errors import ExitCode, UsageError

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
        source: Annotated[
            str,
            typer.Argument(
                metavar="-",
                help="The key string comes from stdin; a terminal asks for it.",
                show_default=False,
            ),
        ] = "-",
    ) -> None:
        """Check a presented key: whose, and is it valid?  Exit 10 when it is not."""
        from keyctl.services.verify import verify

        if source != "-":
            raise UsageError(
                "verify reads the key from stdin", hint='printf %s "$KEY" | keyctl verify -'
            )
        text = inputs.read_key("-", what="the presented key")
        verdict = verify(session.database, text)
        if session.wants_json:
            session.console.json(asdict(verdict))
        else:
            # Scripts find every line; a person reads those that say something.
            told = [
                (name, cell(value))
                for name, value in asdict(replace(verdict, spent=())).items()
                if name != "spent" and (value is not None or not session.console.is_terminal)
            ]
            told += [("spent", one_line(str(budget))) for budget in verdict.spent]
            session.console.write("".join(f"{name}: {text}\n" for name, text in told))
        if not verdict.valid:
            raise typer.Exit(ExitCode.ASKED_FOR)

    @command(app, "list", layout=KEYS)
    def list_(
        session: Session,
        page: Page,
        words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
        team: Annotated[
            str | None, typer.Option("--team", help="Only keys of this team; * is any text.")
        ] = None,
        user: Annotated[
            str | None, typer.Option("--user", help="Only keys of this user; * is any text.")
        ] = None,
        org: Annotated[
            str | None, typer.Option("--org", help="Only keys of this organization.")
        ] = None,
        alias: Annotated[
            str | None, typer.Option("--alias", help="Only the key with this alias, or '*part*'.")
        ] = None,
        search: Annotated[
            str | None,
            typer.Option("--search", help="This text in an id, alias, owner or tag."),
        ] = None,
        tag: Annotated[str | None, typer.Option("--tag", help="Only keys with this tag.")] = None,
        model: Annotated[
            str | None, typer.Option("--model", help="Only keys that name this model.")
        ] = None,
        state: Annotated[
            str | None, typer.Option("--state", help="active|blocked|expired|pending|deleted.")
        ] = None,
        over_budget: Annotated[
            bool, typer.Option("--over-budget", help=f"Only {OVER_BUDGET}")
        ] = False,
        expires_before: Annotated[
            str | None,
            typer.Option("--expires-before", help="Only keys that end within 7d, or by a date."),
        ] = None,
        created_after: Annotated[
            str | None,
            typer.Option("--created-after", help="Only keys made in the last 7d, or since a date."),
        ] = None,
        unused_for: Annotated[
            str | None,
            typer.Option(
                "--unused-for",
                help="Only keys unused for 90d, or since a date; 3m is minutes, 3mo months.",
            ),
        ] = None,
        due: Annotated[bool, typer.Option("--due", help="Only keys due for rotation.")] = False,
        issued_by: Annotated[
            str | None,
            typer.Option(
                "--issued-by",
                metavar="KEY|USER",
                help="Only keys with a secret taken by this user, or with this key.",
            ),
        ] = None,
    ) -> None:
        """List keys, the newest first."""
        from keyctl.db.queries import KeyFilter
        from keyctl.lifecycle import KEY_STATES
        from keyctl.services.keys.filters import checked
        from keyctl.services.keys.read import KeyService
        from keyctl.views import plain_fields

        if words:
            raise _no_word(session, words[0])
        require_one_of(state, KEY_STATES, what="state")
        wanted = KeyFilter(
            team_id=team,
            user_id=user,
            organization_id=org,
            key_alias=alias,
            search=search,
            tag=tag,
            model=model,
            state=state,
            over_budget=over_budget,
            expires_before=session.moment(expires_before, "ahead"),
            created_after=session.past(created_after, "--created-after"),
            unused_since=session.past(unused_for, "--unused-for"),
            due_at=session.database.time() if due else None,
        )
        wanted = checked(session.workspace, wanted)
        service = KeyService(session.workspace)
        if issued_by is not None:
            wanted = service.issued_by(wanted, issued_by)
        fields = fields_of(KEYS, page, session.output) if page.everything else None

        def fetch(after: Any, limit: int) -> tuple[list[dict[str, Any]], str | None]:
            if fields is not None and plain_fields().issuperset(fields):
                return service.some_fields(wanted, fields, after=after, limit=limit)
            return service.page(wanted, after=after, limit=limit)

        show_list(session, KEYS, page, fetch)

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
        from keyctl.cli.keypage import show_key

        show_key(session, view, _last_events(session, view["key_id"]))


def _last_events(session: Session, key_id: str) -> list[dict[str, Any]]:
    """Return the last five events of a key, none for who may not read the trail."""
    from keyctl.services.audit import AuditService, EventFilter
    from keyctl.services.identity import OVERSEERS

    if session.caller.role not in OVERSEERS:
        return []
    events, _ = AuditService(session.workspace).page(EventFilter(key=key_id), limit=5)
    return events


def _no_word(session: Session, word: str) -> UsageError:
    """Return the error for a word where an option should be, with the option that was meant."""
    from keyctl.services.suggestions import owners_named

    meant = [
        f"keyctl list {flag} {shlex.quote(name)}"
        for flag, name in owners_named(session.workspace, word)
    ]
    hint = " or ".join(meant or [f"keyctl list --search {shlex.quote(word)}"])
    return UsageError(f"list takes options only, and {word!r} is none", hint=f"try: {hint}")


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
