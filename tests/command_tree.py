"""All commands that there are, from the program itself."""

from collections.abc import Iterator
from typing import Any

import typer

from keyctl.cli.app import app


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with the words that name it."""
    group = group or typer.main.get_command(app)
    for name in group.commands:
        command, words = group.commands[name], f"{path} {name}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, words)
        else:
            yield words, command
