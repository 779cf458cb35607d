"""Write what is no secret into a file that a monitoring agent reads, whole or not at all."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from keyctl import keystring
from keyctl.errors import DeliveryError, FileTakenError
from keyctl.sinks.ownership import Ownership

_READABLE = 0o644


def write_report(path: Path, text: str, *, begins: str) -> None:
    """Put *text* in place; what is there is replaced only if it begins with *begins*.

    A new file may be read by everybody; one that is replaced keeps its mode, group and owner.

    Raises:
        FileTakenError: There is something else at *path*.
        DeliveryError: It cannot be written.
    """
    part = path.with_name(f".{path.name[:200]}.{keystring.random_text(8)}.part")
    try:
        _refuse_foreign(path, begins.encode())
        found = Ownership.of(path)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode())
                file.flush()
                if found is not None:
                    found.begin(file.fileno())
                os.fchmod(file.fileno(), _READABLE if found is None else found.mode)
                os.fsync(file.fileno())
            os.rename(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        raise DeliveryError(
            f"{path} cannot be written: {error.strerror}",
            hint="check that its folder exists and is yours to write",
        ) from error


def _refuse_foreign(path: Path, begins: bytes) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode) and os.read(handle, len(begins)) in (b"", begins):
            return
    finally:
        os.close(handle)
    raise FileTakenError(f"{path} exists and is not keyctl's", hint="name another path")
