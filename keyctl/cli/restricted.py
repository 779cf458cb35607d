"""Refuse options that name a file or a database, where people run keyctl through another account.

With ``restricted = true`` in /etc/keyctl/config.toml nobody chooses the database or the configuration,
and no option names a file: whoever does would read and write with rights that are not theirs.
"""

import inspect
import os
import pwd
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

from keyctl.errors import RestrictedError, Violation

RULE: Final = "caller.restricted"
STREAM: Final = "-"
# Options whose value is a file, a folder, or the URL of a database.
OPTIONS: Final = frozenset(
    {
        "--caller-key-file",
        "--config",
        "--database-url",
        "--file",
        "--from",
        "--key-file",
        "--key-out",
        "--out",
        "--out-dir",
        "--out-file",
        "--plan",
        "--policy",
        "--request",
        "--source-file",
        "--source-url",
        "--target-url",
    }
)
# Parts of the names of arguments that are files or folders.
_ARGUMENTS: Final = ("FILE", "DIR", "PATH")
VARIABLES: Final = (
    "KEYCTL_CONFIG",
    "KEYCTL_DATABASE_URL",
    "KEYCTL_DATABASE_URL_FILE",
    "KEYCTL_SOURCE_URL",
    "KEYCTL_SOURCE_URL_FILE",
    "KEYCTL_TARGET_URL",
    "KEYCTL_TARGET_URL_FILE",
)
# All that is left of the caller's environment: the key, and how to show things.
_KEPT: Final = frozenset(
    {
        "CI",
        "COLUMNS",
        "FORCE_COLOR",
        "GITHUB_ACTIONS",
        "KEYCTL_API_KEY",
        "KEYCTL_OUTPUT",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LINES",
        "NO_COLOR",
        "TERM",
    }
)
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def refuse_places(
    by: Path,
    parameters: Sequence[inspect.Parameter],
    values: Mapping[str, Any],
    environment: Mapping[str, str],
) -> None:
    """Refuse options, arguments and variables that name a file or a database; ``-`` is a stream.

    Raises:
        RestrictedError: One does.
    """
    named = [*_named(parameters, values), *(name for name in VARIABLES if name in environment)]
    if named:
        raise RestrictedError(
            f"{by} says restricted: {named[0]} is not the caller's to choose",
            hint="give - for stdin, take stdout, or a sink that the configuration names",
            violations=[
                Violation(rule=RULE, field=name, message="is not the caller's to choose")
                for name in named
            ],
        )


def names_place(parameter: inspect.Parameter) -> str | None:
    """Return how a parameter that names a file or a database is called, None for any other."""
    info = parameter.annotation.__metadata__[0]
    flags = [item for item in (info.default, *(info.param_decls or ())) if isinstance(item, str)]
    for flag in flags:
        if flag in OPTIONS:
            return str(flag)
    metavar = info.metavar or ""
    return metavar if any(part in metavar for part in _ARGUMENTS) else None


def _named(parameters: Iterable[inspect.Parameter], values: Mapping[str, Any]) -> Iterator[str]:
    for parameter in parameters:
        name, value = names_place(parameter), values.get(parameter.name)
        given = value if isinstance(value, (list, tuple)) else [value]
        if name is not None and any(item is not None and item != STREAM for item in given):
            yield name


def cut(environment: MutableMapping[str, str]) -> None:
    """Leave of an environment only what cannot steer a program, and complete it by the account's own."""
    for name in set(environment) - _KEPT:
        del environment[name]
    environment["PATH"] = _PATH
    try:
        environment["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return  # an account without an entry has no home
