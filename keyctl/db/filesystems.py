"""Tell where SQLite must not write: on network file systems, and into a file that is a mount of its own."""

import os
import re
from pathlib import Path
from typing import Final

from keyctl.errors import DatabaseError

MOUNTS: Final = Path("/proc/self/mountinfo")
# Their locks do not hold between hosts, or not for the shared memory of SQLite's write-ahead log.
_NETWORK: Final = frozenset(
    [
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.ceph",
        "fuse.davfs2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb3",
        "smbfs",
    ]
)


def refuse_unsafe(path: Path, *, mounts: Path = MOUNTS) -> None:
    """Refuse to write to the SQLite file *path* where a write could be lost or torn.

    Raises:
        DatabaseError: It lies on a network file system, or is mounted alone.
    """
    real = os.path.realpath(path)
    point, kind = _mount_of(real, mounts)
    if kind in _NETWORK:
        raise DatabaseError(
            f"the database {path} lies on a network file system ({kind}), where SQLite's locks do"
            " not hold",
            hint="keep it on a local disk, or use PostgreSQL; it can be read where it is",
        )
    if point == real:
        raise DatabaseError(
            f"the database {path} is mounted as a single file, without its write-ahead log",
            hint="mount the folder that it lies in",
        )


def _mount_of(real: str, mounts: Path) -> tuple[str, str]:
    """Return the mount point that *real* lies under and its kind; empty where nobody knows."""
    best = ("", "")
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return best
    for line in lines:
        before, _, behind = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # A later mount on the same point hides the one before it.
        if inside and len(point) >= len(best[0]):
            best = point, behind.split(" ")[0]
    return best
