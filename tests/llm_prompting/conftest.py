"""A language model server on loopback that behaves as badly as it is told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of the server: a chat completion, unless `body` says otherwise."""

    content: str | None = None
    refusal: str | None = None
    finish_reason: str = "stop"
    status: int = 200
    body: bytes | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    drip_s: float = 0.0
    hang_up: bool = False

    def to_bytes(self) -> bytes:
        if self.body is not None:
            return self.body
        message = {"role": "assistant", "content": self.content, "refusal": self.refusal}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
        return json.dumps(completion | {"choices": [choice]}).encode()


class LanguageServer:
    """Gives the replies of its script in order, the last one for ever; keeps what it was asked."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.rejects_schemas = False
        self._closing = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        body["path"], body["key"] = handler.path, handler.headers["Authorization"]
        self.requests.append(body)
        if self.rejects_schemas and "response_format" in body:
            reply = Reply(status=400, body=b'{"error": {"message": "unknown response_format"}}')
        else:
            reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self._closing.wait(reply.wait_s)
        if not reply.hang_up:
            self._write(handler, reply)
        handler.close_connection = True

    def _write(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        data = reply.to_bytes()
        try:
            handler.send_response(reply.status)
            handler.send_header("Content-Type", reply.content_type)
            handler.send_header("Content-Length", str(len(data)))
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            pieces = [data[at : at + 1] for at in range(len(data))] if reply.drip_s else [data]
            for piece in pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()
                if self._closing.is_set():
                    break
                time.sleep(reply.drip_s)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client did not wait


@pytest.fixture
def language_server() -> Iterator[LanguageServer]:
    server = LanguageServer()
    yield server
    server.close()


@pytest.fixture
def reply() -> Callable[..., Reply]:
    return Reply
