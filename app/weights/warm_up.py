"""Real requests through the whole application, without a socket."""

import asyncio
import json
from collections.abc import Mapping, Sequence

from starlette.types import ASGIApp, Message

from app.access.auth import INTERNAL
from app.schemas.images import PROMPT_EXAMPLE
from core.errors import ConfigError

PATH = "/v1/images/generations"


async def warm_up(app: ASGIApp, variants: Sequence[str]) -> None:
    """Paint one picture with each variant as a client would, through middleware and queue.

    Args:
        app: The application, its models loaded.
        variants: What to paint with.

    Raises:
        ConfigError: If the answer is no success; the message is the answer's. A bug comes through
            as it is.
    """
    for variant in variants:
        asked = {"prompt": PROMPT_EXAMPLE, "seed": 0, "variant": variant, "user": "warm-up"}
        status, body = await _post(app, asked)
        if status != 200:
            raise ConfigError(json.loads(body)["error"]["message"])


async def _post(app: ASGIApp, payload: Mapping[str, object]) -> tuple[int, bytes]:
    content = json.dumps(payload).encode()
    to_send: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]
    received: list[Message] = []

    async def receive() -> Message:
        if to_send:
            return to_send.pop()
        await asyncio.Event().wait()  # this client never leaves
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        received.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ],
        "client": None,
        "server": ("localhost", 80),
        "state": {},
        INTERNAL: True,
    }
    await app(scope, receive, send)
    return received[0]["status"], b"".join(message.get("body", b"") for message in received)
