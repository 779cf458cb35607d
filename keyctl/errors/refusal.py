"""Say what a refusal is: an exit status, a code for machines, a message, a hint, and the violations of rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """Process exit statuses.  Public: never renumber."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    CONFLICT = 5
    DATABASE = 6
    BUSY = 7
    DELIVERY = 8
    BATCH = 9
    ASKED_FOR = 10
    INTEGRITY = 11
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One rule that a request breaks: which field, what is allowed, what was asked for."""

    rule: str
    field: str
    message: str
    bound: Any = None
    value: Any = None


class KeyctlError(Exception):
    """Base of every error a user can cause.  Anything else is a bug."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    # Of a list: of violations that many rows have in common people are told the first few.
    is_of_rows = False

    def __init__(
        self, message: str, *, hint: str | None = None, violations: Sequence[Violation] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.violations = tuple(violations)
