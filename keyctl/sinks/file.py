"""Put a key string into a file: closed to all until it is whole, and on disk."""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import IO

from keyctl import keystring
from keyctl.errors import DeliveryError, FileTakenError, UsageError
from keyctl.sinks import parts
from keyctl.sinks.base import Format, NotTakenError, Parcel, Target, UnknownError, rendered
from keyctl.sinks.ownership import OTHERS, Ownership, group_id, refused

_READ = 64 * 1024
# Told the public ids in a file and the key it is for: whether replacing it loses nothing.
Replaceable = Callable[[set[str], str | None], bool]


class FileSink:
    """Writes one key to *path*; an existing file is replaced only where that loses nothing."""

    timeout = timedelta(0)
    shows_answer = False

    def __init__(
        self,
        path: Path,
        *,
        form: Format,
        force: bool,
        replaceable: Replaceable,
        env_var: str,
        mode: int | None = None,
        group: str | None = None,
        warn: Callable[[str], None],
    ) -> None:
        self.path = _absolute(path)
        self.name = f"file:{self.path}"
        self._form = form
        self._force = force
        self._replaceable = replaceable
        self._env_var = env_var
        self._mode = mode
        self._group = group
        self._warn = warn
        self._key_id: str | None = None
        self._may_go: set[str] = set()

    def check(self, target: Target) -> None:
        """Refuse a file that may not be replaced, and a folder that cannot be written.

        Raises:
            FileTakenError: Something is there that must stay.
            DeliveryError: The folder is missing or closed to us, or the file cannot have its group.
        """
        self._key_id = target.key_id
        self._may_go = set()
        self._check_existing()
        wanted = self._ownership()
        try:
            with parts.begun(self.path) as probe:
                handle = probe.handle
                try:
                    wanted.begin(handle)
                    wanted.widen(handle)
                except OSError as error:
                    raise refused(self.path, error) from error
        except OSError as error:
            raise DeliveryError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="check that its folder exists and is yours to write",
            ) from error
        if wanted.mode & OTHERS:
            self._warn(f"{self.path} could be read or written by everybody; it no longer can")

    def deliver(self, parcel: Parcel) -> None:
        """Write the parcel in the sink's format."""
        self.put(rendered(parcel, self._form, env_var=self._env_var))

    def put(self, data: bytes) -> None:
        """Put *data* in place: written whole, fsynced, then named; its folder fsynced.

        Raises:
            NotTakenError: The file was not put in place.
            UnknownError: It was, but may not survive a power cut.
        """
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotTakenError(f"{self.path}: {error.strerror}") from error
        try:
            self._write(data, folder)
            try:
                os.fsync(folder)
            except OSError as error:
                raise UnknownError(f"{self.path}: {error.strerror}") from error
        except (FileTakenError, DeliveryError) as error:
            raise NotTakenError(str(error)) from error
        finally:
            os.close(folder)

    def _write(self, data: bytes, folder: int) -> None:
        parts.remove_left(self.path)
        try:
            with (
                parts.begun(self.path) as part,
                os.fdopen(os.dup(part.handle), "wb") as file,
            ):
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                self._check_existing()  # it may have come while the key was hashed and staged
                self._hand_on(file.fileno())
                self._put_in_place(file, part, folder)
        except OSError as error:
            raise NotTakenError(f"{self.path}: {error.strerror}") from error

    def _put_in_place(self, file: IO[bytes], part: parts.Part, folder: int) -> None:
        part.name_it(folder)
        file.close()  # an error of that comes before it is in place, and not after
        try:
            os.rename(part.path, self.path)
        except OSError as error:
            try:
                os.unlink(part.path)
            except OSError:
                # A request that NFS sends twice may be answered with an error although the first
                # one was carried out.  Only a part that was still there proves that it was not.
                raise UnknownError(f"{self.path}: {error.strerror}") from error
            raise
        part.named = False

    def _hand_on(self, handle: int) -> None:
        """Open the file, which is whole by now, to those who may read it."""
        if (wanted := self._ownership()) != Ownership():
            wanted.begin(handle)
            wanted.widen(handle)
            os.fsync(handle)

    def _ownership(self) -> Ownership:
        """Return what the file is to be given: the sink's own word, else that of what it replaces."""
        found = Ownership.of(self.path) or Ownership()
        if self._group is not None:
            # The access list was made for the group before.
            found = replace(found, group=group_id(self._group), access_list=None)
        return found if self._mode is None else replace(found, mode=self._mode)

    def holds(self) -> set[str]:
        """Return the public ids of the key strings in the file; none if it is not a regular one."""
        try:
            return keystring.public_ids(_head(self.path).decode("latin-1"))
        except OSError:
            return set()

    def _check_existing(self) -> None:
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise DeliveryError(f"{self.path} cannot be written: {error.strerror}") from error
        if not stat.S_ISREG(mode):
            raise FileTakenError(
                f"{self.path} is not a regular file", hint="name another path with --out-file"
            )
        if self._force:
            return
        found = self.holds()
        if found and found == self._may_go:
            return  # asked about already, moments ago: a rotation of many keys is bound by such questions
        if not found or not self._replaceable(found, self._key_id):
            raise FileTakenError(
                f"{self.path} exists and holds something that is still needed, or is not keyctl's",
                hint="name another path, or replace it with --force",
            )
        self._may_go = found


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path))
    except FileNotFoundError:
        raise UsageError(
            f"{path} begins in the current folder, which was removed",
            hint="go to another folder, or give an absolute path",
        ) from None


def _head(path: Path) -> bytes:
    # No link is followed, and a FIFO put in the file's place does not hang the run.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return b""
        return os.read(handle, _READ)
    finally:
        os.close(handle)
