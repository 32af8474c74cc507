"""Both functions of the deployment on Modal serve calls: run here, with nano, over real sockets."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.exceptions import InvalidStatus

from core.http.listening import bind
from core.http.uvicorn_server import GracefulServer
from core.session.protocol import Kind
from core.settings.sections import ServerConfig
from tests.caller import dial
from tests.conftest import speech
from tests.deployed import AFTER, EXIT, PASSWORD, Deployed, container, deploy, hooks, place

pytestmark = pytest.mark.modal
asgi = pytest.importorskip("modal._runtime.asgi")
__all__ = ["place"]  # a fixture


@asynccontextmanager
async def running(app: Any, listener: Any) -> AsyncIterator[str]:
    """An app with its lifespan, as Modal runs it; its address."""
    ready = asyncio.Event()
    server = GracefulServer(app, ServerConfig(), ready.set)
    async with app.router.lifespan_context(app):
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await ready.wait()
        yield f"http://localhost:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


async def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and body of a GET, or of a POST of `data`."""

    def fetch() -> tuple[int, Any, bytes]:
        request = urllib.request.Request(url, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    status, found, body = await asyncio.to_thread(fetch)
    return status, found, json.loads(body) if "json" in found.get("content-type", "") else body


@pytest.fixture
def listeners() -> Iterator[tuple[Any, Any]]:
    with bind(ServerConfig(port=0)) as page, bind(ServerConfig(port=0)) as gpu:
        yield page, gpu


@pytest.mark.filterwarnings("ignore:The .* function is executing locally")
async def test_a_whole_call_through_both_functions(
    monkeypatch: pytest.MonkeyPatch, place: Path, listeners: tuple[Any, Any]
) -> None:
    app = deploy(monkeypatch, place)
    urls = {name: f"http://localhost:{socket.getsockname()[1]}" for name, socket in zip("PG", listeners, strict=True)}
    monkeypatch.setattr(app, "address", lambda web: urls[str(web)[7]])
    gpu, page = app.Gpu(), app.Page()
    async with running(gpu.web.local(), listeners[1]) as calls, running(page.web.local(), listeners[0]) as home:
        # The page, and who may come in.
        status, headers, body = await ask(f"{home}/")
        assert (status, body[:15]) == (200, b"<!doctype html>")
        socket = calls.replace("http", "ws")
        assert f"connect-src 'self' {socket} {calls};" in headers["content-security-policy"]
        _, _, session = await ask(f"{home}/session")
        assert session["calls"] == {"url": socket, "ticket": True, "wake": "call", "wake_s": 30}
        assert session["engine"]["name"] == "nano"
        assert (await ask(f"{home}/personas"))[0] == 401
        assert (await ask(f"{home}/ticket", b""))[0] == 401
        status, headers, _ = await ask(f"{home}/login", b"password=open+sesame", Origin=home)
        assert status == 204
        cookie = headers["set-cookie"].partition(";")[0]
        _, _, listed = await ask(f"{home}/personas", Cookie=cookie)
        assert listed["default"] == "assistant"
        _, _, voices = await ask(f"{home}/voices", Cookie=cookie)
        assert voices == {"voices": ["NATF2", "NATM2", "VARF0", "VARM0"]}
        with pytest.raises(InvalidStatus):
            async with dial(home.replace("http", "ws") + "/ws/chat"):
                pass

        # The GPU says to the page that it is awake, and to nobody else's.
        _, headers, health = await ask(f"{calls}/health", Origin=home)
        assert headers["access-control-allow-origin"] == home
        assert health["engine"]["slots"] == 2
        assert "access-control-allow-origin" not in (await ask(f"{calls}/health", Origin="https://evil.example"))[1]
        for path in ("/", "/personas", "/voices", "/session"):
            assert (await ask(f"{calls}{path}"))[0] == 404

        # A ticket of the one opens the other, once.
        _, _, ticket = await ask(f"{home}/ticket", b"", Cookie=cookie, Origin=home)
        address = f"{socket}/ws/chat?persona=hotel&audio=pcm&seed=1&ticket={ticket['ticket']}"
        async with dial(address, "pcm", origin=home) as caller:
            await caller.shake_hands()
            assert caller.metadata[-1]["persona"] == "hotel"
            assert len(await caller.talk(speech(0.8))) == 10 * 1920
        for refused, options in (
            (address, {"origin": home}),
            (f"{socket}/ws/chat", {"origin": home}),
            (f"{socket}/ws/chat", {"origin": "https://evil.example", "additional_headers": bearer()}),
        ):
            with pytest.raises(InvalidStatus) as refusal:
                async with dial(refused, **options):
                    pass
            assert refusal.value.response.status_code in (401, 403)

        # A client that is no page gives the password.
        async with dial(f"{socket}/api/chat", additional_headers=bearer()) as caller:
            await caller.shake_hands()
    hooks(gpu._cached_user_cls_instance(), EXIT)["stop"]()


def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {PASSWORD}"}


async def test_settings_on_the_volume_go_before_the_checkout_s(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    app = deploy(monkeypatch, place)
    assert app.configured("gpu").voices.allow == ("NATF2", "NATM2", "VARF0", "VARM0")
    (place / "config.yaml").write_text(yaml.safe_dump({"voices": {"allow": ["VARM*"]}}))
    config = app.configured("gpu", origins=("https://page.example",))
    assert config.voices.allow == ("VARM*",)
    assert config.server.origins == ("https://page.example",)
    assert config.voices.folder == str(place / "voices")


async def test_the_volume_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Deployed(monkeypatch).app
    looked, served, now = [], [], [0.0]

    class Volume:
        class reload:  # noqa: N801 - Modal's way to say await: volume.reload.aio()
            @staticmethod
            async def aio() -> None:
                looked.append(now[0])
                if len(looked) > 1:
                    raise RuntimeError("there are open files preventing the operation")

    async def inner(scope: Any, _receive: Any, _send: Any) -> None:
        served.append(scope["type"])

    fresh = app.FreshVolume(inner, Volume(), lambda: now[0])
    for at, kind in ((0, "lifespan"), (5, "http"), (21, "http"), (22, "websocket"), (42, "http"), (99, "lifespan")):
        now[0] = at
        await fresh({"type": kind}, None, None)
    assert looked == [21, 42]
    assert len(served) == 6, "a Volume that cannot be looked at keeps nobody out"


async def test_a_call_behind_modal_s_own_adapter(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """What stands between Modal's front and our app in a container: one generator of messages a connection."""
    gpu = container(deploy(monkeypatch, place), "Gpu")
    hooks(gpu, AFTER)["start"]()
    given: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    class Inputs:
        class get_data_in:  # noqa: N801 - Modal's way to say await
            @staticmethod
            async def aio(_call: str, _attempt: str) -> AsyncIterator[dict[str, Any]]:
                while True:
                    yield await given.get()

    monkeypatch.setattr(asgi, "current_function_call_id", lambda: "fc-1")
    monkeypatch.setattr(asgi, "current_attempt_token", lambda: "1")
    connection, lifespan = asgi.asgi_app_wrapper(gpu.service, Inputs())
    life = asyncio.create_task(lifespan.background_task())
    await lifespan.lifespan_startup()
    headers = [(name.lower().encode(), value.encode()) for name, value in {"Host": "gpu", **bearer()}.items()]
    scope = {"type": "websocket", "path": "/ws/chat", "query_string": b"audio=pcm", "headers": headers}
    await given.put({"type": "websocket.connect"})
    kinds, frame = [], bytes([Kind.AUDIO]) + bytes(2 * 1920)
    async with asyncio.timeout(20):
        async for message in connection(scope):
            kind = message["bytes"][0] if message["type"] == "websocket.send" else message["type"]
            kinds.append(kind)
            if kind == Kind.HANDSHAKE:
                await given.put({"type": "websocket.receive", "bytes": frame})
            elif kind == Kind.AUDIO:
                await given.put({"type": "websocket.disconnect", "code": 1000})
    assert kinds[0] == "websocket.accept"
    assert {Kind.METADATA, Kind.HANDSHAKE, Kind.AUDIO} <= set(kinds)
    assert gpu.engine.health().busy == 0
    await lifespan.lifespan_shutdown()
    await life
    hooks(gpu, EXIT)["stop"]()


async def test_a_refusal_where_the_server_can_only_close(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    gpu = container(deploy(monkeypatch, place), "Gpu")
    hooks(gpu, AFTER)["start"]()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/ws/chat",
        "headers": [(b"host", b"x")],
        "query_string": b"",
        "scheme": "wss",
    }
    async with gpu.service.router.lifespan_context(gpu.service):
        await gpu.service(dict(scope), receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    hooks(gpu, EXIT)["stop"]()
