"""Write a file beside the one that it will replace, and remove what killed runs left so."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from keyctl import keystring

_RANDOM: Final = 8
_END: Final = ".part"


@dataclass(slots=True)
class Part:
    """A new file of mode 0600: its descriptor, the name it has or will have, and whether it has it yet.

    It is locked as long as its run lives: what is not locked may be removed by whoever comes next.
    """

    handle: int
    path: Path
    named: bool

    def name_it(self, folder: int) -> None:
        """Give it its name in the folder, if it has none."""
        if not self.named:
            # The bytes had no name until now, so a run that was killed left nothing to be found.
            # With a dir_fd, because only then Python asks the kernel to follow the link in /proc.
            os.link(f"/proc/self/fd/{self.handle}", self.path.name, dst_dir_fd=folder)
            self.named = True


@contextmanager
def begun(target: Path) -> Iterator[Part]:
    """Begin a part of *target*; a name that is left at the end of the block is removed."""
    # A random name in the same folder: rename is atomic only within one file system, and a
    # guessable one could be planted as a link.
    path = target.with_name(f"{_beginning(target)}{keystring.random_text(_RANDOM)}{_END}")
    part = _opened(path)
    try:
        # Where the file system has no locks nothing is removed either.
        with suppress(OSError):
            fcntl.flock(part.handle, fcntl.LOCK_EX)
        if part.named and os.fstat(part.handle).st_nlink == 0:
            what = "its part was taken for the rest of a killed run"
            raise FileNotFoundError(errno.ENOENT, what, str(path))
        yield part
    finally:
        if part.named:
            with suppress(OSError):
                os.unlink(path)
        os.close(part.handle)


def remove_left(target: Path) -> None:
    """Remove the parts of *target* that killed runs left: the ones that nobody has locked."""
    begins = _beginning(target)
    length = len(begins) + _RANDOM + len(_END)
    for name in _parts_in(str(target.parent)):
        if name.startswith(begins) and len(name) == length:
            with suppress(OSError):
                _remove(target.with_name(name))


def _remove(path: Path) -> None:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # To lock a file NFS wants it open for writing; its mode may forbid that elsewhere.
        handle = os.open(path, os.O_RDWR | flags)
    except OSError:
        handle = os.open(path, os.O_RDONLY | flags)
    try:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    finally:
        os.close(handle)


@lru_cache(maxsize=1024)
def _parts_in(folder: str) -> frozenset[str]:
    """Return the names of parts in a folder, read once: many keys go to one folder."""
    with suppress(OSError):
        return frozenset(
            name for name in os.listdir(folder) if name[:1] == "." and name.endswith(_END)
        )
    return frozenset()


def _beginning(target: Path) -> str:
    return f".{target.name[:200]}."


def _opened(path: Path) -> Part:
    """Return a new file, without its name where the file system can do that; NFS and some others cannot."""
    try:
        flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
        return Part(os.open(path.parent, flags, 0o600), path, named=False)
    except OSError:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return Part(os.open(path, flags, 0o600), path, named=True)
