"""The bodies of requests: how large one may be, and how long it may take to come, whichever server runs the app."""

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestBodies:
    """ASGI middleware that ends requests whose body is too large or drips, with 413 and 408.

    Where the server has no deadline of its own, as on Modal, a client that announces a body and never sends it would
    else hold a request, and what is paid for it, for as long as the server lets it.
    """

    def __init__(
        self, app: ASGIApp, most_bytes: int, within_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`within_s` counts from the first read to the end of the body; `clock` gives seconds."""
        self._app = app
        self._most_bytes = most_bytes
        self._within_s = within_s
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._most_bytes:
            too_large = self._too_large()
            response = JSONResponse({"error": too_large.detail}, too_large.status_code, too_large.headers)
            await response(scope, receive, send)
            return
        deadline, size, whole = 0.0, 0, False

        async def bounded_receive() -> Message:
            nonlocal deadline, size, whole
            if whole:  # what comes next is that the client has gone, at any time
                return await receive()
            deadline = deadline or self._clock() + self._within_s
            try:
                async with asyncio.timeout(max(deadline - self._clock(), 0.0)):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408,
                    f"The request's body did not come within {self._within_s:g} s.",
                    headers={"connection": "close"},
                ) from None
            size += len(message.get("body", b""))
            if size > self._most_bytes:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        await self._app(scope, bounded_receive, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"A request may have at most {self._most_bytes} bytes.", headers={"connection": "close"}
        )
