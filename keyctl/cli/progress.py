"""Show a progress bar on stderr to whoever watches a terminal; show nothing in a pipe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyctl.cli.console import Console


@contextmanager
def progress(title: str, total: int, *, wanted: bool = True) -> Iterator[Callable[..., None]]:
    """Show a bar while the block runs; what it gives counts one further, or as many as it is told."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda _count=1: None
        return
    from rich.console import Console as RichConsole
    from rich.progress import Progress

    with Progress(console=RichConsole(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count=1: bar.advance(task, count)


@contextmanager
def counted(
    console: "Console", title: str, total: int, *, go_on: str, lines: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block works through *total* items, and on Ctrl-C say how far it came.

    What it gives counts so many further; *go_on* says what to type to do the rest.  Where each
    item gets one of the *lines* on stdout, these are progress enough on a terminal.
    """
    done = 0
    # A bar and lines on the same screen end up on one line.
    seen = lines and console.is_terminal
    with progress(title, total, wanted=total > 1 and not (console.quiet or seen)) as advance:

        def step(count: int) -> None:
            nonlocal done
            done += count
            advance(count)

        try:
            yield step
        except KeyboardInterrupt:
            if total > 1:
                console.fault(f"interrupted: {title}: {done} of {total} done; {go_on}")
            raise
