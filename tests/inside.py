"""keyctl in this process: the same command lines without the price of a start, on a chosen screen."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from harness import Result

from keyctl.cli.app import run


class Inside:
    """Runs command lines in this process, in a pipe or as if on a terminal."""

    def __init__(self, capture: pytest.CaptureFixture[str], environment: Mapping[str, str]) -> None:
        self.capture = capture
        self.environment = dict(environment)

    def __call__(
        self,
        *arguments: str,
        terminal: int | None = None,
        check: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command line; *terminal* is the width of the screen, None a pipe."""
        self.capture.readouterr()
        extra = {"COLUMNS": str(terminal), "TERM": "xterm"} if terminal else {}
        with _environment({**self.environment, **extra, **(environment or {})}), _screen(terminal):
            try:
                status = run(list(arguments), closed=frozenset())
            except SystemExit as ended:  # as Typer ends a completion
                status = int(ended.code or 0)
        out, err = self.capture.readouterr()
        if check and status != 0:
            raise AssertionError((arguments, status, out, err))
        return Result(status, out, err)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _screen(width: int | None) -> Iterator[None]:
    """Make stdout a screen of this width for the command."""
    with pytest.MonkeyPatch.context() as patch:
        if width is not None:
            patch.setattr(os, "isatty", lambda number: number == 1)
            patch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((width, 40)))
        yield
