"""Tell whether somebody else could have written a file that keyctl obeys: as ssh's StrictModes.

A file is as trustworthy as every folder above it: who may write to one of them may put another file
in its place.  Where a link stands, what it leads to counts, and the folder that the link is in.
"""

import os
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MOST_LINKS: Final = 40
# What runs the file that it is given: then the file is the program, too.
_INTERPRETERS: Final = ("bash", "dash", "env", "ksh", "node", "perl", "python", "ruby", "sh", "zsh")


@dataclass(frozen=True, slots=True)
class Weakness:
    """Where somebody else may write: which file or folder, why, and the command that mends it."""

    path: str
    why: str
    command: str


def weakness_of(path: Path) -> Weakness | None:
    """Return where somebody but the owner or root may change what *path* is, None if nowhere.

    A folder that everybody may write to passes if it is sticky, such as /tmp, and what lies in it
    belongs to this account or to root: nobody else can put another in its place.  A file that is
    not there, or cannot be looked at, has no weakness here: who needs it says so.
    """
    parts = deque(Path(os.path.abspath(path)).parts[1:])
    here, links = "/", 0
    if (found := _weak(here)) is not None:
        return found
    while parts:
        part = parts.popleft()
        if part == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, part)
        try:
            info = os.lstat(there)
        except OSError:
            return None
        if not _is_ours(info):
            return _foreign(there)
        if stat.S_ISLNK(info.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return None
            target = Path(os.readlink(there))
            if target.is_absolute():
                here = "/"
                target = target.relative_to("/")
            parts.extendleft(reversed(target.parts))
            continue
        if (found := _weak(there)) is not None:
            return found
        here = there
    return None


def programs_of(argv: Sequence[str]) -> list[str]:
    """Return what of a command line is run: the program, and the script that an interpreter is given."""
    first, *rest = argv
    found = [first]
    if os.path.basename(first).rstrip("0123456789.") in _INTERPRETERS:
        found += [item for item in rest if os.path.isabs(item)][:1]
    return found


def _is_ours(info: os.stat_result) -> bool:
    return info.st_uid in (0, os.geteuid())


def _foreign(path: str) -> Weakness:
    return Weakness(path, f"{path} belongs to another user", f"chown root {path}")


def _weak(path: str) -> Weakness | None:
    info = os.stat(path)
    if not _is_ours(info):
        return _foreign(path)
    if not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return None
    if stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX:
        return None
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return None  # such as a volume of Kubernetes: nobody writes to it, whatever its mode
    return Weakness(path, f"others may write to {path}", f"chmod go-w {path}")
