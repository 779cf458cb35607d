"""keyctl in this process: the same command lines without the price of a start, on a chosen screen."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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
        input: bytes | None = None,  # noqa: A002  # subprocess's own name
        folder: Path | None = None,
    ) -> Result:
        """Run a command line, in a *folder*; *terminal* is the width of the screen, None a pipe."""
        self.capture.readouterr()
        extra = {"COLUMNS": str(terminal), "TERM": "xterm"} if terminal else {}
        surroundings = {**self.environment, **extra, **(environment or {})}
        with _environment(surroundings, folder), _screen(terminal), _stdin(input):
            try:
                status = run(list(arguments), closed=frozenset())
            except SystemExit as ended:  # as Typer ends a completion
                status = int(ended.code or 0)
            finally:
                gc.unfreeze()  # a command freezes what it imported, once in its life
        out, err = self.capture.readouterr()
        if check and status != 0:
            raise AssertionError((arguments, status, out, err))
        return Result(status, out, err)


@contextmanager
def _environment(values: Mapping[str, str], folder: Path | None) -> Iterator[None]:
    before, was_in, mask = dict(os.environ), os.getcwd(), os.umask(0o077)
    os.environ.clear()
    os.environ.update(values)
    os.chdir(folder or was_in)
    try:
        yield
    finally:
        os.chdir(was_in)
        os.umask(mask)
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _stdin(data: bytes | None) -> Iterator[None]:
    """Make *data* what the command reads from stdin."""
    if data is None:
        yield
        return
    kept, stream = os.dup(0), sys.stdin
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        os.dup2(file.fileno(), 0)
        try:
            with open(0, encoding="utf-8", errors="surrogateescape", closefd=False) as sys.stdin:
                yield
        finally:
            sys.stdin = stream
            os.dup2(kept, 0)
            os.close(kept)


@contextmanager
def _screen(width: int | None) -> Iterator[None]:
    """Make stdout a screen of this width for the command."""
    with pytest.MonkeyPatch.context() as patch:
        if width is not None:
            patch.setattr(os, "isatty", lambda number: number == 1)
            patch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((width, 40)))
        yield
