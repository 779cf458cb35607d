"""Declare a command: the options that all share, and the options made from key fields."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import typer

from keyctl.cli import choosing, completion, listing
from keyctl.cli.choices import require_one_of
from keyctl.cli.helping import Described
from keyctl.cli.listing import Page
from keyctl.cli.meant import CommandGroup
from keyctl.cli.session import Common, Session
from keyctl.cli.tables import Layout
from keyctl.errors import UsageError

Kind = Literal["text", "moment", "number", "money", "list", "pairs", "scalars", "flag"]

_TYPES: dict[str, Any] = {
    "text": str | None,
    "moment": str | None,
    "number": int | None,
    "money": str | None,
    "list": list[str] | None,
    "pairs": list[str] | None,
    "scalars": list[str] | None,
    "flag": bool | None,
}


@dataclass(frozen=True, slots=True)
class FieldOption:
    """An option that sets one field of a request."""

    field: str
    flags: str
    kind: Kind
    help: str
    choices: tuple[str, ...] = ()

    @property
    def parameter(self) -> str:
        """Return the name of the function's parameter."""
        return f"field_{self.flags.split('/')[0].lstrip('-').replace('-', '_')}"


def declare_group(app: typer.Typer, name: str, words: str) -> typer.Typer:
    """Declare a group of commands; *words* say what they are about.

    Pretty exceptions would print the values of variables, key strings among them.
    """
    group = typer.Typer(
        cls=CommandGroup,
        help=words,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.add_typer(group, name=name)
    return group


def command(
    app: typer.Typer,
    name: str,
    *,
    fields: Sequence[FieldOption] = (),
    outputs: Sequence[str] = ("auto", "json", "table"),
    layout: Layout | None = None,
    limit: int = 100,
    reads: bool | None = None,
    words: str | None = None,
    chooses: bool = False,
    without: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a command whose function takes a `Session` first.

    It takes a `document` if it has *fields*, a `page` if it is a list with a *layout*, and a filter
    `wanted` if it *chooses* many keys, beside `team`, `user`, `org` and `state` of its own.  With
    *reads*, as lists do, it changes nothing: a reader that closes stdout early ends it without a word.
    Its help is *words*, or the function's docstring.  Parameters of the function *without* which the
    command is declared have their default there: so one function serves nouns that differ.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        own = [item for item in own if item.name not in ("document", "page", "wanted", *without)]
        forms = listing.OUTPUTS if layout else outputs
        paging = listing.options(layout, limit=limit) if layout else []
        shared = _shared(forms)
        options = [_option(item) for item in fields]
        picking = choosing.options(sets=bool(fields)) if chooses else []

        def run(context: typer.Context, **values: Any) -> None:
            refuse_empty([*own, *picking, *paging, *shared], values)
            given = dict(values)
            common = Common(**{item.name: values.pop(item.name) for item in shared})
            arguments = {item.name: values[item.name] for item in own}
            if layout:
                arguments["page"] = Page(**{item.name: values[item.name] for item in paging})
            console = replace(
                context.obj,
                reads=layout is not None if reads is None else reads,
                quiet=bool(common.quiet),
            )
            can_override = any(item.name == "override" for item in own)
            with Session(common, console, forms, can_override=can_override) as session:
                session.restrict([*own, *picking, *paging, *shared], given)
                if chooses:
                    arguments["wanted"] = choosing.filter_of(session, values)
                if fields:
                    arguments["document"] = document_of(session, fields, values)
                function(session, **arguments)

        _let_typer_read(run, [*own, *picking, *options, *paging, *shared])
        run.__doc__ = words or function.__doc__
        run.__name__ = function.__name__
        app.command(name, cls=Described)(run)
        return function

    return declare


def _let_typer_read(run: Callable[..., Any], options: Sequence[inspect.Parameter]) -> None:
    """Give *run*, which takes whatever comes, the parameters that Typer makes options of."""
    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    named = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in options]
    for item in named:
        info = item.annotation.__metadata__[0]
        info.autocompletion = info.autocompletion or completion.completes(info)
    signature = inspect.Signature([context, *named])
    run.__signature__ = signature  # type: ignore[attr-defined]  # Typer reads it
    run.__annotations__ = {item.name: item.annotation for item in (context, *named)}


def refuse_empty(parameters: Sequence[inspect.Parameter], values: dict[str, Any]) -> None:
    """Refuse options and arguments that are given but empty: most likely an unset shell variable.

    Those that set a field are not among *parameters*: there an empty string can mean null.

    Raises:
        UsageError: One is.
    """
    for item in parameters:
        value = values[item.name]
        if value == "" or (isinstance(value, list) and "" in value):
            info = item.annotation.__metadata__[0]
            # In an annotation Typer takes an option's first name for its default.
            name = info.metavar or info.default
            raise UsageError(f"{name} is empty", hint="leave it out, or give it a value")


def document_of(
    session: Session, fields: Sequence[FieldOption], values: dict[str, Any]
) -> dict[str, Any]:
    """Return the request fields that the options in *values* set.

    Raises:
        UsageError: A value does not have the option's form.
    """
    document: dict[str, Any] = {}
    for item in fields:
        value = values[item.parameter]
        if value is None or value == []:
            continue
        if item.choices and value != "":
            require_one_of(value, item.choices, what=item.flags)
        if item.kind == "moment":
            moment = session.moment(value, "ahead")
            document[item.field] = None if moment is None else moment.isoformat()
        else:
            document[item.field] = _converted(item, value, document.get(item.field))
    return document


def cleared(fields: Sequence[FieldOption], names: Sequence[str] | None) -> dict[str, None]:
    """Return the fields that --clear names, each by its own name or its option's."""
    by_option = {flag.lstrip("-"): item.field for item in fields for flag in item.flags.split("/")}
    return {by_option.get(name.lstrip("-"), name): None for name in names or ()}


def _converted(item: FieldOption, value: Any, before: Any) -> Any:
    if item.kind == "money":
        from keyctl import money

        return money.dollars(money.parse_money(value))
    if item.kind == "list":
        # `--models a,b` takes several at once; the repeatable ones take each as it is.
        split = (
            [part for text in value for part in text.split(",")]
            if "models" in item.flags
            else value
        )
        return [*(before or []), *split]
    if item.kind in ("pairs", "scalars"):
        return _pairs(item, value)
    return value


def _pairs(item: FieldOption, values: Sequence[str]) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{item.flags} takes NAME=VALUE", hint=f"such as {item.flags} app=web")
        if name in pairs:
            raise UsageError(f"{item.flags} names {name!r} twice", hint="give each name once")
        pairs[name] = (
            {"true": True, "false": False}.get(value, value) if item.kind == "scalars" else value
        )
    return pairs


def _option(item: FieldOption) -> inspect.Parameter:
    words = item.help or f"{'|'.join(item.choices)}."
    option = typer.Option(item.flags, help=words, show_default=False)
    if item.choices:
        option.autocompletion = completion.words(item.choices)
    return inspect.Parameter(
        item.parameter,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_TYPES[item.kind], option],
    )


def _shared(outputs: Sequence[str]) -> list[inspect.Parameter]:
    declared: list[tuple[str, tuple[str, ...], str]] = [
        ("output", ("--output", "-o"), f"{'|'.join(outputs)} (KEYCTL_OUTPUT)."),
        ("database_url", ("--database-url",), "The database (KEYCTL_DATABASE_URL)."),
        ("config", ("--config",), "The configuration file (KEYCTL_CONFIG)."),
        ("caller_key_file", ("--caller-key-file",), "Act as the owner of the key in this file."),
        ("changed_by", ("--changed-by",), "On whose behalf, for the audit trail."),
    ]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    *flags,
                    help=text,
                    show_default=False,
                    autocompletion=completion.words(outputs) if name == "output" else None,
                ),
            ],
        )
        for name, flags, text in declared
    ] + [
        inspect.Parameter(
            "quiet",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[
                bool, typer.Option("--quiet", "-q", help="Only failures speak, for cron.")
            ],
        )
    ]
