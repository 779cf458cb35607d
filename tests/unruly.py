"""An HTTP server on a port of this machine that misbehaves on demand."""

import re
import socket
import ssl
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

PATIENCE = 60


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked: method, path with its query, headers in lower case, body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What it is told."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


How = int | Answer | Literal["drip", "hang", "reset"]


@dataclass(slots=True)
class Fault:
    """Which requests are answered badly, and how: after they were carried out or not."""

    pattern: re.Pattern[str]
    how: How
    taken: bool
    after: re.Pattern[str] | None


class Unruly:
    """Answers as a subclass says, unless a request was to be answered badly.

    `asked` are the requests so far, in the words of `described`.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self._faults: list[Fault] = []
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            # How long it goes on after it is told to end: half a second, if nothing is said.
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            daemon=True,
        )
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)

    def answer(self, request: Request) -> Answer:
        """Return what a well-behaved server says."""
        raise NotImplementedError

    def described(self, request: Request) -> str:
        """Return what a fault's pattern is held against."""
        return f"{request.method} {request.path}"

    def upset(
        self, pattern: str, how: How, *, taken: bool = False, after: str | None = None
    ) -> None:
        """Answer requests that *pattern* is found in with a status, with nothing, or with half an answer.

        A "drip" is a byte now and then, without end.
        *taken*: they are carried out before that.  *after*: not before a request of that kind.
        """
        follows = None if after is None else re.compile(after)
        self._faults.append(Fault(re.compile(pattern), how, taken, follows))

    def calm(self) -> None:
        """Behave again."""
        self._faults.clear()

    def _respond(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        description = self.described(request)
        self.asked.append(description)
        for fault in self._faults:
            if fault.after is not None:
                if fault.after.search(description):
                    fault.after = None
            elif fault.pattern.search(description):
                if fault.taken:
                    self.answer(request)
                self._misbehave(fault.how, request, handler)
                return
        send(handler, self.answer(request))

    def _misbehave(self, how: How, request: Request, handler: BaseHTTPRequestHandler) -> None:
        if how == "hang":
            handler.close_connection = True
            self._over.wait(PATIENCE)
        elif how == "drip":
            handler.close_connection = True
            with suppress(OSError):
                while not self._over.wait(0.2):
                    handler.wfile.write(b"H")
                    handler.wfile.flush()
        elif how == "reset":
            handler.close_connection = True
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            handler.wfile.flush()
            # Closed without lingering: the other side sees a reset, and no end.
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.shutdown(socket.SHUT_RD)
        elif isinstance(how, Answer):
            send(handler, how)
        else:
            # With what was sent, as a helpful server may do: nobody must repeat it.
            where = (("Location", f"{self.url}/elsewhere"),) if 300 <= how < 400 else ()
            send(handler, Answer(how, request.body, (("Content-Type", "text/plain"), *where)))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = PATIENCE

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                server._respond(Request(self.command, self.path, headers, body), self)

            def log_message(self, format: str, *_: Any) -> None:  # noqa: A002  # its own name
                """Say nothing."""

        return Handler


def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    """Write a whole answer."""
    handler.send_response(answer.status)
    for name, value in answer.headers:
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(answer.body)))
    handler.end_headers()
    handler.wfile.write(answer.body)
    handler.wfile.flush()
