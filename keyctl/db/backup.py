"""Copy a SQLite database into one whole file while others go on writing."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from keyctl.db.engines import connected
from keyctl.errors import CorruptedError, DatabaseError, FileTakenError


def write_copy(source: Path, target: Path) -> Path:
    """Write a consistent copy of *source* beside *target*, check it, and return its path.

    It has mode 0600 and needs no file beside it.  Writers of the source do not wait.

    Raises:
        FileTakenError: There is something at *target* already.
        DatabaseError: It cannot be written.
        CorruptedError: It does not pass SQLite's own check.
    """
    refuse_existing(target)
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DatabaseError(
            f"{target} cannot be written: {error.strerror}",
            hint="check that its folder exists and is yours to write",
        ) from error
    try:
        with closing(connected(source)) as reader, closing(sqlite3.connect(part)) as copy:
            # In one step: of several, each begins anew after another process's write.
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            said = [row[0] for row in copy.execute("PRAGMA quick_check")]
    except sqlite3.Error as error:
        discard(part)
        raise DatabaseError(
            f"{source} cannot be copied to {target}: {error}",
            hint="check the disk's space and the database: keyctl db check",
        ) from error
    except BaseException:
        discard(part)
        raise
    if said != ["ok"]:
        discard(part)
        raise CorruptedError(
            f"the copy of {source} is damaged: {said[0]}", hint="restore it from an older backup"
        )
    return part


def put_in_place(part: Path, target: Path) -> None:
    """Give a checked copy its name, on disk; never over something that is there.

    Raises:
        FileTakenError: Something came there meanwhile.
        DatabaseError: It cannot be written.
    """
    try:
        handle = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.link(part, target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise _taken(target) from None
    except OSError as error:
        raise DatabaseError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        discard(part)


def refuse_existing(target: Path) -> None:
    """Refuse a path at which there is something, a broken link too.

    Raises:
        FileTakenError: There is.
    """
    if os.path.lexists(target):
        raise _taken(target)


def discard(part: Path) -> None:
    """Remove a copy that came to nothing."""
    for name in (part, part.with_name(f"{part.name}-journal")):
        with suppress(OSError):
            name.unlink()


def _taken(target: Path) -> FileTakenError:
    return FileTakenError(
        f"{target} exists, and a backup replaces nothing", hint="name another file"
    )
