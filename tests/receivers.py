"""Real servers on loopback that take what keyctl sends: webhooks over HTTP, mail over SMTP with TLS."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(slots=True)
class Received:
    """A webhook that came in: its id, and its body after the signature was verified."""

    id: str
    body: dict[str, Any]


@dataclass(slots=True)
class WebServer:
    """A web server that verifies signatures, and misbehaves as `behaviour` says.

    `200`, `500`, `301` are answers; `hang` never answers, `reset` drops the connection, `drip` sends a
    byte now and then.  `arrived` is set with each request.
    """

    url: str = ""
    behaviour: str = "200"
    received: list[Received] = field(default_factory=list)
    attempts: int = 0
    arrived: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = request.rfile.read(int(request.headers["content-length"]))
        data = Webhook(SECRET).verify(body, dict(request.headers.items()))
        self.attempts += 1
        if self.behaviour.isdigit():
            if self.behaviour == "200":
                self.received.append(Received(request.headers["webhook-id"], data))
            request.send_response(int(self.behaviour))
            request.send_header("location", f"{self.url}elsewhere")
            request.send_header("content-length", "0")
            request.end_headers()
        self.arrived.set()
        if self.behaviour == "hang":
            self.over.wait(30)
        elif self.behaviour == "drip":
            for _ in range(300):
                if self.over.is_set():
                    return
                request.wfile.write(b"H")
                request.wfile.flush()
                time.sleep(0.1)
        elif self.behaviour == "reset":
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.connection.close()


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Run a web server on loopback."""
    state = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.handle(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            pass  # a client that went away is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


@dataclass(slots=True)
class MailServer:
    """An SMTP server; `letters` are what it took, `certificate` is what its clients must trust."""

    port: int
    tls: str
    certificate: Path
    letters: list[Any] = field(default_factory=list)
    refuses: bool = False

    async def handle_DATA(  # noqa: N802  # aiosmtpd's name
        self, _server: Any, session: Any, envelope: Any
    ) -> str:
        """Take a mail, or refuse it."""
        if self.refuses:
            return "451 try again later"
        self.letters.append((self.tls == "tls" or session.ssl is not None, envelope))
        return "250 taken"


def _authenticate(_server: Any, _session: Any, _envelope: Any, _kind: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"keyctl", b"s3cret")
    return AuthResult(success=good, handled=False)


@contextmanager
def mail_server(folder: Path, *, tls: str) -> Iterator[MailServer]:
    """Run an SMTP server on loopback that demands TLS, by STARTTLS or from the start, and a login."""
    authority = trustme.CA()
    certificate = folder / "ca.pem"
    authority.cert_pem.write_to_path(certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = MailServer(port, tls, certificate)
    options: dict[str, Any] = (
        {"ssl_context": context}
        if tls == "tls"
        else {"tls_context": context, "require_starttls": True}
    )
    controller = Controller(
        state,
        hostname="127.0.0.1",
        port=port,
        server_hostname="localhost",
        auth_required=True,
        auth_require_tls=tls == "starttls",
        authenticator=_authenticate,
        **options,
    )
    controller.start()
    try:
        yield state
    finally:
        controller.stop()


def lines_of(text: str) -> list[Any]:
    """Return the JSON values of lines."""
    return [json.loads(line) for line in text.splitlines()]
