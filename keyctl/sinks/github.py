"""Hand the key string to a GitHub Actions job: masked first, then as an output and a variable of later steps."""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final

from keyctl.errors import DeliveryError, UsageError
from keyctl.sinks.base import NotTakenError, Parcel, Target
from keyctl.sinks.stdout import written

OUTPUT: Final = "GITHUB_OUTPUT"
ENVIRONMENT: Final = "GITHUB_ENV"
# Names that the runner sets itself, or obeys.
_RUNNERS: Final = ("ACTIONS_", "GITHUB_", "RUNNER_")
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class GithubSink:
    """Appends to the files that the runner reads after the step; what is in them stays.

    `key` and `key_id` are outputs of the step, and the key string is a variable of later steps.
    """

    name = "github"
    timeout = timedelta(0)
    shows_answer = False

    def __init__(self, environment: Mapping[str, str], *, env_var: str, is_open: bool) -> None:
        self._paths = {
            name: environment[name] for name in (OUTPUT, ENVIRONMENT) if environment.get(name)
        }
        self._env_var = env_var
        self._is_open = is_open

    def check(self, target: Target) -> None:
        """Refuse to begin outside a job, without a stdout for the mask, or with files that cannot take it."""
        if not self._paths:
            raise UsageError(
                f"-o github needs {OUTPUT} or {ENVIRONMENT}, which the runner sets",
                hint="elsewhere: -o env, or --out-file",
            )
        if self._env_var.upper().startswith(_RUNNERS):
            raise UsageError(
                f"--env-var {self._env_var} is a name of the runner's own",
                hint="such as OPENAI_API_KEY",
            )
        if not self._is_open:
            raise DeliveryError(
                "stdout is closed, and the runner reads the mask from it",
                hint="leave stdout to the runner",
            )
        for path in self._paths.values():
            try:
                os.close(_opened(path))
                with open(path, encoding="utf-8", errors="replace") as file:
                    unended = _unended(file)
            except OSError as error:
                raise DeliveryError(
                    f"{path} cannot be written: {error.strerror}", hint="the runner makes this file"
                ) from error
            if unended is not None:
                name, _, delimiter = unended.partition("<<")
                raise DeliveryError(
                    f"in {path} the value of {name!r} has no end: the runner would read the key as part of it",
                    hint=f"write a line {delimiter!r} to that file first: it ends the value",
                )

    def deliver(self, parcel: Parcel) -> None:
        """Mask the key string, then append it; what was appended is taken back if the rest fails."""
        key = parcel.key.reveal()
        # As the runner unescapes the data of a command.
        written(f"::add-mask::{key.replace('%', '%25')}\n".encode())
        lines = {
            OUTPUT: f"key={key}\nkey_id={parcel.answer['key_id']}\n",
            ENVIRONMENT: f"{self._env_var}={key}\n",
        }
        done: list[tuple[str, int]] = []
        try:
            for name, path in self._paths.items():
                done.append((path, os.stat(path).st_size))
                _append(path, lines[name].encode())
        except OSError as error:
            for path, size in done:
                with suppress(OSError):
                    os.truncate(path, size)
            raise NotTakenError(f"{path}: {error.strerror}") from error


def _unended(lines: Iterable[str]) -> str | None:
    """Return the line that begins a value of several lines without an end, None where all are ended.

    As the runner reads: ``NAME=VALUE``, or ``NAME<<DELIMITER`` and lines up to the delimiter.  What
    stands behind an open one is part of that value, whatever it looks like.
    """
    begun: str | None = None
    for line in lines:
        text = line.rstrip("\r\n")
        if begun is not None:
            begun = None if text == begun.partition("<<")[2] else begun
        elif "<<" in text and "=" not in text.partition("<<")[0]:
            begun = text
    return begun


def _opened(path: str) -> int:
    descriptor = os.open(path, _APPEND)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file", path)
    return descriptor


def _append(path: str, data: bytes) -> None:
    """Append *data* on lines of its own: whoever wrote before may have left out the last newline."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        last = file.read(1)
    if last not in (b"", b"\n"):
        data = b"\n" + data
    descriptor = _opened(path)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
