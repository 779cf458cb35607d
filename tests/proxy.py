"""A TCP proxy before a PostgreSQL server, which can fall silent or cut connections at the worst moment."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards what it is sent.  While `silent` is set it reads and acknowledges, and forwards nothing.

    With `cuts_commits` it lets each commit reach the server and closes the connection instead of
    passing the answer on.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.silent = threading.Event()
        self.cuts_commits = threading.Event()
        self.cuts = 0
        self.asked = 0  # how often something was sent to the server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _close(self._listener, *self._open)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._path)
                except OSError:
                    _close(client, server)
                    continue
                self._open += [client, server]
                is_cut = threading.Event()
                for pump in (self._to_server, self._to_client):
                    threading.Thread(
                        target=pump, args=(client, server, is_cut), daemon=True
                    ).start()

    def _to_server(
        self, client: socket.socket, server: socket.socket, is_cut: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.silent.is_set():
                    continue
                if self.cuts_commits.is_set() and b"COMMIT" in data:
                    is_cut.set()
                self.asked += 1
                server.sendall(data)
        _close(client, server)

    def _to_client(
        self, client: socket.socket, server: socket.socket, is_cut: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.silent.is_set():
                    continue
                if is_cut.is_set() and b"COMMIT" in data:
                    self.cuts += 1
                    break
                client.sendall(data)
        _close(client, server)


def _close(*sockets: socket.socket) -> None:
    for item in sockets:
        with suppress(OSError):
            item.shutdown(socket.SHUT_RDWR)
        item.close()
