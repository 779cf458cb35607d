"""Keep who may read a file: the mode, the group, the owner and the access list of what is replaced."""

import errno
import grp
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from keyctl.errors import DeliveryError

_ACCESS_LIST: Final = "system.posix_acl_access"
PRIVATE: Final = 0o600
OTHERS: Final = 0o007


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What a new file is to be given.  None leaves it as the system makes it: this process's.

    `access_list` is in the system's own form.
    """

    mode: int = PRIVATE
    group: int | None = None
    owner: int | None = None
    access_list: bytes | None = None

    @classmethod
    def of(cls, path: "os.PathLike[str]") -> Self | None:
        """Return that of the file at *path*, None if there is none."""
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return None
        access_list = None
        with suppress(OSError):  # there is none, or the file system knows none
            access_list = os.getxattr(path, _ACCESS_LIST, follow_symlinks=False)
        return cls(
            mode=stat.S_IMODE(found.st_mode) & 0o777,
            group=found.st_gid,
            owner=found.st_uid,
            access_list=access_list,
        )

    def begin(self, handle: int) -> None:
        """Give a new and empty file its group and owner; it stays closed to all but the owner.

        Raises:
            OSError: The system does not permit the group.  Another owner may be refused silently:
                only root can give a file away.
        """
        found = os.fstat(handle)
        if self.group is not None and self.group != found.st_gid:
            os.fchown(handle, -1, self.group)
        if self.owner is not None and self.owner != found.st_uid:
            with suppress(PermissionError):
                os.fchown(handle, self.owner, -1)
        os.fchmod(handle, PRIVATE)

    def widen(self, handle: int) -> None:
        """Open a file that is whole to those who may read it.  Others never may."""
        if self.access_list is not None:
            os.setxattr(handle, _ACCESS_LIST, self.access_list)
        # After the access list, because the group's bits are its mask.
        os.fchmod(handle, self.mode & ~OTHERS)


def group_id(name: str) -> int:
    """Return the id of a group that the configuration names.

    Raises:
        DeliveryError: The system knows none of that name.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise DeliveryError(
            f"there is no group {name!r} on this system", hint="check `group` in the sink"
        ) from None


def refused(path: "os.PathLike[str]", error: OSError) -> DeliveryError:
    """Return the refusal for a group that this process may not give a file."""
    why = "not permitted" if error.errno == errno.EPERM else error.strerror
    return DeliveryError(
        f"{path} cannot keep its group: {why}",
        hint="run keyctl as a member of that group, or set `group` in the sink",
    )
