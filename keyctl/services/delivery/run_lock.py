"""Begin a run with a lock file that shows it is alive, and tell the claims of dead runs.

Never by pid or host name: containers share neither.  An flock dies with its process, however
that ends, and with every child that inherited it.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from keyctl import keystring
from keyctl.db import queries
from keyctl.db.database import Database
from keyctl.records import Claim

SLACK: Final = timedelta(seconds=60)


@dataclass(slots=True)
class Run:
    """This process's exclusive right to its own claims.  `lock` is None where no file could be written.

    `claimed` are the keys with a claim of this run that is not known to be gone.
    """

    id: str
    folder: Path
    lock: int | None
    claimed: set[str] = field(default_factory=set)

    def is_alive(self, claim: Claim, *, now: datetime) -> bool:
        """Tell whether the run that holds *claim* may still act on it."""
        return self.may_act(claim.run_id, until=claim.deadline_at, now=now)

    def may_act(self, run_id: str, *, until: datetime, now: datetime) -> bool:
        """Tell whether a run that claimed something *until* then may still act on it.

        Past its deadline a claim is dead, locked or not.  Before it, only a lock file that this
        process can lock proves death; one that is absent or closed to us is another host's.
        """
        if until <= now:
            return False
        if run_id == self.id:
            return True
        try:
            handle = os.open(_lock_path(self.folder, run_id), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def bury(self, run_id: str) -> None:
        """Remove the lock file of a dead run whose claims are gone."""
        with suppress(OSError):
            _lock_path(self.folder, run_id).unlink()


def onlooker(folder: Path) -> Run:
    """Return a run that claims nothing and writes no file: it tells whether others' claims are alive."""
    return Run("", folder, None)


def bury(database: Database, run: Run, ended: Sequence[Claim]) -> None:
    """Remove the lock files of the dead runs that had these claims and have no others.

    It is the proof that the others are dead too: without it they would live until their deadline.
    """
    if not ended:
        return
    run_ids = {claim.run_id for claim in ended}
    with database.read() as connection:
        left = queries.runs_with_claims(connection, run_ids)
    for run_id in run_ids - left:
        run.bury(run_id)


@contextmanager
def begun(folder: Path) -> Iterator[Run]:
    """Begin a run: lock first, then claim; its file is removed after its claims are gone.

    Where the database was away to the end the file stays, unlocked: it proves the claims dead.
    """
    run_id = keystring.random_text(22)
    path = _lock_path(folder, run_id)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        # The run goes on: its claims then live until their deadline.
        yield Run(run_id, folder, None)
        return
    run = Run(run_id, folder, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield run
    finally:
        # Unlinked before it is unlocked: a file that can be locked proves a death.
        if not run.claimed:
            with suppress(OSError):
                path.unlink()
        os.close(lock)


def _lock_path(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.lock"
