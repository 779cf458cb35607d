"""Declare keyctl import litellm."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl.cli import inputs, screen
from keyctl.cli.choices import require_reason
from keyctl.cli.command import command, declare_group
from keyctl.cli.console import one_line
from keyctl.cli.given import Given, naming
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.cli.tables import show_table
from keyctl.errors import BatchError, UsageError

if TYPE_CHECKING:
    from keyctl.services.import_litellm.report import ImportLine, ImportOrder, LitellmRows

_LARGEST_PAGE: Final = 256 * 1024 * 1024
RESULTS: Final = ("imported", "present", "skipped", "failed")
OBJECTS: Final = ("user", "organization", "team", "member", "key")


def add_to(app: typer.Typer) -> None:
    """Declare the command."""
    group = declare_group(app, "import", "Take over another gateway's keys.")

    @command(group, "litellm", outputs=("auto", "json", "jsonl", "table"))
    def litellm(
        session: Session,
        source_url: Annotated[
            str | None,
            typer.Option("--source-url", help="LiteLLM's database (KEYCTL_SOURCE_URL)."),
        ] = None,
        source_file: Annotated[
            list[str] | None,
            typer.Option(
                "--source-file",
                help="A file with what /key/list?return_full_object=true answered, instead of the database; repeatable.",
            ),
        ] = None,
        include_expired: Annotated[
            bool, typer.Option("--include-expired", help="Import expired keys as such.")
        ] = False,
        drop: Annotated[
            list[str] | None,
            typer.Option(
                "--drop", help="Import without the restriction in this LiteLLM column; repeatable."
            ),
        ] = None,
        override: Annotated[
            list[str] | None,
            typer.Option(
                "--override", help="Step over this rule (see keyctl schema rules); repeatable."
            ),
        ] = None,
        reason: Annotated[
            str | None, typer.Option("--reason", help="Why, for --override and --drop.")
        ] = None,
        administers: Annotated[
            bool,
            typer.Option(
                "--administers",
                help="Let the imported key strings act as callers (KEYCTL_API_KEY).",
            ),
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Report what would be; write nothing.")
        ] = False,
    ) -> None:
        """Import LiteLLM's users, teams and keys; key strings keep working.

        What is here already is left alone, so it may be run again: after a crash it goes on. Try --dry-run first.
        """
        require_reason(reason)
        if (override or drop) and not reason:
            raise UsageError(
                "--override and --drop need --reason", hint="say why, for the audit trail"
            )
        from keyctl.services.import_litellm.report import ImportOrder

        order = ImportOrder(
            include_expired=include_expired,
            dropped=frozenset(drop or ()),
            overrides=tuple(override or ()),
            reason=reason,
            dry_run=dry_run,
            administers=administers,
        )
        with _source(session, source_url, source_file) as source:
            _import(session, order, source)


def _source(
    session: Session, source_url: str | None, source_file: Sequence[str] | None
) -> "AbstractContextManager[LitellmRows]":
    if source_file:
        if source_url is not None:
            raise UsageError(
                "give either --source-url or --source-file", hint="keys have one source"
            )
        from keyctl.litellm.dump import Dump

        return nullcontext(
            Dump.of(
                inputs.read_document(path, what="the dump", most=_LARGEST_PAGE)
                for path in source_file
            )
        )
    url = session.source_url(source_url)
    if url is None:
        raise UsageError(
            "there is nothing to import from",
            hint="set KEYCTL_SOURCE_URL or KEYCTL_SOURCE_URL_FILE, or give --source-file",
        )
    return _opened(url)


@contextmanager
def _opened(url: Given) -> "Iterator[LitellmRows]":
    from keyctl.db.litellm_source import opened

    with ExitStack() as stack:
        with naming(url.name):
            source = stack.enter_context(opened(url.text, variable=url.name))
        yield source


def _import(session: Session, order: "ImportOrder", source: "LitellmRows") -> None:
    from keyctl.services.import_litellm.service import ImportService

    service = ImportService(session.workspace)
    counts: Counter[tuple[str, str]] = Counter()
    columns: Counter[str] = Counter()
    noted: list[dict[str, Any]] = []
    anchor = None
    console, again = session.console, "run it again: what is imported stays as it is"
    with counted(console, "importing keys", source.count_keys(), go_on=again) as step:
        for line in _told(session, service.run(source, order), noted):
            counts[line.object_type, line.result] += 1
            columns.update(line.lost)
            anchor = line.audit or anchor
            if line.object_type == "key":
                step(1)
    _report(session, order, counts, columns, noted, anchor)
    if failures := sum(counts[kind, "failed"] for kind in OBJECTS):
        raise BatchError(
            f"{screen.count(failures, 'row')} failed", hint="the report says which and why"
        )


def _told(
    session: Session, lines: "Iterable[ImportLine]", noted: list[dict[str, Any]]
) -> "Iterator[ImportLine]":
    """Pass the lines on, and tell those that say something: all as JSON lines, else what was not simply done."""
    for line in lines:
        if session.output == "jsonl":
            session.console.lines([asdict(line)])
        elif line.reason is not None or line.changes:
            if session.wants_json:
                noted.append(asdict(line))
            else:
                session.console.note(_text(line))
        yield line


def _text(line: "ImportLine") -> str:
    alias = f" ({line.key_alias})" if line.key_alias else ""
    said = "; ".join([*([line.reason] if line.reason else []), *line.changes])
    # On one line, and nothing that a terminal would obey: the source's ids are anybody's text.
    return one_line(f"{line.object_type} {line.source}{alias} {line.result}: {said}")


def _report(
    session: Session,
    order: "ImportOrder",
    counts: Counter[tuple[str, str]],
    columns: Counter[str],
    noted: Sequence[dict[str, Any]],
    anchor: dict[str, Any] | None,
) -> None:
    rows = [
        {"object": kind, **{result: counts[kind, result] for result in RESULTS}} for kind in OBJECTS
    ]
    without_home = [{"column": name, "rows": count} for name, count in sorted(columns.items())]
    if session.wants_json:
        session.console.json(
            {
                "dry_run": order.dry_run,
                "counts": rows,
                "columns": without_home,
                "rows": noted,
                "audit": anchor,
            }
        )
    elif session.output != "jsonl":
        show_table(session.console, ("object", *RESULTS), rows)
    if not session.wants_json:
        for item in without_home:
            session.console.note(f"keyctl has no field for {item['column']} in {item['rows']} rows")
    if order.dry_run:
        session.console.note("a dry run: nothing was written")
