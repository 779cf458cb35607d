"""Back a SQLite database up: copied while others write, and checked before it is called a backup."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyctl.db import backup
from keyctl.db.database import Database
from keyctl.db.queries import audit
from keyctl.db.queries.audit import Head
from keyctl.db.schema import REVISION, VERIFIABLE
from keyctl.db.urls import absolute
from keyctl.errors import BrokenChainError, UsageError
from keyctl.services.callers import require_admin
from keyctl.services.transaction import anchor
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class BackupService:
    """Copies the workspace's database into a file."""

    workspace: Workspace

    def backup(self, file: Path) -> dict[str, Any]:
        """Write a whole, checked copy to *file*, which must not exist.

        Raises:
            UsageError: The database is a server's.
            FileTakenError: There is something at *file*.
            DatabaseError: The database cannot be read, or the file not be written.
            CorruptedError: The copy is damaged, or its audit chain does not hold.
        """
        database = self.workspace.database
        require_admin(self.workspace, "copy the database", "database_backup_denied", "database")
        if database.path is None:
            raise UsageError(
                "db backup copies SQLite files", hint="for PostgreSQL use pg_dump --format=custom"
            )
        target = Path(absolute(str(file)))
        with database.read(oldest=VERIFIABLE):  # it is there, and keyctl's
            pass
        part = backup.write_copy(database.path, target)
        try:
            revision, head = self._checked(part, target)
        except BaseException:
            backup.discard(part)
            raise
        size = part.stat().st_size
        backup.put_in_place(part, target)
        return {"file": str(target), "bytes": size, "revision": revision, "audit": anchor(head)}

    def _checked(self, part: Path, target: Path) -> tuple[str, Head]:
        copy = Database(f"sqlite:///{part}")
        try:
            with copy.read(oldest=VERIFIABLE) as connection:
                for _ in audit.check_chain(connection):
                    pass
                return str(connection.info[REVISION]), audit.find_head(connection)
        except audit.BrokenLinkError as error:
            raise BrokenChainError(
                f"the audit chain is broken, so {target} was not written: {error}",
                hint=audit.ADVICE,
            ) from error
        finally:
            copy.engine.dispose()
