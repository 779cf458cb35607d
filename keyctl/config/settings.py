"""Find the configuration file, check who may write to it, validate it, read it once."""

import os
import shutil
import stat
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal, Self

from pydantic import Field, model_validator

from keyctl import hashing
from keyctl.config import trust
from keyctl.config.folders import config_folder
from keyctl.config.hooks import AnyHook, HookName, Reminders, Smtp
from keyctl.config.sinks import AnySink, Function, Timeout
from keyctl.errors import ConfigurationError, MalformedRequestError
from keyctl.fields import DurationText, GraceText, Name, Names, Routes, Strict, refusal, validate
from keyctl.policy.documents import (
    Bounds,
    KeyDefaults,
    KeyRules,
    Pattern,
    PersonalPolicy,
    Policy,
)
from keyctl.sinks.templates import is_program

SYSTEM_FILE: Final = Path("/etc/keyctl/config.toml")


class KeyDefaultsEverywhere(KeyDefaults):
    """Defaults of the configuration, which alone may also name an owner and a team."""

    user_id: Name | None = None
    team_id: Name | None = None


class KeyGenerationSettings(Strict):
    """LiteLLM's `key_generation_settings`."""

    team_key_generation: KeyRules | None = None
    personal_key_generation: PersonalPolicy | None = None


class Settings(Strict):
    """Everything that the configuration file can say."""

    default_key_generate_params: KeyDefaultsEverywhere | None = None
    upperbound_key_generate_params: Bounds | None = None
    key_generation_settings: KeyGenerationSettings = KeyGenerationSettings.model_construct()
    key_alias_pattern: Pattern | None = None
    disable_custom_api_keys: bool = False
    default_routes: Routes = []
    access_groups: dict[Name, Names] = {}
    custom_key_generate: Function | None = None
    custom_key_generate_timeout: Timeout = "10s"
    bcrypt_cost: Annotated[int, Field(ge=hashing.MIN_COST, le=hashing.MAX_COST)] = (
        hashing.DEFAULT_COST
    )
    grace: GraceText = "24h"
    require_caller_key: bool = False
    restricted: bool = False
    database_url_file: Annotated[str, Field(pattern="^/")] | None = None
    budget_rollover: bool = False
    unsettled: Literal["charge", "release"] = "charge"
    sinks: dict[Name, AnySink] = {}
    default_sink: Name | None = None
    hooks: dict[HookName, AnyHook] = {}
    smtp: Smtp | None = None
    reminders: Reminders = Reminders.model_construct()
    prune_after: DurationText = "365d"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.restricted and self.database_url_file is None:
            raise refusal("restricted needs database_url_file: callers may not choose the database")
        if self.default_sink is not None and self.default_sink not in self.sinks:
            raise refusal(f"default_sink names no sink: {self.default_sink!r}")
        mailing = [name for name, hook in self.hooks.items() if hook.type == "mail"]
        if mailing and self.smtp is None:
            raise refusal(f"hook {mailing[0]!r} sends mail, and there is no [smtp]")
        return self


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
        # The defaults need no validation, which takes longest to be made.
        return Settings.model_construct()
    try:
        with path.open("rb") as file:
            document = _parsed(path, file)
            mode = os.fstat(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    _check_writers(path, mode, document)
    try:
        settings = validate(Settings, document, what=str(path), schema="configuration")
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


def everywhere(settings: Settings, *, of_team: bool) -> Policy:
    """Return the settings as the policy of the outermost layer, for a key of a team or for one without.

    A personal key's `required_params` are left to the rule of that name.
    """
    given = settings.key_generation_settings
    own = (given.team_key_generation if of_team else given.personal_key_generation) or KeyRules()
    rules = {name: getattr(own, name) for name in KeyRules.model_fields}
    if not of_team:
        rules["required_params"] = None
    return Policy.model_construct(
        **rules,
        default_key_generate_params=settings.default_key_generate_params,
        upperbound_key_generate_params=settings.upperbound_key_generate_params,
        key_alias_pattern=settings.key_alias_pattern,
    )
