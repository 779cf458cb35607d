"""Read what an option, the environment, or a file that one of them names says."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from keyctl.cli.choices import require_one_of
from keyctl.errors import SecretInArgumentError, UsageError
from keyctl.named_files import read_line

if TYPE_CHECKING:
    from keyctl.db.urls import DatabaseAddress

OUTPUTS: Final = ("auto", "json", "jsonl", "csv", "key", "env", "table", "wide", "github")


class Given(NamedTuple):
    """A text, and the option or variable that it comes from: a command may be told of two databases."""

    text: str
    name: str


def url_of(option: str | None, flag: str, variable: str) -> Given | None:
    """Return the URL that the option, the variable, or the file it names says.

    Raises:
        UsageError: It is no URL of a database.
        SecretInArgumentError: The option holds a password.
    """
    if given := text_of(option, flag):
        if _parsed(given, flag).url.password:
            raise SecretInArgumentError(
                f"{flag} holds a password, and arguments are visible to others",
                hint=f"set {variable} or {variable}_FILE, or use PGPASSFILE",
            )
        return Given(given, flag)
    name = variable
    given = text_of(None, "", name)
    if given is None and (path := text_of(None, "", name := f"{variable}_FILE")):
        given = read_line(Path(path), what=name)
    if given is None:
        return None
    _parsed(given, name)
    return Given(given, name)


def _parsed(given: str, name: str) -> "DatabaseAddress":
    from keyctl.db.urls import parse_url

    with naming(name):
        return parse_url(given)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Say of what is wrong with a URL where it comes from.

    Raises:
        UsageError: With *name* before what the block said.
    """
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", hint=error.hint) from None


def text_of(option: str | None, flag: str, variable: str | None = None) -> str | None:
    """Return what the option, or else the environment, says.

    Raises:
        UsageError: It is there but empty: a CI secret that is missing must neither turn into an
            admin nor into another database.
    """
    value, name = option, flag
    if value is None and variable is not None:
        value, name = os.environ.get(variable), variable
    if value == "":
        raise UsageError(f"{name} is set but empty", hint=f"give {name} a value, or leave it out")
    return value


def output_of(option: str | None, outputs: Sequence[str]) -> str:
    """Return the output in force: the option, or KEYCTL_OUTPUT where the command knows it.

    Raises:
        UsageError: There is no such output, here or anywhere.
    """
    require_one_of(option, outputs, what="output")
    preferred = os.environ.get("KEYCTL_OUTPUT") or "auto"
    require_one_of(preferred, OUTPUTS, what="output in KEYCTL_OUTPUT,")
    return option or (preferred if preferred in outputs else "auto")
