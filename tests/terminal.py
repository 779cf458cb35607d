"""Run the program on a terminal, and read what a person sees there."""

import re

import pexpect
from harness import KEYCTL, Cli


def spawn(cli: Cli, *arguments: str, columns: int, **environment: str) -> "pexpect.spawn[str]":
    """Start keyctl, in a process of its own, on a terminal of this width."""
    return pexpect.spawn(
        KEYCTL[0],
        [*KEYCTL[1:], *arguments],
        env={**cli.environment, "TERM": "xterm", **environment},
        cwd=str(cli.home),
        dimensions=(50, columns),
        encoding="utf-8",
        timeout=60,
    )


def shown_to_end(child: "pexpect.spawn[str]") -> tuple[str, int | None]:
    """Wait for the end of the program; return what it wrote since it was last expected, and its status."""
    child.expect(pexpect.EOF)
    child.close()
    return (child.before or "").replace("\r\n", "\n"), child.exitstatus


def on_terminal(cli: Cli, *arguments: str, columns: int, **environment: str) -> str:
    """Return what keyctl, which succeeds, writes to a terminal of this width."""
    shown, status = shown_to_end(spawn(cli, *arguments, columns=columns, **environment))
    assert status == 0, shown
    return shown


def uncoloured(text: str) -> str:
    """Return *text* without escape sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
