"""Declare keyctl generate."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyctl.cli import delivery, fields, inputs
from keyctl.cli.choices import require_reason
from keyctl.cli.command import command
from keyctl.cli.panel import show_verdict
from keyctl.cli.session import Session
from keyctl.errors import UsageError
from keyctl.names import is_name

if TYPE_CHECKING:
    from keyctl.requests import GenerateRequest
    from keyctl.services.issue.order import Order
    from keyctl.sinks.base import Sink

OUTPUTS = ("auto", "json", "jsonl", "key", "env", "table", "github")
VERDICTS = ("auto", "json", "jsonl", "table")


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
        key_stdin: delivery.KeyStdin = False,
        key_file: delivery.KeyFile = None,
        service_account: Annotated[
            bool, typer.Option("--service-account", help="A key of the team, and of no user.")
        ] = False,
        request_id: Annotated[
            str | None,
            typer.Option(
                "--request-id",
                help="The same id never makes a second key, however often it is given.",
            ),
        ] = None,
        count: Annotated[
            int | None,
            typer.Option(
                "--count",
                min=1,
                max=100_000,
                help="Make this many keys; {n} numbers them: --alias ci-{n}.",
            ),
        ] = None,
        source: Annotated[
            str | None,
            typer.Option("--from", help="A key for each row: FILE.csv, FILE.jsonl, or -."),
        ] = None,
        out_dir: Annotated[
            str | None,
            typer.Option(
                "--out-dir", help="With --from: a file for each key, in a folder of 0700."
            ),
        ] = None,
        out_file: delivery.OutFile = None,
        out_format: delivery.OutFormat = "key",
        deliver: Annotated[
            str | None,
            typer.Option("--deliver", help="Hand it to this sink, now and at rotations."),
        ] = None,
        force: delivery.Force = False,
        env_var: delivery.EnvVar = "OPENAI_API_KEY",
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show the whole verdict and write nothing.")
        ] = False,
        override: Annotated[
            list[str] | None,
            typer.Option(
                "--override", help="Step over this rule (see keyctl schema rules); repeatable."
            ),
        ] = None,
        reason: Annotated[str | None, typer.Option("--reason", help="Why, for --override.")] = None,
    ) -> None:
        """Create a key and deliver its secret once.

        KEY=$(keyctl generate --team web --max-budget 50) works; --out-file keeps it off the screen.
        """
        require_reason(reason)
        if override and not reason:
            raise UsageError("--override needs --reason", hint="say why, for the audit trail")
        if request_id is not None and not is_name(request_id):
            raise UsageError(
                "--request-id takes 1 to 255 printable characters, not only blanks",
                hint="such as a UUID",
            )
        delivery.check_names(env_var, out_format)
        if source is not None or out_dir is not None:
            _check_rows(
                source, out_file, deliver, count, request, request_id, key_stdin or key_file
            )
            from keyctl.cli.rows import generate_rows

            shared = {**document, **({"service_account": True} if service_account else {})}
            generate_rows(
                session,
                str(source),
                shared,
                out_dir=out_dir,
                dry_run=dry_run,
                overrides=tuple(override or ()),
                reason=reason,
            )
            return
        if not (dry_run or count or key_stdin or key_file):
            session.mint_ahead()
        from keyctl.services.issue.order import Order

        order = Order(
            request=_request(document, request, key_stdin=key_stdin, key_file=key_file),
            service_account=service_account,
            request_id=request_id,
            overrides=tuple(override or ()),
            reason=reason,
            sink=deliver,
            replay="answer" if session.speaks_json or deliver else "refuse",
        )
        if count is not None and deliver is not None:
            raise UsageError(
                "--count makes keys for stdout or one file, not for a sink",
                hint="keyctl generate --from FILE.csv, with a column deliver, hands each to its sink",
            )
        if dry_run:
            session.require_output(VERDICTS, what="--dry-run")
            if count is not None:
                from keyctl.cli import bulk

                bulk.judge_many(session, order, count)
                return
            from keyctl.services.issue.generate import GenerateService

            show_verdict(session, GenerateService(session.workspace).dry_run(order), new=True)
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
            sink = delivery.sink_for(
                session, deliver, out_file, out_format, force=force, env_var=env_var
            )
            _generate(session, order, sink)


def _check_rows(source: str | None, *others: object) -> None:
    """Refuse what a list of keys cannot be combined with.

    Raises:
        UsageError: Something of it is given.
    """
    if source is None:
        raise UsageError("--out-dir goes with --from", hint="--out-file is for one key")
    if any(other for other in others):
        raise UsageError(
            "--from takes its keys from rows: no --out-file, --deliver, --count, --request,"
            " --request-id or key string beside it",
            hint="--out-dir writes a file for each key; a row names its sink in the column deliver",
        )


def _request(
    document: dict[str, Any], source: str | None, *, key_stdin: bool, key_file: str | None
) -> "GenerateRequest":
    from keyctl.fields import validate
    from keyctl.requests import GenerateRequest

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


def _generate(session: Session, order: "Order", sink: "Sink") -> None:
    from keyctl.services.issue.generate import GenerateService

    outcome = GenerateService(session.workspace).generate(order, sink)
    if not session.speaks_json:  # the answer has them
        for warning in outcome.answer.get("warnings", ()):
            session.console.warn(warning)
    delivery.show_answer(session, outcome.answer, sink, replayed=outcome.replayed)
