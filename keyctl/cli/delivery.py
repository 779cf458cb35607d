"""Choose where generate and rotate put a key string, and say that it is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl.cli.choices import require_one_of
from keyctl.cli.session import Session
from keyctl.cli.tables import cell
from keyctl.errors import UsageError

if TYPE_CHECKING:
    from keyctl.sinks.base import Parcel, Sink

_STEERING: Final = frozenset(
    [
        "BASHOPTS",
        "BASH_ENV",
        "CDPATH",
        "CLASSPATH",
        "EDITOR",
        "ENV",
        "FPATH",
        "GCONV_PATH",
        "GLOBIGNORE",
        "HISTFILE",
        "HOME",
        "HOSTALIASES",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "IFS",
        "LANG",
        "LANGUAGE",
        "LOCPATH",
        "LOGNAME",
        "MAIL",
        "MALLOC_TRACE",
        "MANPATH",
        "NLSPATH",
        "OLDPWD",
        "OPTARG",
        "OPTIND",
        "PAGER",
        "PATH",
        "PERLLIB",
        "POSIXLY_CORRECT",
        "PROMPT_COMMAND",
        "PS0",
        "PS1",
        "PS2",
        "PS3",
        "PS4",
        "PWD",
        "RESOLV_HOST_CONF",
        "RES_OPTIONS",
        "RUBYLIB",
        "RUBYOPT",
        "SHELL",
        "SHELLOPTS",
        "SHLVL",
        "TERM",
        "TERMCAP",
        "TERMINFO",
        "TERMPATH",
        "TMOUT",
        "TMPDIR",
        "TZ",
        "TZDIR",
        "UID",
        "EUID",
        "USER",
        "VISUAL",
        "ZDOTDIR",
        "_",
    ]
)
_STEERING_PREFIXES: Final = (
    "BASH_FUNC",
    "DYLD_",
    "GIT_",
    "GLIBC_",
    "JAVA_",
    "KEYCTL_DATABASE_URL",
    "KEYCTL_CONFIG",
    "LC_",
    "LD_",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NPM_CONFIG_",
    "OPENSSL_",
    "PERL5",
    "PG",
    "PIP_",
    "PYTHON",
    "SSL_CERT_",
    "SUDO_",
    "XDG_",
    "_JAVA_",
)
OutFile = Annotated[
    str | None, typer.Option("--out-file", help="Write the key there; a new file has mode 0600.")
]
OutFormat = Annotated[str, typer.Option("--out-format", help="key|json|env for --out-file.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file.")]
EnvVar = Annotated[str, typer.Option("--env-var", help="The name that env output sets.")]
KeyStdin = Annotated[bool, typer.Option("--key-stdin", help="Take the key string from stdin.")]
KeyFile = Annotated[str | None, typer.Option("--key-file", help="Take the key string from a file.")]


def check_names(env_var: str, out_format: str) -> None:
    """Refuse names that cannot be used.

    Raises:
        UsageError: One cannot.
    """
    if not (env_var.isidentifier() and env_var.isascii()):
        raise UsageError("--env-var takes the name of a variable", hint="such as OPENAI_API_KEY")
    if _changes_programs(env_var):
        raise UsageError(
            f"--env-var {env_var} changes how programs run, and is no place for a key",
            hint="such as OPENAI_API_KEY",
        )
    require_one_of(out_format, ("key", "json", "env"), what="--out-format")


def _changes_programs(name: str) -> bool:
    """Tell whether a variable of this name steers shells, loaders, interpreters or keyctl itself.

    Whoever sources or evals the line would run something else, or nothing at all.
    """
    return name.upper() in _STEERING or name.upper().startswith(_STEERING_PREFIXES)


def sink_for(
    session: Session,
    name: str | None,
    out_file: str | None,
    form: Any,
    *,
    force: bool,
    env_var: str,
    about: dict[str, Any] | None = None,
) -> "Sink":
    """Return where the key goes: the named sink, the file, or what stdout is and was asked to show.

    *about* is the key as it is known before, for the panel.

    Raises:
        UsageError: Both a sink and a file were given, or there is no such sink.
        DeliveryError: The answer should go to a closed stdout.
    """
    if name is not None and out_file is not None:
        raise UsageError("give either --deliver or --out-file", hint="a key goes to one place")
    if session.output == "github":
        return _github(session, name or out_file, env_var)
    if name is None and out_file is None:
        return _stdout(session, env_var, about or {})
    if session.speaks_json:
        session.console.require_stdout()
    if name is not None:
        from keyctl.services.delivery.sinks import named_sink

        return named_sink(session.workspace, name)
    from keyctl.services.delivery.overwrite import replaceable
    from keyctl.sinks.file import FileSink

    return FileSink(
        Path(out_file or ""),
        form=form,
        force=force,
        replaceable=replaceable(session.workspace),
        env_var=env_var,
        warn=session.workspace.warnings.append,
    )


def _github(session: Session, elsewhere: str | None, env_var: str) -> "Sink":
    import os

    from keyctl.sinks.github import GithubSink

    if elsewhere is not None:
        raise UsageError(
            f"-o github is a place for the key, and so is {elsewhere}",
            hint="a key goes to one place: leave one of them out",
        )
    return GithubSink(os.environ, env_var=env_var, is_open=session.console.has_stdout)


def _stdout(session: Session, env_var: str, about: dict[str, Any]) -> "Sink":
    from keyctl.sinks.base import rendered
    from keyctl.sinks.stdout import StdoutSink

    console, output = session.console, session.output

    def render(parcel: "Parcel") -> bytes:
        if output == "table" or (output == "auto" and console.is_terminal):
            from keyctl.cli.panel import key_panel

            return key_panel({**about, **parcel.answer}, parcel.key, console).encode()
        if output in ("json", "jsonl"):
            from keyctl import jsontext

            answer = {"key": parcel.key.reveal(), **parcel.answer}
            return f"{jsontext.dumps(answer, indent=2 if output == 'json' else None)}\n".encode()
        return rendered(parcel, "env" if output == "env" else "key", env_var=env_var)

    return StdoutSink("stdout", render, is_open=console.has_stdout)


def show_answer(
    session: Session,
    answer: dict[str, Any],
    sink: "Sink",
    *,
    replayed: bool = False,
    about: dict[str, Any] | None = None,
) -> None:
    """Show the answer where the sink did not, and in a pipe the summary on stderr.

    *about* is the key as it is known besides, for the panel.
    """
    console, on_terminal = session.console, session.console.is_terminal
    if replayed or not sink.shows_answer:
        if session.speaks_json:
            session.show_json(answer)
        elif session.output == "table" or (session.output == "auto" and on_terminal):
            from keyctl.cli.panel import key_panel

            place = None if sink.shows_answer else sink.name
            console.write(key_panel({**(about or {}), **answer}, None, console, place=place))
    if session.output in ("key", "env", "github") or (session.output == "auto" and not on_terminal):
        console.note(_summary(answer, sink))


def _summary(answer: dict[str, Any], sink: "Sink") -> str:
    named = f" ({answer['key_alias']})" if answer.get("key_alias") else ""
    public = answer.get("key_name") or f"sk-{answer['secret_id']}…"
    where = "" if sink.shows_answer else f", delivered to {sink.name.removeprefix('file:')}"
    lines = [f"key {answer['key_id']}{named}: {public}{where}"]
    if answer.get("expires"):
        lines.append(f"expires {answer['expires']:%Y-%m-%dT%H:%M:%SZ}")
    if old := answer.get("old_secret"):
        from keyctl.cli.panel import old_secret

        lines.append(old_secret(old, "%Y-%m-%dT%H:%M:%SZ"))
    lines += [
        f"filled in: {item['field']} = {cell(item['value'])} ({item['source']})"
        for item in answer.get("filled", ())
    ]
    return "\n".join(lines)
