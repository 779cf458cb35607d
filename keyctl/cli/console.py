"""Print the payload on stdout, talk and errors on stderr, and JSON as JSON."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from keyctl import keystring
from keyctl.cli import screen
from keyctl.errors import DeliveryError, ExitCode, KeyctlError, Violation

STDOUT: Final = 1
STDERR: Final = 2
JSON_MODES: Final = ("json", "jsonl")


class ReaderGone(Exception):  # noqa: N818  # it is no error
    """Whoever read stdout has seen enough, as `head` does."""


# Errors whose message does not say what a single violation says.
_ROWS_SHOWN: Final = 5
_TELL_EACH: Final = (ExitCode.DENIED, ExitCode.INTEGRITY)


@dataclass(frozen=True, slots=True)
class Console:
    """Where output goes.  `output` is what was asked for.

    With `reads` the command changes nothing, so that nobody misses what a reader does not take.
    """

    output: str
    closed: frozenset[int]
    is_terminal: bool
    colour: bool = False
    ascii: bool = False
    reads: bool = False
    quiet: bool = False

    @classmethod
    def of(
        cls, arguments: Sequence[str], environment: Mapping[str, str], *, closed: frozenset[int]
    ) -> "Console":
        """Return the console for a command line that is not parsed yet: errors in it are reported too."""
        output = environment.get("KEYCTL_OUTPUT") or "auto"
        for index, argument in enumerate(arguments):
            if argument == "--":
                break
            if argument in ("-o", "--output") and index + 1 < len(arguments):
                output = arguments[index + 1]
            elif argument.startswith("--output="):
                output = argument.removeprefix("--output=")
            elif argument.startswith("-o") and len(argument) > 2 and argument[2] != "-":
                output = argument[2:].removeprefix("=")
        is_terminal = STDOUT not in closed and os.isatty(STDOUT)
        return cls(
            output,
            closed,
            is_terminal,
            colour=screen.is_colourful(environment, is_terminal=is_terminal),
            ascii=screen.is_ascii(environment),
        )

    @property
    def speaks_json(self) -> bool:
        """Tell whether errors are to be JSON too."""
        return self.output in JSON_MODES

    @property
    def has_stdout(self) -> bool:
        """Tell whether stdout was open when the program began."""
        return STDOUT not in self.closed

    def require_stdout(self) -> None:
        """Refuse to begin what ends with an answer on a closed stdout.

        Raises:
            DeliveryError: It is closed.
        """
        if not self.has_stdout:
            raise DeliveryError(
                "stdout is closed, and it should take the answer", hint="redirect it to a file"
            )

    def write(self, text: str | bytes) -> None:
        """Write to stdout past every buffer, so that what fails is known before the end.

        Raises:
            DeliveryError: It cannot be written.
            ReaderGone: Its reader has closed it, and the command has only read.
        """
        if self.quiet and not self.reads and self.output in ("auto", "table"):
            return
        rest = memoryview(text.encode() if isinstance(text, str) else text)
        try:
            while rest:
                rest = rest[os.write(STDOUT, rest) :]
        except OSError as error:
            if self.reads and isinstance(error, BrokenPipeError):
                raise ReaderGone from None
            raise DeliveryError(
                f"stdout cannot be written: {error.strerror}",
                hint="what the command changed, it changed; ask with info or list",
            ) from error

    def json(self, value: Any) -> None:
        """Write *value* as one JSON document."""
        from keyctl import jsontext

        self.write(jsontext.dumps(value, indent=2) + "\n")

    def json_in_pieces(self, document: Mapping[str, Any]) -> None:
        """Write *document* as JSON, a piece at a time; an iterator in it is an array."""
        from keyctl import jsontext

        for piece in jsontext.pieces(document):
            self.write(piece)
        self.write("\n")

    def lines(self, values: Iterable[Any]) -> None:
        """Write each value as JSON on a line of its own."""
        from keyctl import jsontext

        for value in values:
            self.write(jsontext.dumps(value) + "\n")

    def say(self, text: str) -> None:
        """Write what a person reads to stdout, in the characters that the locale has."""
        self.write(screen.plain(text) if self.ascii else text)

    def note(self, text: str) -> None:
        """Say something to a person: on stderr, so that stdout carries only the payload."""
        if not self.quiet:
            self._talk(text)

    def aside(self, text: str) -> None:
        """Say what matters less than the answer, on a terminal dimmed."""
        dim = self.colour and os.isatty(STDERR)
        self.note(screen.paint(text, "dim") if dim else text)

    def warn(self, text: str) -> None:
        """Say what went wrong although the command goes on, also with --quiet."""
        self.fault(f"warning: {text}")

    def outcome(self, text: str, *, failed: bool) -> None:
        """Write what became of one item; with --quiet only a failure, to stderr."""
        if not self.quiet:
            self.write(f"{text}\n")
        elif failed:
            self.fault(text)

    def fault(self, text: str) -> None:
        """Say what failed, also with --quiet."""
        self._talk(text)

    def _talk(self, text: str) -> None:
        _to_stderr(keystring.redact(text))

    def fail(self, error: KeyctlError) -> int:
        """Report *error* on stderr, as JSON if that was asked for, and return its exit status."""
        if self.speaks_json:
            from keyctl import jsontext

            text = jsontext.dumps(error_document(error))  # redacted before it was JSON
        else:
            lines = [f"error: {one_line(error.message)}"]
            if _says_all(error):
                # One line, and in it what would be allowed: said twice, people look for the difference.
                (broken,) = error.violations
                lines = [f"error: denied by {broken.rule}: {one_line(told(broken))}"]
            elif [item.message for item in error.violations] == [error.message]:
                pass  # there is no more to tell
            elif len(error.violations) > 1 or error.exit_code in _TELL_EACH:
                lines += _each(error)
            if error.hint:
                lines.append(f"hint: {one_line(error.hint)}")
            text = keystring.redact("\n".join(lines))
        _to_stderr(text)
        return int(error.exit_code)


def _to_stderr(text: str) -> None:
    """Write a line to stderr; where that cannot be written, nobody is told, and the command's status stands."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        # What is left in the stream's buffer would fail again at the end, and change the status.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STDERR)
        os.close(nowhere)


def _each(error: KeyctlError) -> list[str]:
    """Return a line for each violation; where many rows break one rule, for the first of them."""
    if not error.is_of_rows:
        return [f"  {item.rule}: {one_line(told(item))}" for item in error.violations]
    rows: dict[tuple[str, str], list[str]] = {}
    for item in error.violations:
        of_rule = rows.setdefault((item.rule, item.field), [])
        of_rule.append(f"  {item.rule}: {one_line(told(item))}")
    lines = []
    for (rule, _), of_rule in rows.items():
        lines += of_rule[:_ROWS_SHOWN]
        if (more := len(of_rule) - _ROWS_SHOWN) > 0:
            lines.append(f"  {rule}: … and {screen.count(more, 'more row')}")
    return lines


def _says_all(error: KeyctlError) -> bool:
    """Tell whether the message of a denial is its only violation."""
    whole = [f"denied by {item.rule}: {item.field}: {item.message}" for item in error.violations]
    return whole == [error.message]


def error_document(error: KeyctlError) -> dict[str, Any]:
    """Return *error* as the JSON object that scripts read, with nothing in it that looks like a key.

    Value by value: in JSON text a quoted `sk-` and what follows it looks like one.
    """
    return {
        "error": _redacted(
            {
                "code": error.code,
                "exit_code": int(error.exit_code),
                "message": error.message,
                "hint": error.hint,
                "violations": [asdict(violation) for violation in error.violations],
            }
        )
    }


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return keystring.redact(value)
    if isinstance(value, dict):
        return {keystring.redact(str(name)): _redacted(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item) for item in value]
    return value


def told(violation: Violation) -> str:
    """Return what *violation* says to a person: where, what, and what is allowed."""
    where = f"{violation.field}: " if violation.field else ""
    # One that the message names is not said again.
    is_said = violation.bound is None or f"'{violation.bound}'" in violation.message
    bound = "" if is_said else f" (allowed: {_plain(violation.bound)})"
    return f"{where}{violation.message}{bound}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)


def one_line(text: str) -> str:
    # What a person typed may hold anything; nothing of it may steer the terminal.
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)
