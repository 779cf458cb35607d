"""Make many keys for generate --count, as JSON lines on stdout or together in one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keyctl import jsontext
from keyctl.cli import screen
from keyctl.cli.console import error_document
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.errors import BatchError, KeyctlError, UsageError

if TYPE_CHECKING:
    from keyctl.services.issue.generate_many import Deliver, Made
    from keyctl.services.issue.order import Order

MOST_IN_A_FILE = 10_000


def generate_many(
    session: Session,
    order: "Order",
    count: int,
    *,
    out_file: str | None,
    out_format: str,
    force: bool,
) -> None:
    """Make *count* keys; those that are refused are reported, and the others made."""
    from keyctl.services.issue.generate_many import BulkService

    session.require_output(("auto", "json", "jsonl", "key"), what="--count")
    batch = document = None
    filed: list[Made] = []
    deliver: Deliver
    if out_file is None:
        if session.wants_json:
            document = BatchDocument()
            _to_stdout(session)  # a closed stdout is refused before anything is made
            deliver = document.deliver
        else:
            deliver = _to_stdout(session)
    else:
        _check_file(count, out_format)
        # One batch: the file is put in place once, with all of them.
        if session.speaks_json:
            session.console.require_stdout()
        deliver = _to_file(session, Path(out_file), out_format, filed, force=force)
        batch = count
    again = "run it again: keys that are there are refused, the others made"
    try:
        lines = out_file is None
        with counted(session.console, "making keys", count, go_on=again, lines=lines) as step:

            def hand_over(made: "Sequence[Made]") -> None:
                deliver(made)
                step(len(made))

            service = BulkService(session.workspace)
            done, refused = service.generate(order, count, hand_over, batch=batch)
    finally:
        if document is not None:
            document.close()
    if out_file is not None:
        _show_filed(session, filed)
    if not session.wants_json:
        session.console.note(
            f"{screen.count(done, 'key')} made" + (f", {refused} refused" if refused else "")
        )
    if refused:
        raise BatchError(
            f"{refused} of {screen.count(count, 'key')} {screen.were(refused)} refused",
            hint="the lines above say why",
        )


def judge_many(session: Session, order: "Order", count: int) -> None:
    """Show what would become of *count* keys, and write nothing; exit 4 if one would be refused."""
    from keyctl.cli.panel import show_verdict
    from keyctl.services.issue.judge_many import ManyVerdictsService

    judged = ManyVerdictsService(session.workspace).dry_run(order, count)
    failed = [error_row(alias, error) for alias, error in judged.refused]
    counts = {"count": count, "would_make": count - len(failed), "failed": failed}
    show_verdict(session, judged.verdict, new=True, counts=counts)


def _check_file(count: int, out_format: str) -> None:
    if count > MOST_IN_A_FILE:
        raise UsageError(
            f"at most {MOST_IN_A_FILE} keys go into one file, whole or not at all",
            hint="make several files, or use -o jsonl",
        )
    if out_format == "env":
        raise UsageError("--count writes no env file", hint="give --out-format key or json")


def _to_stdout(session: Session) -> "Deliver":
    from keyctl.sinks.base import Target
    from keyctl.sinks.stdout import StdoutSink, written

    console, bare = session.console, session.output in ("auto", "key")
    sink = StdoutSink("stdout", lambda _: b"", is_open=console.has_stdout)
    sink.check(Target(key_id=None))

    def deliver(batch: "Sequence[Made]") -> None:
        for item in batch:
            if bare and item.error is not None:
                console.fault(f"refused: {item.key_alias}: {item.error.message}")
        written("".join(_line(item, bare=bare) for item in batch).encode())

    return deliver


class BatchDocument:
    """One JSON document on stdout that grows while keys are made, and is closed however that ends."""

    def __init__(self) -> None:
        self._failed: list[dict[str, Any]] = []
        self._count = 0
        self._state: Literal["unopened", "open", "lost"] = "unopened"

    def deliver(self, batch: "Sequence[Made]") -> None:
        """Write the keys of *batch*; what was refused is kept for the end."""
        for item in batch:
            if item.error is not None:
                self.fail(error_row(item.key_alias, item.error))
        self.add([_row(item, with_key=True) for item in batch if item.error is None])

    def fail(self, row: dict[str, Any]) -> None:
        """Keep what was refused for the end."""
        self._failed.append(row)

    def add(self, made_rows: Sequence[dict[str, Any]]) -> None:
        """Write keys."""
        from keyctl.sinks.stdout import written

        made = [jsontext.dumps(row) for row in made_rows]
        opening = '{"keys": [' if self._state == "unopened" else ""
        rows = [
            f"{',' if self._count + number else ''}\n  {row}" for number, row in enumerate(made)
        ]
        # Whatever of it arrives, nothing can be appended to half a row.
        self._state = "lost"
        written((opening + "".join(rows)).encode())
        self._state, self._count = "open", self._count + len(made)

    def close(self) -> None:
        """Write the end of what was begun, so that a parser takes it."""
        from keyctl.sinks.stdout import written

        if self._state == "unopened" and self._failed:
            self.add([])
        if self._state == "open":
            self._state = "lost"
            end = "\n" if self._count else ""
            written(f'{end}], "failed": {jsontext.dumps(self._failed)}}}\n'.encode())


def _to_file(
    session: Session, path: Path, form: str, filed: "list[Made]", *, force: bool
) -> "Deliver":
    """Return what puts all keys into one file, and notes in *filed* what became of each."""
    from keyctl.services.delivery.overwrite import replaceable
    from keyctl.sinks.base import Target
    from keyctl.sinks.file import FileSink

    sink = FileSink(
        path,
        form="key",
        force=force,
        replaceable=replaceable(session.workspace),
        env_var="",
        warn=session.workspace.warnings.append,
    )
    sink.check(Target(key_id=None))

    def deliver(batch: "Sequence[Made]") -> None:
        lines = [_line(item, bare=form == "key") for item in batch if item.error is None]
        sink.put("".join(lines).encode())
        filed.extend(batch)

    return deliver


def _show_filed(session: Session, filed: "Sequence[Made]") -> None:
    """Tell of keys that are in a file and confirmed: their answers in JSON, else what was refused."""
    if session.wants_json:
        made = [_row(item) for item in filed if item.error is None]
        refused = [_row(item) for item in filed if item.error is not None]
        session.console.json({"keys": made, "failed": refused})
    elif session.output == "jsonl":
        session.console.lines(_row(item) for item in filed)
    else:
        for item in filed:
            if item.error is not None:
                session.console.fault(f"refused: {item.key_alias}: {item.error.message}")


def _line(item: "Made", *, bare: bool) -> str:
    if bare:
        return "" if item.key is None else f"{item.key.reveal()}\n"
    return f"{jsontext.dumps(_row(item, with_key=True))}\n"


def _row(item: "Made", *, with_key: bool = False) -> dict[str, Any]:
    """Return what JSON says of a key: its answer, or why there is none."""
    if item.error is not None:
        return error_row(item.key_alias, item.error)
    own = {"key": item.key.reveal()} if with_key and item.key else {}
    return {**own, **(item.answer or {})}


def error_row(alias: str | None, error: KeyctlError) -> dict[str, Any]:
    """Return what is said of a key that was not made."""
    return {"key_alias": alias, **error_document(error)}
