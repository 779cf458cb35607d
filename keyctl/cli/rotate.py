"""Declare keyctl rotate."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyctl.cli import delivery, inputs, screen
from keyctl.cli.changes import Expect, Keys, Org, State, Team, User, Yes
from keyctl.cli.choosing import limited
from keyctl.cli.command import command
from keyctl.cli.keys import named
from keyctl.cli.many import chosen, confirm, warn_of_issued
from keyctl.cli.progress import counted, progress
from keyctl.cli.session import Session
from keyctl.cli.signals import stoppable
from keyctl.errors import BatchError, ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from keyctl.durations import Grace
    from keyctl.services.rotate.due_keys import DueLine
    from keyctl.services.rotate.one import RotateOrder

OUTPUTS = ("auto", "json", "jsonl", "key", "env", "table", "github")
# Of several keys none goes to stdout or to the job: each has its sink.
OF_SEVERAL = ("auto", "json", "jsonl", "table")


def add_to(app: typer.Typer) -> None:
    """Declare the commands."""

    @command(app, "rotate", outputs=OUTPUTS, chooses=True)
    def rotate(
        session: Session,
        wanted: Any,
        keys: Keys = None,
        team: Team = None,
        user: User = None,
        org: Org = None,
        state: State = None,
        due: Annotated[bool, typer.Option("--due", help="Every key whose time has come.")] = False,
        grace: Annotated[
            str | None, typer.Option("--grace", help="How long the old secret lives: 24h, none.")
        ] = None,
        key_stdin: delivery.KeyStdin = False,
        key_file: delivery.KeyFile = None,
        deliver: Annotated[
            str | None, typer.Option("--deliver", help="Hand it to this sink, this time.")
        ] = None,
        out_file: delivery.OutFile = None,
        out_format: delivery.OutFormat = "key",
        force: delivery.Force = False,
        env_var: delivery.EnvVar = "OPENAI_API_KEY",
        administers: Annotated[
            bool,
            typer.Option(
                "--administers", help="Let the new secret act as a caller. Only admins may."
            ),
        ] = False,
        most: Annotated[
            int | None, typer.Option("--max", min=1, help="With --due: so many at the most.")
        ] = None,
        deadline: Annotated[
            str | None,
            typer.Option("--deadline", help="With --due: begin no key after this long: 5m."),
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show what would be rotated; write nothing.")
        ] = False,
        expect_count: Expect = None,
        yes: Yes = False,
        fail_if_due: Annotated[
            bool, typer.Option("--fail-if-due", help="With --due: exit 10 if a key is left due.")
        ] = False,
    ) -> None:
        """Give a key a new secret; the old one lives on for a grace period.

        Of several keys, each new secret goes to the sink of its key, or to --deliver.

        keyctl rotate --due -o jsonl is for cron: nothing to do is exit 0, and any number of hosts may run it.
        """
        from keyctl.fields import parse_grace

        # A bad one is refused before anything is looked at.
        lasting = None if grace is None else parse_grace(grace)
        wanted = limited(wanted, (team, user, org), state)
        if due:
            session.require_output(OF_SEVERAL, what="rotate --due")
            if (
                keys
                or wanted is not None
                or key_stdin
                or key_file
                or deliver
                or out_file
                or administers
            ):
                raise UsageError(
                    "--due takes no key, no sink and no --administers",
                    hint="each key has its own sink, or default_sink",
                )
            _rotate_due(session, lasting, most, deadline, dry_run=dry_run, fail_if_due=fail_if_due)
            return
        if not keys and wanted is None:
            raise UsageError("name a key, or give --due", hint="keyctl list shows the keys")
        if most is not None or deadline or fail_if_due:
            raise UsageError(
                "--max, --deadline and --fail-if-due go with --due", hint="leave them out"
            )
        if keys is None or len(keys) > 1 or dry_run or expect_count is not None:
            if key_stdin or key_file or out_file:
                raise UsageError(
                    "several keys go each to its own sink, or to --deliver",
                    hint="rotate one key alone to a file, or with a key string of your own",
                )
            what = "rotate --dry-run" if dry_run else "rotate of several keys"
            session.require_output(OF_SEVERAL, what=what)
            given = chosen(session, keys, wanted, expect_count, yes=yes)
            _rotate_many(
                session,
                given,
                lasting,
                deliver,
                administers,
                dry_run=dry_run,
                yes=yes,
                filtered=not keys,
            )
            return
        key = keys[0]
        from keyctl.services.rotate.one import RotateOrder

        delivery.check_names(env_var, out_format)
        if key == "-" and key_stdin:
            raise UsageError("KEY - and --key-stdin both read stdin", hint="use --key-file")
        supplied = None
        if key_stdin or key_file:
            what = "--key-stdin" if key_stdin else "--key-file"
            supplied = inputs.read_key("-" if key_stdin else str(key_file), what=what)
        _rotate_one(
            session,
            RotateOrder(
                given=named(key), grace=lasting, supplied=supplied, administers=administers
            ),
            deliver,
            out_file,
            out_format,
            force,
            env_var,
        )


def _rotate_many(
    session: Session,
    given: "Sequence[str]",
    grace: "Grace | None",
    deliver: str | None,
    administers: bool,
    *,
    dry_run: bool,
    yes: bool,
    filtered: bool,
) -> None:
    """Rotate several keys, each to its sink; all are judged before the first is rotated."""
    from keyctl.services.rotate.many import ManyRotationsService

    service = ManyRotationsService(
        workspace=session.workspace, grace=grace, sink=deliver, administers=administers
    )
    keys = service.judge(given)
    if dry_run:
        if session.speaks_json:
            session.show_json({"would": "rotate", "keys": [key.id for key in keys]})
        else:
            session.console.write("".join(f"would rotate {key.id}\n" for key in keys))
        return
    confirm(session, "rotate", given, yes=yes, filtered=filtered)
    results: list[dict[str, Any]] = []
    with counted(
        session.console,
        "rotating",
        len(keys),
        go_on="run it again for the rest",
        lines=True,
    ) as step:
        for done in service.rotate(keys):
            step(1)
            word = "rotated" if done.error is None else "failed"
            reason = None if done.error is None else done.error.code
            own = {"key_id": done.key.id, "key_alias": done.key.key_alias}
            results.append({**own, "result": word, "reason": reason, **(done.answer or {})})
            if session.output == "jsonl":
                session.console.lines(results[-1:])
            elif not session.wants_json:
                why = "" if done.error is None else f" ({done.error.message})"
                session.console.outcome(
                    f"{done.key.key_alias or done.key.id}: {word}{why}", failed=bool(why)
                )
    if session.wants_json:
        session.console.json({"results": results})
    warn_of_issued(session, _lost_at_once(results))
    failed = sum(item["result"] == "failed" for item in results)
    if failed:
        raise BatchError(f"{failed} of {len(keys)} keys failed", hint="the results say why")


def _rotate_one(
    session: Session,
    order: "RotateOrder",
    deliver: str | None,
    out_file: str | None,
    out_format: str,
    force: bool,
    env_var: str,
) -> None:
    from keyctl.services.keys.read import KeyService
    from keyctl.services.rotate.one import RotateService

    about = None
    if session.console.is_terminal or (deliver is None and out_file is None):
        about = KeyService(session.workspace).info(order.given)
    if about is not None and deliver is None and out_file is None:
        deliver = about["sink"]
    sink = delivery.sink_for(
        session, deliver, out_file, out_format, force=force, env_var=env_var, about=about
    )
    answer = RotateService(session.workspace).rotate(order, sink)
    delivery.show_answer(session, answer, sink, about=about)
    warn_of_issued(session, _lost_at_once([answer]))


def _lost_at_once(answers: "Sequence[dict[str, Any]]") -> list[str]:
    """Return the ids of the keys whose old secret works no more, as of one that leaked."""
    return [
        answer["key_id"]
        for answer in answers
        if (answer.get("old_secret") or {}).get("state") == "revoked"
    ]


def _rotate_due(
    session: Session,
    grace: "Grace | None",
    most: int | None,
    deadline: str | None,
    *,
    dry_run: bool,
    fail_if_due: bool,
) -> None:
    from keyctl import durations
    from keyctl.services.rotate.due import DueOrder, DueService

    length = None if deadline is None else durations.parse_duration(deadline).longest()
    service = DueService(session.workspace)
    if dry_run:
        counts = _show_lines(session, service.list_due(most=most))
        session.console.note(f"{counts['due']} due")
        if fail_if_due and counts["due"]:
            raise typer.Exit(ExitCode.ASKED_FOR)
        return
    with stoppable() as stopped:
        order = DueOrder(grace=grace, most=most, deadline=length, stopped=stopped)
        lines = service.rotate_due(order)
        if session.output == "auto" and session.console.is_terminal:
            lines = _with_progress(lines, service.count())
        counts = _show_lines(session, lines)
    if not any(counts.values()) and session.console.is_terminal:
        session.console.note("no key is due")
    elif any(counts.values()):
        session.console.note(
            f"{counts['rotated']} rotated, {counts['skipped']} skipped, {counts['failed']} failed"
        )
    if counts["failed"]:
        raise BatchError(
            f"{screen.count(counts['failed'], 'key')} failed", hint="the lines say which and why"
        )
    if stopped():
        done = sum(counts.values())
        session.console.fault(f"interrupted: rotating: {done} done; run it again for the rest")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if fail_if_due and any(line.result == "due" for line in service.list_due()):
        raise typer.Exit(ExitCode.ASKED_FOR)


def _with_progress(lines: "Iterator[DueLine]", total: int) -> "Iterator[DueLine]":
    """Draw a bar while the keys are rotated, and give the lines when it is done."""
    collected = []
    with progress("rotating", total) as advance:
        for line in lines:
            collected.append(line)
            advance()
    yield from collected


def _show_lines(session: Session, lines: "Iterable[DueLine]") -> dict[str, int]:
    counts = {"rotated": 0, "skipped": 0, "failed": 0, "due": 0}
    collected: list[dict[str, Any]] = []
    for line in lines:
        counts[line.result] += 1
        if session.output == "jsonl":
            session.console.lines([asdict(line)])
        elif session.wants_json:
            collected.append(asdict(line))
        else:
            named_as = f" ({line.key_alias})" if line.key_alias else ""
            why = f": {line.reason}" if line.reason else ""
            text = f"{line.key_id}{named_as} {line.result}{why}"
            session.console.outcome(text, failed=line.result == "failed")
    if session.wants_json:
        anchor = next((view["audit"] for view in reversed(collected) if view["audit"]), None)
        session.console.json({"results": collected, "audit": anchor})
    return counts
