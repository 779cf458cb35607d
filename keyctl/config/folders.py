"""Find the user's folders for configuration, data and state, also where the account has no home."""

from collections.abc import Callable
from pathlib import Path

from keyctl.errors import DatabaseError


def config_folder() -> Path | None:
    """Return where the user's configuration is looked for, None for an account without a home."""
    from platformdirs import user_config_path  # noqa: PLC0415  # not when --config names a file

    return _found(user_config_path)


def data_folder() -> Path:
    """Return where the embedded database lies.

    Raises:
        DatabaseError: The account has no home.
    """
    from platformdirs import user_data_path  # noqa: PLC0415  # not when there is a URL

    if (found := _found(user_data_path)) is None:
        raise DatabaseError(
            "there is no home folder for the embedded database",
            hint="set KEYCTL_DATABASE_URL, or set HOME to an absolute path",
        )
    return found


def state_folder() -> Path | None:
    """Return where runs show that they are alive, None for an account without a home."""
    from platformdirs import user_state_path  # noqa: PLC0415  # not for SQLite

    return _found(user_state_path)


def _found(ask: Callable[[str], Path]) -> Path | None:
    try:
        folder = ask("keyctl")
    except RuntimeError:  # neither HOME nor an entry in passwd
        return None
    return folder if folder.is_absolute() else None
