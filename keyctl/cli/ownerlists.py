"""Make a team, user or organization for each row of a list: create --from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from keyctl.cli import screen
from keyctl.cli.console import error_document
from keyctl.cli.fields import GENERATE
from keyctl.cli.lists import columns_of, read_bodies
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.errors import BatchError, ExitCode, UsageError

if TYPE_CHECKING:
    from keyctl.cli.command import FieldOption
    from keyctl.records import Principal
    from keyctl.services.owner_lists import OwnerDone, OwnerRow
    from keyctl.services.placed import Placed


def create_rows(
    session: Session,
    kind: "type[Principal]",
    noun: str,
    source: str,
    document: dict[str, Any],
    fields: "Sequence[FieldOption]",
    *,
    dry_run: bool,
) -> None:
    """Make an owner for each row of *source*; options say what rows leave out.

    Nothing is made where a row is malformed or names what is not there.  A row whose id is taken is
    reported.
    """
    from keyctl.services.owner_lists import OwnerListService, key_fields, read_rows

    word = _word(kind)
    kinds = {item.field: item.kind for item in fields}
    renamed = {
        **columns_of((*GENERATE, *fields)),  # one list may serve both
        **dict.fromkeys((noun, word), f"{word}_id"),
    }
    listed = read_bodies(source, kinds, schema=word, renamed=renamed)
    bodies = [(place, {**document, **body}) for place, body in listed]
    rows = read_rows(kind, bodies)
    if of_keys := key_fields(kind, bodies):
        names = ", ".join(of_keys)
        session.console.warn(f"left out, as they say something of keys only: {names}")
    service = OwnerListService(session.workspace)
    if dry_run:
        show_verdicts(session, kind, rows, service.judge(kind, rows))
        return
    done: list[OwnerDone] = []
    again = f"run it again: {word}s that are there are refused, the others made"
    try:
        with counted(
            session.console,
            f"making {word}s",
            len(rows),
            go_on=again,
            lines=True,
        ) as step:
            for item in service.create(kind, rows):
                done.append(item)
                _tell(session, word, item)
                step(1)
    finally:
        if session.wants_json and done:
            made = [item.answer for item in done if item.answer is not None]
            failed = [_failed(word, item) for item in done if item.error is not None]
            session.console.json({f"{noun}s": made, "failed": failed})
    refused = sum(item.error is not None for item in done)
    if not session.wants_json:
        session.console.note(f"{screen.count(len(done) - refused, word)} made, {refused} not")
    if refused:
        raise BatchError(
            f"{refused} of {screen.count(len(rows), word)} {screen.were(refused)} not made",
            hint="the lines say why",
        )


def judge_one(
    session: Session, kind: "type[Principal]", object_id: str, values: dict[str, Any]
) -> None:
    """Say whether one could be made; write nothing."""
    from keyctl.services.owner_lists import OwnerListService, OwnerRow

    rows = [OwnerRow(place=object_id, object_id=object_id, values=values)]
    service = OwnerListService(session.workspace)
    show_verdicts(session, kind, rows, service.judge(kind, rows))


def show_verdicts(
    session: Session,
    kind: "type[Principal]",
    rows: "Sequence[OwnerRow]",
    against: "Sequence[Placed]",
) -> None:
    """Say of each row whether it could be made, and exit 4 if one could not."""
    word = _word(kind)
    reasons: dict[str, list[Placed]] = {row.place: [] for row in rows}
    for item in against:
        reasons[item.place].append(item)
    verdicts = [
        {
            "place": row.place,
            f"{word}_id": row.object_id,
            "allowed": not reasons[row.place],
            "reasons": [item.error.message for item in reasons[row.place]],
        }
        for row in rows
    ]
    if session.output == "jsonl":
        session.console.lines(verdicts)
    elif session.wants_json:
        session.console.json({"allowed": not against, "rows": verdicts})
    else:
        for row, verdict in zip(rows, verdicts, strict=True):
            what = "would create" if verdict["allowed"] else "could not create"
            session.console.write(f"{row.place}: {what} {word} {row.object_id}\n")
            for item in reasons[row.place]:
                session.console.write(f"  {item.error.message}\n")
    if against:
        raise typer.Exit(int(ExitCode.DENIED))


def require_one(id_: str | None, source: str | None) -> None:
    """Refuse to make one, and to make many, at once.

    Raises:
        UsageError: An id and a list are given, or neither.
    """
    if id_ is None and source is None:
        raise UsageError("there is no ID", hint="give an ID, or --from FILE with a row for each")
    if id_ is not None and source is not None:
        raise UsageError(
            "--from takes the ids from its rows",
            hint=f"leave out {id_}; a row for it goes into the list",
        )


def _tell(session: Session, word: str, item: "OwnerDone") -> None:
    if session.output == "jsonl":
        session.console.lines([item.answer or _failed(word, item)])
    elif not session.wants_json:
        name = item.row.object_id
        if item.error is None:
            session.console.outcome(f"{name}: created", failed=False)
        else:
            session.console.fault(f"refused: {item.row.place}: {name}: {item.error.message}")


def _failed(word: str, item: "OwnerDone") -> dict[str, Any]:
    own = {"place": item.row.place, f"{word}_id": item.row.object_id}
    return own if item.error is None else {**own, **error_document(item.error)}


def _word(kind: "type[Principal]") -> str:
    from keyctl.services.owners import WORD

    return WORD[kind]
