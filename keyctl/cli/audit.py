"""Declare the commands of keyctl audit."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl import jsontext
from keyctl.cli.choices import require_reason
from keyctl.cli.command import command, declare_group
from keyctl.cli.console import Console, one_line
from keyctl.cli.differences import differences, shown, told
from keyctl.cli.listing import Page, show_list
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout, cell, csv_text
from keyctl.errors import UsageError

if TYPE_CHECKING:
    from keyctl.db.queries.audit import Head
    from keyctl.services.audit import EventFilter

EVENTS: Final = Layout(
    "events",
    (
        Column("seq", "#", "id", rank=0),
        Column("at", "when", "instant", rank=2),
        Column("actor", "who", rank=4, enough=12),
        Column("changed_by", "for", rank=7),
        Column("action", rank=1),
        Column("object_type", "kind", rank=6),
        Column("object_id", "object", "id", rank=1),
        Column("reason", rank=5),
        Column("changes", rank=3, enough=16),
    ),
)
COLUMNS: Final = tuple(column.name for column in EVENTS.columns if column.name != "changes")
# What only leads up to another event of the same object.
_STEPS: Final = ("key_staged", "key_rotation_staged")
_ENDS: Final = ("key_generated", "key_rotated")
Key = Annotated[
    str | None, typer.Option("--key", help="Only events of this key, also of a deleted alias.")
]
Team = Annotated[
    str | None, typer.Option("--team", help="Only events of this team, its keys and members.")
]
User = Annotated[
    str | None, typer.Option("--user", help="Only events of this user and their keys.")
]
Object = Annotated[
    str | None,
    typer.Option("--object", help="Only events of the object with this id, or '*part*'."),
]
Actor = Annotated[str | None, typer.Option("--actor", help="Only what this actor did.")]
Action = Annotated[
    str | None, typer.Option("--action", help="Only this: key_generated, key_*, denied, …")
]
Since = Annotated[
    str | None,
    typer.Option("--since", help="From this time on: 7d (7 days ago), yesterday, 2026-12-01, …"),
]
Until = Annotated[str | None, typer.Option("--until", help="Before this time: 7d, yesterday, …")]


def add_to(app: typer.Typer) -> None:
    """Declare the group and its commands."""
    group = declare_group(app, "audit", "The audit trail: who changed what.")

    @command(group, "list", layout=EVENTS)
    def list_(
        session: Session,
        page: Page,
        key: Key = None,
        team: Team = None,
        user: User = None,
        object_: Object = None,
        actor: Actor = None,
        action: Action = None,
        since: Since = None,
        until: Until = None,
        diff: Annotated[
            bool, typer.Option("--diff", help="Show every field before and after.")
        ] = False,
    ) -> None:
        """List events, the newest first, and what each changed."""
        from keyctl.services.audit import AuditService

        wanted = _filter(session, key, team, user, object_, actor, action, since, until)
        service = AuditService(session.workspace)
        if diff:
            if page.columns or page.sort or page.everything:
                raise UsageError(
                    "--diff shows every field of a page of events: no --columns, --sort, --all",
                    hint="-o json --all has before and after of each event",
                )
            events, _ = service.page(wanted, after=_cursor(page.after), limit=page.limit or 100)
            _show_differences(session, events)
            return
        for_people = session.console.is_terminal and session.output in ("auto", "table")
        finished: set[str] = set()

        def fetch(after: Any, limit: int) -> tuple[Sequence[dict[str, Any]], Any]:
            events, following = service.page(wanted, after=_cursor(after), limit=limit)
            if session.output in ("json", "jsonl"):
                return events, following
            rows: list[dict[str, Any]] = []
            while True:
                for event in events:
                    if for_people and not _is_news(event, finished):
                        continue
                    rows.append({**event, "changes": told(event["before"], event["after"])})
                    if len(rows) == limit:
                        is_last = following is None and event is events[-1]
                        return rows, None if is_last else event["seq"]
                if following is None:
                    return rows, None
                # A step that is folded in leaves room for another row.
                events, following = service.page(wanted, after=following, limit=limit)

        show_list(session, EVENTS, page, fetch)

    @command(group, "export", outputs=("auto", "json", "jsonl", "csv"), reads=True)
    def export(
        session: Session,
        key: Key = None,
        team: Team = None,
        user: User = None,
        object_: Object = None,
        actor: Actor = None,
        action: Action = None,
        since: Since = None,
        until: Until = None,
    ) -> None:
        """Print every event with its hashes, the oldest first."""
        from keyctl.services.audit import AuditService

        session.console.require_stdout()
        wanted = _filter(session, key, team, user, object_, actor, action, since, until)
        events = AuditService(session.workspace).export(wanted)
        if session.wants_json:
            _write_document(session.console, events)
        elif session.output == "csv":
            session.console.write(csv_text(COLUMNS, [], heading=True))
            for event in events:
                session.console.write(csv_text(COLUMNS, [event], heading=False))
        else:
            session.console.lines(events)

    _add_checks(group)


def _add_checks(group: typer.Typer) -> None:
    @command(group, "verify", reads=True)
    def verify(
        session: Session,
        expect_head: Annotated[
            str | None,
            typer.Option(
                "--expect-head",
                help="A hash that keyctl audit head printed earlier; needs --at-seq.",
            ),
        ] = None,
        at_seq: Annotated[
            int | None,
            typer.Option(
                "--at-seq", min=1, help="The number that keyctl audit head printed with that hash."
            ),
        ] = None,
        state: Annotated[
            bool, typer.Option("--state", help="Also compare what is stored with the chain.")
        ] = False,
    ) -> None:
        """Walk the whole chain; exit 11 if it does not hold.

        The first event that does not fit is named.  With --state, every row must be as the chain
        last said, except for usage.  Each field that differs is named.
        """
        from keyctl.services.audit import AuditService

        expected = _expected(expect_head, at_seq)
        service = AuditService(session.workspace)
        console, again = session.console, "nothing is wrong so far; run it again"
        with counted(console, "verifying", service.count(), go_on=again) as step:
            head = service.verify(expected=expected, state=state, step=lambda: step(1))
        if session.wants_json:
            session.console.json({"valid": True, "seq": head.seq, "head": head.hash})
        else:
            session.console.write(f"{head.seq} events, unbroken: {head.hash}\n")

    @command(group, "accept")
    def accept(
        session: Session,
        reason: Annotated[str, typer.Option("--reason", help="Why what stands is right.")],
    ) -> None:
        """Record what is stored where it differs from the chain. Only an admin may."""
        from keyctl.services.audit import AuditService

        require_reason(reason)
        view = AuditService(session.workspace).accept(reason=reason)
        if session.wants_json:
            session.console.json(view)
        else:
            session.console.write(f"{view['accepted']} objects recorded as they stand\n")

    @command(group, "head", reads=True)
    def head(session: Session) -> None:
        """Print the sequence number and hash of the last event."""
        from keyctl.services.audit import AuditService

        found = AuditService(session.workspace).head()
        if session.wants_json:
            session.console.json(found)
        else:
            session.console.write(f"{found['seq']} {found['head']}\n")


def _write_document(console: Console, events: Iterator[dict[str, Any]]) -> None:
    """Write all events as one JSON document, while they are read: a million of them need no memory."""
    console.write('{"events": [')
    for number, event in enumerate(events):
        console.write(f"{',' if number else ''}\n  {jsontext.dumps(event)}")
    console.write('\n], "next": null}\n')


def _cursor(after: str | int | None) -> int | None:
    """Return the number of the event to go on behind.

    Raises:
        UsageError: It is none.
    """
    if after is None or isinstance(after, int):
        return after
    # Nineteen digits and more do not fit into the column.
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise UsageError(
            "--after takes the number of an event", hint="take it from `next`, or the column seq"
        )
    return int(after)


def _is_news(row: dict[str, Any], finished: set[str]) -> bool:
    """Tell whether a row says something of its own: a step of what is finished does not.

    Rows come newest first; *finished* keeps the objects whose making or rotation has been seen.
    """
    if row["action"] in _ENDS:
        finished.add(row["object_id"])
    elif row["action"] in _STEPS and row["object_id"] in finished:
        finished.discard(row["object_id"])
        return False
    return True


def _show_differences(session: Session, events: Sequence[dict[str, Any]]) -> None:
    if session.output not in ("auto", "table"):
        raise UsageError("--diff is for people", hint="-o json has before and after of each event")
    for event in events:
        heading = f"{event['seq']}  {cell(event['at'])}  {event['actor']}  {event['action']}  "
        session.console.say(
            one_line(f"{heading}{event['object_type']} {event['object_id']}") + "\n"
        )
        before, after = event["before"], event["after"]
        if isinstance(before, (dict, type(None))) and isinstance(after, (dict, type(None))):
            for name, old, new in differences(before, after):
                if old not in (None, [], {}):
                    session.console.say(one_line(f"  - {name}: {shown(name, old)}") + "\n")
                if new not in (None, [], {}):
                    session.console.say(one_line(f"  + {name}: {shown(name, new)}") + "\n")


def _filter(
    session: Session,
    key: str | None,
    team: str | None,
    user: str | None,
    object_: str | None,
    actor: str | None,
    action: str | None,
    since: str | None,
    until: str | None,
) -> "EventFilter":
    from keyctl import actions, nearest
    from keyctl.services.audit import EventFilter

    names = None if action is None else actions.matching(action)
    if action is not None and not names:
        known = sorted(actions.ACTIONS)
        raise UsageError(
            f"there is no action {action!r}",
            hint=nearest.meant(action, known, otherwise="keyctl schema event lists them"),
        )
    begin, end = session.past(since, "--since"), session.moment(until, "ago")
    if begin is not None and end is not None and begin >= end:
        raise UsageError(
            f"nothing is between --since {since} and --until {until}",
            hint="--since is the earlier one: 7d is 7 days ago",
        )
    return EventFilter(
        key=key,
        team=team,
        user=user,
        object_id=object_,
        actor=actor,
        actions=names,
        since=begin,
        until=end,
    )


def _expected(hash_: str | None, seq: int | None) -> "Head | None":
    from keyctl.db.queries.audit import Head

    if (hash_ is None) != (seq is None):
        raise UsageError(
            "--expect-head and --at-seq go together", hint="keyctl audit head prints both"
        )
    if hash_ is None or seq is None:
        return None
    if len(hash_) != 64 or set(hash_) - set("0123456789abcdef"):
        raise UsageError("--expect-head takes 64 hex digits", hint="as keyctl audit head printed")
    return Head(seq, hash_)
