"""Options and arguments read without Typer's adapters: each value is what Typer would have made of it."""

from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperCommand

from keyctl.cli.helping import Named

Told = list[dict[str, Any]]
LINES = (
    "one",
    "one two three",
    "one --text x --flag --number 3 --many a --many b",
    "one two --text= --no-flag --late",
    "one --shout x",
    "one --shout=",
    "",
    "one --number 6",
    "one --number x",
    "one --text",
)


def shouted(value: str | None) -> str | None:
    """Return text in capitals."""
    return None if value is None else value.upper()


def told_by(kind: type[TyperCommand], line: str) -> Any:
    """Return what a command of this class is called with, or how it refuses."""
    told: Told = []
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command(cls=kind)
    def run(
        first: str,
        others: Annotated[list[str] | None, typer.Argument()] = None,
        text: str | None = None,
        flag: bool | None = None,
        late: Annotated[bool, typer.Option("--late")] = False,
        number: Annotated[int, typer.Option(max=5)] = 1,
        many: Annotated[list[str] | None, typer.Option()] = None,
        shout: Annotated[str | None, typer.Option(callback=shouted)] = None,
    ) -> None:
        told.append({name: value for name, value in locals().items() if name != "told"})

    try:
        typer.main.get_command(app).main(args=line.split(), standalone_mode=False)
    except typer.TyperException as error:
        return type(error).__name__, error.format_message()
    return told


@pytest.mark.parametrize("line", LINES)
def test_a_value_is_what_typer_makes_of_it(line: str) -> None:
    """Text, texts, flags, numbers, defaults and what a callback makes of them; a wrong one is refused alike."""
    assert told_by(Named, line) == told_by(TyperCommand, line)
