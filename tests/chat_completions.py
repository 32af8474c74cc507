"""A server that speaks OpenAI's chat completions, as far as a test tells it what to answer."""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.stoppable import Stoppable

Answer = Response | Callable[[Request], Awaitable[Response]]


@dataclass
class ChatCompletions:
    """What it was asked, and what it will answer; without an answer it says NOTHING."""

    base_url: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    asked: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    """The body of each request, with its headers under `headers`."""
    given_up: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    """One for each request whose answer nobody waited for."""

    async def answer(self, request: Request) -> Response:
        """`POST /v1/chat/completions`"""
        self.asked.put_nowait({**await request.json(), "headers": dict(request.headers)})
        answer = self.answers.popleft() if self.answers else says("NOTHING")
        return answer if isinstance(answer, Response) else await answer(request)

    async def hang(self, request: Request) -> Response:
        """An answer that never comes."""
        await request.receive()  # its body has come: what comes now is that nobody waits any more
        self.given_up.put_nowait(None)
        return says("Too late.")


def says(content: str | None, **more: Any) -> Response:
    """A completion."""
    message = {"role": "assistant", "content": content, **more}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return JSONResponse({"id": "c1", "object": "chat.completion", "created": 0, "model": "test", "choices": [choice]})


def calls(*functions: tuple[str, str]) -> Response:
    """A completion that calls tools, each by its name and its arguments as JSON."""
    return says(
        None,
        tool_calls=[
            {"id": f"call{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(functions)
        ],
    )


@asynccontextmanager
async def serve_chat_completions() -> AsyncIterator[ChatCompletions]:
    """The server, on a port of its own."""
    model = ChatCompletions()
    app = Starlette(routes=[Route("/v1/chat/completions", model.answer, methods=["POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        model.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        server = Stoppable(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield model
        finally:
            await server.stop(serving)
