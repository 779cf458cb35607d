"""Make a key for each row of a list: generate --from."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import typer

from keyctl import jsontext
from keyctl.cli import fields, screen
from keyctl.cli.apply import folder_sink
from keyctl.cli.bulk import BatchDocument, error_row
from keyctl.cli.lists import columns_of, read_bodies
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.errors import BatchError, ExitCode, KeyctlError

if TYPE_CHECKING:
    from keyctl.services.issue.generate_each import Done, EachService, Job
    from keyctl.services.issue.generate_rows import JudgedRow
    from keyctl.sinks.base import Parcel, Sink, Target

_KINDS: Final = {"service_account": "flag", **{item.field: item.kind for item in fields.GENERATE}}


def generate_rows(
    session: Session,
    source: str,
    document: dict[str, Any],
    *,
    out_dir: str | None,
    dry_run: bool,
    overrides: tuple[str, ...],
    reason: str | None,
) -> None:
    """Make a key for each row of *source*; options say what rows leave out.

    Nothing is made where a rule is against a row.  A row whose alias is taken is reported.
    """
    from keyctl.policy import engine
    from keyctl.services.issue.generate_each import EachService
    from keyctl.services.issue.generate_rows import RowsService, read_rows

    known = ("auto", "json", "jsonl", "table") if dry_run else ("auto", "json", "jsonl", "key")
    session.require_output(known, what="--from with --dry-run" if dry_run else "--from")
    engine.check_overrides(overrides)
    listed = read_bodies(
        source, _KINDS, schema="generate-request", renamed=columns_of(fields.GENERATE)
    )
    rows = read_rows([(place, {**document, **body}) for place, body in listed])
    del listed  # a hundred thousand bodies take a third of what all may take
    service = RowsService(session.workspace, overrides)
    judged = service.judge(rows)
    if dry_run:
        _show_verdicts(session, judged)
        return
    with folder_sink(session, out_dir) as in_folder:
        report = _Report(session)
        jobs = service.jobs(judged, in_folder or report.shown)
        _make(session, judged, EachService(session.workspace, overrides, reason), jobs, report)
    if not session.wants_json:
        session.console.note(f"{screen.count(report.made, 'key')} made, {report.refused} not")
    if report.refused:
        raise BatchError(
            f"{report.refused} of {screen.count(len(judged), 'key')}"
            f" {screen.were(report.refused)} not made",
            hint="the lines say why",
        )


def _make(
    session: Session,
    judged: "Sequence[JudgedRow]",
    service: "EachService",
    jobs: "Sequence[Job]",
    report: "_Report",
) -> None:
    """Make the keys, and tell what became of each row."""
    try:
        again = "run it again: keys that are there are refused, the others made"
        with counted(session.console, "making keys", len(jobs), go_on=again, lines=True) as step:
            for item in judged:
                if item.error is not None:
                    report.failed(item.row.alias, item.error)
            for done in service.generate(jobs):
                report.told(done)
                step(1)
    finally:
        report.close()


def _show_verdicts(session: Session, judged: "Sequence[JudgedRow]") -> None:
    from dataclasses import asdict

    from keyctl.cli.console import told

    rows = []
    for item in judged:
        broken = [asdict(one) for one in item.violations]
        rows.append(
            {
                "place": item.row.place,
                "key_alias": item.row.alias,
                "allowed": item.error is None and not broken,
                "violations": broken,
                "reason": None if item.error is None else item.error.message,
            }
        )
        if session.output == "jsonl":
            session.console.lines(rows[-1:])
        elif not session.wants_json:
            word = "allowed" if rows[-1]["allowed"] else "denied"
            session.console.write(f"{item.row.place}: {word}\n")
            for one in item.violations:
                session.console.write(f"  {one.rule}: {told(one)}\n")
            if item.error is not None:
                session.console.write(f"  {item.error.message}\n")
    allowed = all(row["allowed"] for row in rows)
    if session.wants_json:
        session.console.json({"allowed": allowed, "keys": rows})
    if not allowed:
        raise typer.Exit(int(ExitCode.DENIED))


class _Report:
    """What is said while keys are made: one JSON document, JSON lines, or bare keys and remarks."""

    def __init__(self, session: Session) -> None:
        self.made = self.refused = 0
        self._session = session
        self._document = BatchDocument() if session.wants_json else None
        self._shown: set[str] = set()

    def shown(self, target: "Target") -> "Sink":
        """Return the sink of a key that goes to stdout with its answer."""
        self._session.console.require_stdout()
        self._shown.add(target.key_id or "")
        return _Shown(self)

    def show(self, parcel: "Parcel") -> None:
        """Write a key string and its answer."""
        from keyctl.sinks.stdout import written

        row = {"key": parcel.key.reveal(), **parcel.answer}
        if self._document is not None:
            self._document.add([row])
        elif self._session.output == "jsonl":
            written(f"{jsontext.dumps(row)}\n".encode())
        else:
            written(f"{parcel.key.reveal()}\n".encode())

    def told(self, done: "Done") -> None:
        """Say what became of a key; one that was shown has been told already."""
        if done.error is not None:
            self.failed(done.job.alias, done.error)
            return
        self.made += 1
        if done.job.key_id in self._shown:
            return
        answer = done.answer or {}
        if self._document is not None:
            self._document.add([answer])
        elif self._session.output == "jsonl":
            self._session.console.lines([answer])
        else:
            name = done.job.alias or done.job.key_id
            self._session.console.write(
                f"{name}: made, delivered to {done.job.sink.name.removeprefix('file:')}\n"
            )

    def failed(self, alias: str | None, error: KeyctlError) -> None:
        """Say which key was not made, and why."""
        self.refused += 1
        if self._document is not None:
            self._document.fail(error_row(alias, error))
        elif self._session.output == "jsonl":
            self._session.console.lines([error_row(alias, error)])
        else:
            self._session.console.fault(f"refused: {alias}: {error.message}")

    def close(self) -> None:
        """End what was begun."""
        if self._document is not None:
            self._document.close()


class _Shown:
    """A sink that prints one key of many."""

    name = "stdout"
    timeout = timedelta(0)
    shows_answer = True

    def __init__(self, report: _Report) -> None:
        self._report = report

    def check(self, target: "Target") -> None:
        """Accept every key: stdout was looked at before."""

    def deliver(self, parcel: "Parcel") -> None:
        """Print the key."""
        self._report.show(parcel)
