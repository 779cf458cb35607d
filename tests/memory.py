"""Tell where tests write what nobody keeps: in memory, if there is room."""

import os
import shutil
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108  # whoever writes here makes a folder of its own
_ROOM = 2**31


def in_memory_or(folder: str) -> str:
    """Return the folder in memory, or *folder* on the disk if tests cannot work there.

    On a disk, other work on the machine makes a commit or a new database wait ten times as long.
    """
    return str(_MEMORY) if _will_do(_MEMORY) else folder


def _will_do(folder: Path) -> bool:
    """Tell whether tests can work in a folder: they write programs to it, and run them."""
    if not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(folder).free > _ROOM
