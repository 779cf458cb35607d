"""keyctl generate."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyctl.cli import fields, inputs
from keyctl.cli.command import command
from keyctl.cli.session import Session
from keyctl.errors import UsageError

if TYPE_CHECKING:
    from keyctl.requests import GenerateRequest
    from keyctl.services.generate import Order
    from keyctl.sinks.base import Sink

OUTPUTS = ("auto", "json", "jsonl", "key", "env", "table")


def add_to(app: typer.Typer) -> None:
    """Declare the command."""

    @command(app, "generate", fields=fields.GENERATE, outputs=OUTPUTS)
    def generate(
        session: Session,
        document: dict[str, Any],
        request: Annotated[
            str | None,
            typer.Option("--request", help="LiteLLM's JSON body: a file, or - for stdin."),
        ] = None,
        key_stdin: Annotated[
            bool, typer.Option("--key-stdin", help="Take the key string from stdin.")
        ] = False,
        key_file: Annotated[
            str | None, typer.Option("--key-file", help="Take the key string from a file.")
        ] = None,
        service_account: Annotated[
            bool, typer.Option("--service-account", help="A key of the team, and of no user.")
        ] = False,
        request_id: Annotated[
            str | None,
            typer.Option("--request-id", help="Never makes a second key, however often."),
        ] = None,
        count: Annotated[
            int | None,
            typer.Option("--count", min=1, max=100_000, help="Make many: --alias ci-{n}."),
        ] = None,
        out_file: Annotated[
            str | None, typer.Option("--out-file", help="Write the key there, mode 0600.")
        ] = None,
        out_format: Annotated[
            str, typer.Option("--out-format", help="key|json|env for --out-file.")
        ] = "key",
        force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
        env_var: Annotated[
            str, typer.Option("--env-var", help="The name that env output sets.")
        ] = "OPENAI_API_KEY",
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show the whole verdict and write nothing.")
        ] = False,
        override: Annotated[
            list[str] | None, typer.Option("--override", help="Step over this rule; repeatable.")
        ] = None,
        reason: Annotated[str | None, typer.Option("--reason", help="Why, for --override.")] = None,
    ) -> None:
        """Create a key and deliver its secret once.

        KEY=$(keyctl generate --team web --max-budget 50) works; --out-file keeps it off the screen.
        """
        from keyctl.services.generate import Order

        if override and not reason:
            raise UsageError("--override needs --reason", hint="say why, for the audit trail")
        _check_names(request_id, env_var, out_format)
        order = Order(
            request=_request(document, request, key_stdin=key_stdin, key_file=key_file),
            service_account=service_account,
            request_id=request_id,
            overrides=tuple(override or ()),
            reason=reason,
            replay="answer" if session.wants_json else "refuse",
        )
        if dry_run:
            _show_verdict(session, order)
        elif count is not None:
            from keyctl.cli import bulk

            bulk.generate_many(
                session,
                order,
                count,
                out_file=out_file,
                out_format=out_format,
                force=force,
            )
        else:
            sink = _sink(session, out_file, out_format, force=force, env_var=env_var)
            _generate(session, order, sink)


def _request(
    document: dict[str, Any], source: str | None, *, key_stdin: bool, key_file: str | None
) -> "GenerateRequest":
    from keyctl.requests import GenerateRequest, validate

    if key_stdin and key_file:
        raise UsageError("give either --key-stdin or --key-file", hint="a key has one source")
    if key_stdin and source == "-":
        raise UsageError(
            "--request - and --key-stdin both read stdin", hint="use --key-file for one of them"
        )
    body = inputs.read_document(source, what="the request") if source else {}
    body = {**body, **document}
    if key_stdin or key_file:
        what = "--key-stdin" if key_stdin else "--key-file"
        body["key"] = inputs.read_key("-" if key_stdin else str(key_file), what=what)
    return validate(GenerateRequest, body, what="the request")


def _check_names(request_id: str | None, env_var: str, out_format: str) -> None:
    if request_id is not None and not (1 <= len(request_id) <= 255 and request_id.isprintable()):
        raise UsageError("--request-id takes 1 to 255 printable characters", hint="such as a UUID")
    if not (env_var.isidentifier() and env_var.isascii()):
        raise UsageError("--env-var takes the name of a variable", hint="such as OPENAI_API_KEY")
    if out_format not in ("key", "json", "env"):
        raise UsageError(f"there is no --out-format {out_format!r}", hint="give key, json or env")


def _sink(
    session: Session, out_file: str | None, form: Any, *, force: bool, env_var: str
) -> "Sink":
    """Return where the key goes: the file, or what stdout is and was asked to show."""
    from keyctl.sinks.base import Parcel, rendered
    from keyctl.sinks.stdout import StdoutSink

    console, output = session.console, session.output
    if out_file is not None:
        from keyctl.services.replacing import replaceable
        from keyctl.sinks.file import FileSink

        if session.wants_json:
            console.require_stdout()
        return FileSink(
            Path(out_file),
            form=form,
            force=force,
            replaceable=replaceable(session.workspace),
            env_var=env_var,
        )
    if output == "table" or (output == "auto" and console.is_terminal):
        from keyctl.cli.panel import key_panel

        return StdoutSink(
            "stdout",
            lambda parcel: key_panel(parcel.answer, parcel.key, console).encode(),
            is_open=console.has_stdout,
        )

    def render(parcel: Parcel) -> bytes:
        if output in ("json", "jsonl"):
            from keyctl import jsontext

            answer = {"key": parcel.key.reveal(), **parcel.answer}
            return f"{jsontext.dumps(answer, indent=2 if output == 'json' else None)}\n".encode()
        return rendered(parcel, "env" if output == "env" else "key", env_var=env_var)

    return StdoutSink("stdout", render, is_open=console.has_stdout)


def _generate(session: Session, order: "Order", sink: "Sink") -> None:
    from keyctl.services.generate import GenerateService

    console = session.console
    outcome = GenerateService(session.workspace).generate(order, sink)
    answer = outcome.answer
    for warning in answer.get("warnings", ()):
        console.note(f"warning: {warning}")
    if outcome.replayed or not sink.shows_answer:
        if session.wants_json:
            console.json(answer)
        elif session.output == "auto" and console.is_terminal:
            from keyctl.cli.panel import key_panel

            console.write(key_panel(answer, None, console))
    if not (session.output == "auto" and console.is_terminal) and session.output in (
        "auto",
        "key",
        "env",
    ):
        console.note(_summary(answer, sink))


def _summary(answer: dict[str, Any], sink: "Sink") -> str:
    named = f" ({answer['key_alias']})" if answer["key_alias"] else ""
    until = f", expires {answer['expires']:%Y-%m-%dT%H:%M:%SZ}" if answer["expires"] else ""
    filled = "".join(
        f"\nfilled in: {item['field']} = {item['value']} ({item['source']})"
        for item in answer.get("filled", ())
    )
    where = "" if sink.shows_answer else f", written to {sink.name.removeprefix('file:')}"
    return f"key {answer['key_id']}{named}: {answer['key_name']}{until}{where}{filled}"


def _show_verdict(session: Session, order: "Order") -> None:
    from keyctl import views
    from keyctl.services.generate import GenerateService

    verdict = GenerateService(session.workspace).dry_run(order)
    record = views.key_view(verdict.key, now=verdict.key.created_at)
    for name in ("key_id", "token", "token_id", "key_name"):
        record[name] = None  # made when the key is
    report = {
        "allowed": not verdict.violations,
        "violations": [asdict(item) for item in verdict.violations],
        "record": record,
        "filled": [asdict(item) for item in verdict.filled],
        "overridden": [asdict(item) for item in verdict.stepped_over],
    }
    if session.wants_json:
        session.console.json(report)
    else:
        from keyctl.cli.panel import verdict_text

        session.console.write(verdict_text(report))
    if verdict.violations:
        raise typer.Exit(4)
