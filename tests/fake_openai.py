"""An OpenAI on loopback: files, batches that are done when told so, background answers, chat and its streams."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
RESPONSE_USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 30,
}


@dataclass
class OpenAI:
    """What the provider holds, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    responses: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    fails_next: int = 0
    fails_model: str = ""
    breaks_off: int = 0  # so many streams, in the middle
    waits: threading.Event | None = None  # what an answer of chat that is asked for now waits for
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def finish(self) -> None:
        """Complete every batch and every background answer; each line of a batch costs the usual usage."""
        for batch in self.batches.values():
            if batch["status"] == "in_progress":
                lines = self.files[batch["input_file_id"]].decode().splitlines()
                output = f"file-out{next(self.numbers)}"
                self.files[output] = "\n".join(
                    json.dumps(
                        {
                            "id": f"line{number}",
                            "custom_id": str(number),
                            "error": None,
                            "response": {
                                "status_code": 200,
                                "body": {**_completion(json.loads(line)["body"]["model"])},
                            },
                        }
                    )
                    for number, line in enumerate(lines)
                ).encode()
                batch.update(status="completed", output_file_id=output, completed_at=2)
        for response in self.responses.values():
            if response["status"] == "in_progress":
                response.update(status="completed", usage=RESPONSE_USAGE, output=[_message()])


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone away."""


@contextmanager
def fake_openai() -> Iterator[OpenAI]:
    """Run one until the block ends."""
    provider = OpenAI()
    server = _Server(("127.0.0.1", 0), _handler(provider))
    provider.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()


def _completion(model: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello"},
            }
        ],
        "usage": USAGE,
    }


def _message() -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
    }


def _handler(provider: OpenAI) -> type[BaseHTTPRequestHandler]:  # noqa: C901  # it is one class
    class Handler(BaseHTTPRequestHandler):
        """Answers as the provider does."""

        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's own name
            """Say nothing."""

        def do_GET(self) -> None:  # the base's own name
            self._route(b"")

        def do_DELETE(self) -> None:
            self._route(b"")

        def do_POST(self) -> None:
            self._route(self.rfile.read(int(self.headers.get("content-length") or 0)))

        def _route(self, body: bytes) -> None:
            path = self.path.partition("?")[0].removeprefix("/v1")
            waits = provider.waits  # first: whoever has seen that it was asked may take it away
            provider.asked.append(f"{self.command} {path}")
            noun, *rest = path.strip("/").split("/")
            if self.command == "POST" and provider.fails_next:
                provider.fails_next -= 1
                self._answer({"error": {"message": "no", "type": "server_error"}}, 500)
            elif noun == "files":
                self._files(rest, body)
            elif noun == "batches":
                self._batches(rest, body)
            elif noun == "responses":
                self._responses(rest, body)
            elif noun == "completions":
                said = {"index": 0, "text": "Hello", "finish_reason": "stop"}
                answer = _completion(json.loads(body)["model"])
                self._answer({**answer, "object": "text_completion", "choices": [said]})
            elif noun == "chat":
                self._chat(json.loads(body), waits)
            elif noun == "mcp" and body:
                self._mcp(json.loads(body))
            else:
                self._answer({"error": {"message": "not found"}}, 404)

        def _files(self, rest: list[str], body: bytes) -> None:
            if not rest:
                name = f"file-{next(provider.numbers)}"
                provider.files[name] = _uploaded(body)
            else:
                name = rest[0]
            if rest[1:] == ["content"]:
                self._raw(provider.files[name], "application/jsonl")
                return
            self._answer(
                {
                    "id": name,
                    "object": "file",
                    "bytes": 1,
                    "created_at": 1,
                    "filename": "a.jsonl",
                    "purpose": "batch",
                    "status": "processed",
                }
            )

        def _batches(self, rest: list[str], body: bytes) -> None:
            if not rest and self.command == "POST":
                asked = json.loads(body)
                name = f"batch_{next(provider.numbers)}"
                provider.batches[name] = {
                    "id": name,
                    "object": "batch",
                    "endpoint": asked["endpoint"],
                    "input_file_id": asked["input_file_id"],
                    "completion_window": "24h",
                    "status": "in_progress",
                    "created_at": 1,
                }
                self._answer(provider.batches[name])
            elif not rest:
                self._answer({"object": "list", "data": list(provider.batches.values())})
            else:
                self._answer(provider.batches[rest[0]])

        def _responses(self, rest: list[str], body: bytes) -> None:
            if rest == ["compact"]:
                said = {"object": "response.compaction", "output": [_message()]}
                self._answer({"id": "resp_c", "created_at": 1, **said, "usage": RESPONSE_USAGE})
                return
            if rest:
                self._answer(provider.responses[rest[0]])
                return
            asked = json.loads(body)
            name = f"resp_{next(provider.numbers)}"
            is_background = bool(asked.get("background"))
            provider.responses[name] = {
                "id": name,
                "object": "response",
                "created_at": 1,
                "model": asked["model"],
                "background": is_background,
                "status": "in_progress" if is_background else "completed",
                "output": [] if is_background else [_message()],
                "usage": None if is_background else RESPONSE_USAGE,
                "parallel_tool_calls": True,
                "tool_choice": "auto",
                "tools": [],
                "error": None,
            }
            if asked.get("stream"):
                self._stream_response(provider.responses[name])
            else:
                self._answer(provider.responses[name])

        def _stream_response(self, response: dict[str, Any]) -> None:
            events: list[dict[str, Any]] = [
                {"type": "response.created", "response": {**response, "status": "in_progress"}},
                {
                    "type": "response.output_text.delta",
                    "item_id": "msg_1",
                    "output_index": 0,
                    "content_index": 0,
                    "delta": "Hello",
                },
                {"type": "response.completed", "response": response},
            ]
            pieces = [
                f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n"
                for number, event in enumerate(events)
            ]
            if provider.breaks_off:
                provider.breaks_off -= 1
                self.close_connection = True
                promised = len("".join(pieces))
                self._raw("".join(pieces[:-1]).encode(), "text/event-stream", length=promised)
                return
            self._raw("".join(pieces).encode(), "text/event-stream")

        def _chat(self, asked: dict[str, Any], waits: threading.Event | None) -> None:
            if waits is not None:
                waits.wait(60)
            if asked["model"] == provider.fails_model:
                self._answer({"error": {"message": "no", "type": "server_error"}}, 500)
                return
            if not asked.get("stream"):
                self._answer(_completion(asked["model"]))
                return
            pieces: list[dict[str, Any]] = [
                {"choices": [{"index": 0, "delta": {"role": "assistant", "content": word}}]}
                for word in ["Hello"] * 20
            ]
            pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            pieces.append({"choices": [], "usage": USAGE})
            common = {
                "id": "chatcmpl-2",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": asked["model"],
            }
            events = [f"data: {json.dumps({**common, **piece})}\n\n" for piece in pieces]
            text = "".join([*events, "data: [DONE]\n\n"]).encode()
            if provider.breaks_off:
                provider.breaks_off -= 1
                self.close_connection = True
                text, promised = text[: len(text) // 2], len(text)
                self._raw(text, "text/event-stream", length=promised)
                return
            self._raw(text, "text/event-stream")

        def _mcp(self, asked: dict[str, Any]) -> None:
            """Answer as a server of MCP with one tool."""
            if "id" not in asked:
                self._raw(b"", "application/json", 202)
                return
            answers: dict[str, dict[str, Any]] = {
                "initialize": {
                    "protocolVersion": (asked.get("params") or {}).get("protocolVersion"),
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "tools", "version": "1"},
                },
                "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]},
                "tools/call": {"content": [{"type": "text", "text": "Hello"}]},
            }
            self._answer(
                {"jsonrpc": "2.0", "id": asked["id"], "result": answers.get(asked["method"], {})}
            )

        def _answer(self, document: dict[str, Any], status: int = 200) -> None:
            self._raw(json.dumps(document).encode(), "application/json", status)

        def _raw(
            self, body: bytes, kind: str, status: int = 200, *, length: int | None = None
        ) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _uploaded(body: bytes) -> bytes:
    """Return the part of a multipart upload that is a JSONL file."""
    lines = [line for line in body.replace(b"\r", b"").split(b"\n") if line.startswith(b"{")]
    return b"\n".join(lines)
