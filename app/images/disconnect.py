"""Work that ends when its caller leaves."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.images.generation import EVENTS, Stream
from core.errors import GenerationCancelledError, ShuttingDownError

Answer = TypeVar("Answer")

STREAM_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy that collects events first would defeat the stream
}


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Do work, or cancel it as soon as the caller has left.

    Args:
        request: Whose connection is watched; its body has been read.
        work: The work.

    Returns:
        What the work returns.

    Raises:
        GenerationCancelledError: If the caller left.
        ShuttingDownError: If the server's time to finish what was accepted is over.
    """
    # a race between the work and the caller's patience; whoever loses is cancelled
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_until_disconnected(request.receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GenerationCancelledError("The caller left before the picture was finished.")
        return task.result()
    except asyncio.CancelledError as error:
        # only the server cancels a request
        raise ShuttingDownError(
            "The server is shutting down and stopped before the picture was finished.",
            retry_after_s=10.0,
        ) from error
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.wait((task, watch))


class StreamResponse(Response):
    """Sends a stream's events as they come, and closes the stream however this ends.

    Starlette's own response watches the connection only under some servers, and closes nothing if
    the caller left before the first event.

    Args:
        stream: The events.
        on_disconnect: Called if the caller left before the last one.
        headers: Further headers.
    """

    media_type = EVENTS

    def __init__(
        self, stream: Stream, on_disconnect: Callable[[], None], headers: dict[str, str]
    ) -> None:
        self.status_code = 200
        self.background = None
        self._stream = stream
        self._on_disconnect = on_disconnect
        self.init_headers({**STREAM_HEADERS, **headers})

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events.

        Args:
            _scope: ASGI's description of the request.
            receive: Tells that the caller has left.
            send: Where the events go.
        """
        sending = asyncio.create_task(self._send(send))
        watch = asyncio.create_task(_until_disconnected(receive))
        try:
            await asyncio.wait((sending, watch), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            else:
                self._on_disconnect()
        finally:
            sending.cancel()
            watch.cancel()
            await asyncio.wait((sending, watch))
            await self._stream.close()

    async def _send(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        async for chunk in self._stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
