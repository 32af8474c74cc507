"""Bodies of requests are bounded in size and time by the app itself, whichever server runs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from core.http.app import create_app
from core.plugin.host import PluginHost
from core.settings.config import load_config
from core.testing import EchoEngine
from tests.conftest import write_config

LOGIN = {"plugins": {"options": {"password": {"password": "open sesame"}}}}


@asynccontextmanager
async def served(folder: Path, **server: Any) -> AsyncIterator[Any]:
    """The app as any ASGI server would run it."""
    config = load_config(write_config(folder, {"server": server, **LOGIN}), {})
    app = create_app(config, EchoEngine(), PluginHost.load(config))
    async with app.router.lifespan_context(app):
        yield app


async def post(app: Any, path: str, *pieces: bytes, announced: int = 0) -> int:
    """Send these pieces of a body that never ends; the status of the answer."""
    headers = [(b"host", b"localhost")] + ([(b"content-length", b"%d" % announced)] if announced else [])
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("localhost", 80),
        "client": ("192.0.2.1", 1),
        "http_version": "1.1",
        "root_path": "",
    }
    waiting, sent = list(pieces), []

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": waiting.pop(0), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        await app(scope, receive, send)
    return int(sent[0]["status"])


async def test_a_body_that_never_comes_holds_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, request_s=0.2) as app:
        assert await post(app, "/login", b"p", announced=1000) == 408


async def test_a_body_that_is_too_large_is_refused_before_and_while_it_is_read(tmp_path: Path) -> None:
    async with served(tmp_path, max_request_bytes=8192) as app:
        assert await post(app, "/login", announced=8193) == 413
        assert await post(app, "/login", announced=10**30) == 413
        assert await post(app, "/login", *[b"x" * 4000] * 3) == 413


@pytest.mark.parametrize("path", ["/login", "/ticket", "/logout", "/metrics", "/personas", "/session", "/"])
async def test_the_role_gpu_serves_two_sockets_and_health_alone(tmp_path: Path, path: str) -> None:
    async with served(tmp_path, role="gpu") as app:
        assert await post(app, path, b"password=open+sesame", announced=1000) == 404
        assert await post(app, "/api/chat", announced=1000) == 405
