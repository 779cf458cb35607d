"""Complete what a shell asks about: closed sets, and names from the database, fast or not at all."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import typer

_PATIENCE: Final = 1.0
_MOST: Final = 50

Complete = Callable[[str], list[str]]


def words(known: Sequence[str]) -> Complete:
    """Return what completes a word of a closed set."""
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]


def aliases(incomplete: str) -> list[str]:
    """Return the aliases of keys that begin so, and that the caller may see."""

    def ask(workspace: Any) -> list[str]:
        from keyctl.db.queries import KeyFilter
        from keyctl.services.keys.read import KeyService

        wanted = KeyFilter(key_alias=f"{incomplete}*")
        page, _ = KeyService(workspace).page(wanted, after=None, limit=_MOST)
        return [key["key_alias"] for key in page]

    return _asked(ask)


def owners(kind: str) -> Complete:
    """Return what completes the id of a team, user or organization."""

    def complete(incomplete: str) -> list[str]:
        def ask(workspace: Any) -> list[str]:
            from keyctl import records
            from keyctl.services.directory import DirectoryService

            return DirectoryService(workspace).beginning(
                getattr(records, kind), incomplete, limit=_MOST
            )

        return _asked(ask)

    return complete


def own_id(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of what the command is about: teams for `keyctl team …`."""
    kinds = {"team": "Team", "user": "User", "org": "Organization"}
    noun = next((word for word in ctx.command_path.split() if word in kinds), "team")
    return owners(kinds[noun])(incomplete)


def sinks(incomplete: str) -> list[str]:
    """Return the sinks of the configuration that begin so."""
    return _asked(
        lambda workspace: [n for n in workspace.settings.sinks if n.startswith(incomplete)]
    )


def states(incomplete: str) -> list[str]:
    """Return the states of keys that begin so."""
    from keyctl.lifecycle import KEY_STATES

    return words(KEY_STATES)(incomplete)


def schemas(incomplete: str) -> list[str]:
    """Return what `keyctl schema` prints."""
    from keyctl.schemas import SCHEMAS

    return words(("rules", "fields", "routes", "authority", *SCHEMAS))(incomplete)


def actions(incomplete: str) -> list[str]:
    """Return the actions of the audit trail that begin so."""
    from keyctl.actions import ACTIONS

    return words(sorted(ACTIONS))(incomplete)


BY_OPTION: Final[dict[str, Complete]] = {
    "--team": owners("Team"),
    "--user": owners("User"),
    "--org": owners("Organization"),
    "--alias": aliases,
    "--key": aliases,
    "--deliver": sinks,
    "--state": states,
    "--action": actions,
    "--out-format": words(("key", "json", "env")),
}
BY_ARGUMENT: Final[dict[str, Callable[..., list[str]]]] = {
    "KEY": aliases,
    "KEY…": aliases,
    "USER": owners("User"),
    "TEAM": owners("Team"),
    "ID": own_id,
    "NAME": schemas,
}


def completes(info: Any) -> Callable[..., list[str]] | None:
    """Return what completes an option or argument as it is declared, None where nothing does."""
    # In an annotation Typer takes an option's first name for its default.
    for name in (info.default, *(info.param_decls or ())):
        if isinstance(name, str) and name in BY_OPTION:
            return BY_OPTION[name]
    return BY_ARGUMENT.get(info.metavar or "")


def _asked(ask: Callable[[Any], list[str]]) -> list[str]:
    """Ask the database as the command would; nothing where that fails or takes too long."""
    with suppress(Exception), _hurried():
        from keyctl.cli.console import Console
        from keyctl.cli.given import OUTPUTS
        from keyctl.cli.session import Common, Session

        nothing = Common(
            output=None,
            database_url=None,
            config=None,
            caller_key_file=None,
            changed_by=None,
            quiet=True,
        )
        with Session(nothing, Console("auto", frozenset(), is_terminal=False), OUTPUTS) as session:
            session.restrict((), {})
            return ask(session.workspace)
    return []


@contextmanager
def _hurried() -> Iterator[None]:
    def give_up(_number: int, _frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
