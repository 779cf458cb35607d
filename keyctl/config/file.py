"""Find the configuration file, check who may write to it, validate it, read it once."""

import os
import shutil
import stat
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final

from keyctl.config import trust
from keyctl.config.folders import config_folder
from keyctl.config.settings import Settings
from keyctl.errors import ConfigurationError, MalformedRequestError

SYSTEM_FILE: Final = Path("/etc/keyctl/config.toml")


def find_file(given: str | None) -> Path | None:
    """Return the configuration file: the one *given*, else the user's, else the system's, else None.

    Raises:
        ConfigurationError: The one given does not exist.
    """
    if given is not None:
        path = Path(given)
        if not _is_there(path):
            # What holds a password was meant for another variable.
            named = given if "://" not in given else "of this name"
            raise ConfigurationError(
                f"there is no configuration file {named}",
                hint="check --config and KEYCTL_CONFIG, or unset them",
            )
        return path
    known = (user_file(), SYSTEM_FILE)
    return next((path for path in known if path is not None and _is_there(path)), None)


def _is_there(path: Path) -> bool:
    """Tell whether there is such a file.

    Raises:
        ConfigurationError: Nobody can tell, as in another account's home.
    """
    try:
        return path.is_file()
    except PermissionError as error:
        raise ConfigurationError(
            f"{path} cannot be looked for: {error.strerror}",
            hint="set HOME to this account's own folder, or name a file with --config",
        ) from error


def restricting_file() -> Path | None:
    """Return the system's configuration file if it says ``restricted``: then it is the only one.

    Raises:
        ConfigurationError: It is there, and nobody can tell what it says.
    """
    try:
        with SYSTEM_FILE.open("rb") as file:
            document = _parsed(SYSTEM_FILE, file)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ConfigurationError) as error:
        # Who may not read it acts with rights of their own, and not with the account's.
        if isinstance(error, ConfigurationError):
            raise
        return None
    return SYSTEM_FILE if document.get("restricted") is True else None


def user_file() -> Path | None:
    """Return where the user's own configuration file is looked for, None without a home."""
    folder = config_folder()
    return None if folder is None else folder / "config.toml"


def load(path: Path | None) -> Settings:
    """Return the settings in *path*; the defaults when there is none.

    Raises:
        ConfigurationError: It cannot be read, is not TOML, names what keyctl does not know, or
            runs programs while others may write to it, to a folder above it, or to a program.
    """
    if path is None:
        return Settings()
    # Its pydantic is a tenth of a short run, and without a file there is nothing to validate.
    from keyctl.config.document import read  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            document = _parsed(path, file)
            mode = os.fstat(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    _check_writers(path, mode, document)
    try:
        settings = read(document, what=str(path))
    except MalformedRequestError as error:
        raise ConfigurationError(
            error.message, hint=error.hint, violations=error.violations
        ) from error
    _check_programs(path, settings)
    return settings


def _parsed(path: Path, file: BinaryIO) -> dict[str, Any]:
    try:
        return tomllib.load(file, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    except ValueError as error:  # Python's own: not quoted, because nobody promises what it repeats
        raise ConfigurationError(
            f"{path} is not TOML: a number has too many digits", hint="write it with fewer"
        ) from error


def _check_writers(path: Path, mode: os.stat_result, document: Mapping[str, Any]) -> None:
    """Refuse a file that says what to run or where events go, and that others could have written."""
    names = ("sinks", "hooks", "smtp", "custom_key_generate", "restricted")
    runs = [name for name in names if document.get(name)]
    if not runs:
        return
    if mode.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"{path} names {runs[0]}, and others may write to it", hint=f"chmod go-w {path}"
        )
    if mode.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{path} names {runs[0]}, and belongs to another user", hint="chown it, or copy it"
        )
    if (found := trust.weakness_of(path)) is not None:
        raise ConfigurationError(f"{path} names {runs[0]}, and {found.why}", hint=found.command)


def _check_programs(path: Path, settings: Settings) -> None:
    """Refuse a configuration whose sinks or hooks run what others could have written."""
    from keyctl.sinks.templates import is_program  # noqa: PLC0415  # as above

    named: list[tuple[str, Sequence[str]]] = [
        *(
            (f"sink {name}", sink.argv)
            for name, sink in settings.sinks.items()
            if sink.type == "command"
        ),
        *(
            (f"hook {name}", hook.argv)
            for name, hook in settings.hooks.items()
            if hook.type == "command"
        ),
    ]
    for who, argv in named:
        for program in trust.programs_of(argv):
            place = shutil.which(program) or program
            if os.path.isabs(place) and (found := trust.weakness_of(Path(place))) is not None:
                what = program if is_program(program) else "a program"
                raise ConfigurationError(
                    f"{path}: {who} runs {what}, and {found.why}", hint=found.command
                )
