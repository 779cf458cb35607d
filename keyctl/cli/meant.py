"""Say in keyctl's words what Typer says in its own, and which command was meant."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from keyctl import nearest
from keyctl.cli.parameters import Owner
from keyctl.errors import UsageError

# What people type first, and what does it here.
_OF_KEYS: Final = {
    **dict.fromkeys(("create", "new", "add", "issue", "make", "mint", "gen"), "generate"),
    **dict.fromkeys(("ls", "keys"), "list"),
    **dict.fromkeys(("show", "get", "describe"), "info"),
    **dict.fromkeys(("rm", "remove", "del"), "delete"),
    **dict.fromkeys(("renew", "regenerate"), "rotate"),
    **dict.fromkeys(("disable", "suspend"), "block"),
    **dict.fromkeys(("enable", "resume"), "unblock"),
    **dict.fromkeys(("edit", "set", "change"), "update"),
    **dict.fromkeys(("check", "validate"), "verify"),
}
_OF_OTHERS: Final = {
    **dict.fromkeys(("new", "add", "make"), "create"),
    **{word: name for word, name in _OF_KEYS.items() if name not in ("generate", "verify")},
}
_SHOWN: Final = 40
_LIMIT: Final = re.compile(r"nput should be (greater|less) than or equal to (-?[0-9.]+)")


class CommandGroup(Owner, TyperGroup):
    """A group of commands that says which one was meant."""

    words: Mapping[str, str] = _OF_OTHERS

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first of *args* names.

        Raises:
            UsageError: There is none; the hint says which is like it.
        """
        word = args[0] if args else ""
        if word and not word.startswith("-") and word not in self.commands:
            path = ctx.command_path
            near = likest(word, list(self.commands), self.words)
            did_you = " or ".join(f"{path} {name}" for name in near)
            raise UsageError(
                f"there is no command {path} {word}",
                hint=f"did you mean {did_you}? try: {path} --help"
                if near
                else f"try: {path} --help",
            )
        return super().resolve_command(ctx, args)


class KeyGroup(CommandGroup):
    """The commands at the top, which are about keys."""

    words = _OF_KEYS


def likest(word: str, names: Sequence[str], others: Mapping[str, str]) -> list[str]:
    """Return which of *names* are meant by *word*: by a word that others use for it, else by its letters."""
    known = {other: name for other, name in others.items() if name in names}
    if word.lower() in known:
        return [known[word.lower()]]
    return [known.get(name, name) for name in nearest.nearest(word, [*names, *known])[:1]]


def plainly(error: typer.TyperException, arguments: Iterable[str], said: str) -> str:
    """Return what Typer *said*, of a wrong value in words that need no knowledge of Python."""
    param = getattr(error, "param", None)
    names = [*getattr(param, "opts", ()), *getattr(param, "secondary_opts", ())]
    if not names or "nput should be" not in said:
        return said
    name = max(names, key=len)
    given = _given(list(arguments), names)
    but = "" if given is None else f", not {given[:_SHOWN]!r}"
    if limit := _LIMIT.search(said):
        least = "at least" if limit[1] == "greater" else "at most"
        return f"{name} takes {least} {limit[2]}{but}"
    if "integer" in said:
        return f"{name} takes a whole number{but}"
    if "number" in said:
        return f"{name} takes a number{but}"
    return said


def _given(arguments: list[str], names: Sequence[str]) -> str | None:
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else next(iter(arguments[number + 1 : number + 2]), None)
    return None
