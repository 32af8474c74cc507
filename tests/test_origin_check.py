"""Cross-site requests, host names that are not ours, and callers who are not logged in are refused on every route."""

import asyncio
import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from core import public
from core.boot.check import require_protection
from core.cli.main import main
from core.errors import ConfigError
from core.events import CallRefused, Identity
from core.http.headers import HEADERS
from core.plugin.hookspecs import hookimpl
from core.settings.config import load_config
from core.settings.hosts import is_loopback
from core.settings.sections import ServerConfig
from tests.caller import dial, get, refused
from tests.conftest import Running, Serve, write_config
from tests.test_password import ANN_AND_BOB, bearer, logged_in, post


async def raw(running: Running, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes; status, headers (small letters) and body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request)
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        body = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                body = await reader.read(4096)
    writer.close()
    first, *lines = head.strip().split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}, body


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://127.0.0.1.evil.example",
        "file://",
        "chrome-extension://abc",
        "\xff",
    ],
)
async def test_a_page_of_another_site_gets_no_socket_and_changes_nothing(serve: Serve, origin: str) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    cookie = await logged_in(running, "sesame")
    headers = {"Origin": origin, "Cookie": cookie}
    for path in ("/ws/chat", "/api/chat"):
        status, message = await refused(running, path, additional_headers=headers)
        assert (status, "server.origins" in message) == (403, True)
    for path in ("/login", "/logout", "/ticket"):
        status, answer, _ = await post(running, path, {"password": "saffron"}, **headers)
        assert status == 403
        assert "set-cookie" not in answer
    assert running.engine.opened == 0
    assert running.record.service_events[0] == CallRefused("cross_site", 403, "/ws/chat", "127.0.0.1")


async def test_our_own_page_known_sites_and_what_is_no_browser_are_let_in(serve: Serve) -> None:
    running = await serve(server={"origins": ["https://friend.example"]})
    own = f"http://127.0.0.1:{running.port}"
    for origin in (own, own.upper(), "https://friend.example", None):
        headers = {"Origin": origin} if origin else {}
        async with dial(running.url(), additional_headers=headers) as caller:
            await caller.shake_hands()
    assert (await refused(running, "/ws/chat", additional_headers={"Origin": "http://friend.example"}))[0] == 403


async def test_behind_a_proxy_with_tls_the_page_is_its_own_site(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    for host, origin, status in (
        ("talk.example", "https://talk.example", 204),
        ("talk.example:443", "https://talk.example", 204),
        ("TALK.example", "https://talk.example", 204),
        ("talk.example:8443", "https://talk.example", 403),
        ("inner:8998", "https://talk.example", 403),
    ):
        answer, _, _ = await post(running, "/login", {"password": "sesame"}, Host=host, Origin=origin)
        assert answer == status, host


async def test_two_origins_are_none(serve: Serve) -> None:
    running = await serve()
    own = f"http://127.0.0.1:{running.port}"
    origins = f"Origin: {own}\r\nOrigin: https://evil.example\r\n"
    answer = await raw(running, f"POST /logout HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n{origins}\r\n".encode())
    assert answer[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8998", "localhost.evil.example", "127.0.0.1.nip.io", "]"]
)
async def test_without_a_password_no_site_can_make_its_name_ours(serve: Serve, host: str) -> None:
    running = await serve()
    headers = f"GET /personas HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    status, _, body = await raw(running, headers)
    assert status == 403
    assert "server.insecure" in json.loads(body)["error"]


async def test_this_machines_names_and_named_sites_are_answered(serve: Serve) -> None:
    running = await serve(server={"origins": ["https://friend.example"]})
    for host in ("localhost", f"127.0.0.1:{running.port}", "[::1]:8998", "192.168.1.7", "friend.example"):
        assert (await raw(running, f"GET /personas HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()))[0] == 200, host


@pytest.mark.parametrize("settings", [{"plugins": ANN_AND_BOB}, {"server": {"insecure": True}}])
async def test_any_name_is_answered_where_that_is_safe_or_allowed(serve: Serve, settings: dict[str, Any]) -> None:
    running = await serve(**settings)
    assert (await raw(running, b"GET / HTTP/1.1\r\nHost: talk.example\r\n\r\n"))[0] == 200


class Routes:
    """Routes of a plugin."""

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        return [
            Route("/who", self.who),
            Route("/open", self.open),
            Mount("/below", routes=[Route("/who", self.who)]),
            WebSocketRoute("/line", self.line),
        ]

    async def who(self, request: Request) -> JSONResponse:
        return JSONResponse(request.state.identity.name)

    @public
    async def open(self, request: Request) -> JSONResponse:
        return JSONResponse("open")

    async def line(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.state.identity.name)
        await websocket.close()


async def test_routes_of_plugins_are_for_callers_unless_they_are_public(serve: Serve) -> None:
    running = await serve(extra=(Routes(),), plugins=ANN_AND_BOB)
    for path in ("/who", "/below/who"):
        status, headers, _ = await get(running, path)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert json.loads((await get(running, path, **bearer("saffron")))[2]) == "bob"
    assert (await get(running, "/open"))[0] == 200
    assert (await refused(running, "/line"))[0] == 401
    assert (await refused(running, "/line", additional_headers={"Origin": "https://evil.example"}))[0] == 403
    async with connect(running.url("/line"), additional_headers=bearer("sesame"), proxy=None) as line:
        assert await line.recv() == "ann"


class OpenPage(HTTPEndpoint):
    """An endpoint that is a class, and public."""

    async def get(self, request: Request) -> JSONResponse:
        return JSONResponse("open")


class Ledger(public(OpenPage)):  # type: ignore[misc] # a decorated class as a base
    """One that inherits from it, and is not."""


class Lookalikes(Routes):
    """Endpoints that have to do with public ones, and are not public themselves."""

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        return [
            Route("/page", OpenPage),
            Route("/ledger", Ledger),
            Route("/wrapped", self.wrapped),
            Route("/partial", functools.partial(self.open)),
            Route("/inherited", self.open),
        ]

    @functools.wraps(Routes.open)
    async def wrapped(self, request: Request) -> JSONResponse:
        return JSONResponse("secret")


async def test_only_what_is_marked_itself_is_public(serve: Serve) -> None:
    running = await serve(extra=(Lookalikes(),), plugins=ANN_AND_BOB)
    statuses = {path: (await get(running, path))[0] for path in ("/page", "/inherited")}
    assert set(statuses.values()) == {200}
    for path in ("/ledger", "/wrapped", "/partial"):
        assert (await get(running, path))[0] == 401, path
        assert (await get(running, path, **bearer("saffron")))[0] == 200


async def test_without_a_password_everybody_is_anonymous_there(serve: Serve) -> None:
    running = await serve(extra=(Routes(),))
    assert json.loads((await get(running, "/who"))[2]) == "anonymous"


class Broken:
    """A plugin whose route fails."""

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        return [Route("/broken", self.broken)]

    async def broken(self, request: Request) -> JSONResponse:
        raise RuntimeError("secret detail")


UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"DELETE /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /personas HTTP/1.1\r\nHost: localhost\r\n\r\n", 401),
        (b"GET /broken HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sesame\r\n\r\n", 500),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n", 403),
        (b"POST /logout HTTP/1.1\r\nHost: localhost\r\n\r\n", 204),
        (b"no http at all\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /ws/chat HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"\r\n", 400),
        (b"GET /ws/chat HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"Sec-WebSocket-Key: eA==\r\n\r\n", 400),
        (
            b"GET /ws/chat HTTP/1.1\r\nHost: localhost\r\n"
            + UPGRADE
            + b"Sec-WebSocket-Key: "
            + b"A" * 22
            + b"==\r\n\r\n",
            401,
        ),
        (
            b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n"
            + UPGRADE
            + b"Sec-WebSocket-Key: "
            + b"A" * 22
            + b"==\r\n\r\n",
            403,
        ),
    ],
)
async def test_every_answer_has_the_headers(serve: Serve, request_: bytes, status: int) -> None:
    running = await serve(extra=(Broken(),), plugins=ANN_AND_BOB)
    answer, headers, body = await raw(running, request_)
    assert answer == status
    for name, value in HEADERS.items():
        assert headers[name] == (value if name != "cache-control" or status != 200 else "no-cache"), name
    assert "server" not in headers
    assert b"secret" not in body


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_public_address_needs_protection(host: str) -> None:
    with pytest.raises(ConfigError, match=r"PERSONAPLEX_PASSWORD.*--insecure"):
        require_protection(ServerConfig(host=host), protected=False)
    require_protection(ServerConfig(host=host), protected=True)
    require_protection(ServerConfig(host=host, insecure=True), protected=False)
    assert not is_loopback(host)


def test_serve_says_so_before_anything_slow(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"engine": {"checkpoint": "no/such", "offline": True, "name": "personaplex"}})
    arguments = ["serve", "--config", str(config), "--host", "0.0.0.0"]
    refused_ = CliRunner().invoke(main, arguments)
    assert refused_.exit_code == 1
    assert "nobody would have to log in" in refused_.output
    named = CliRunner().invoke(main, ["check", "--config", str(config)], env={"PERSONAPLEX_SERVER__HOST": "0.0.0.0"})
    assert named.exit_code == 1
    assert "nobody would have to log in" in named.output
    allowed = CliRunner().invoke(main, [*arguments, "--insecure"])  # which then fails for want of a model
    assert allowed.exit_code == 1
    assert "log in" not in allowed.output


def test_this_machine_alone_needs_none() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        require_protection(ServerConfig(host=host), protected=False)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"origins": ["friend.example"]}, r"server\.origins"),
        ({"origins": ["https://friend.example/"]}, r"server\.origins"),
        ({"trusted_proxies": ["nginx"]}, "trusted_proxies: nginx is no address"),
        ({"trusted_proxies": ["10.0.0.0/99"]}, "trusted_proxies: 10.0.0.0/99"),
    ],
)
def test_settings_that_would_silently_do_nothing(tmp_path: Any, server: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(write_config(tmp_path, {"server": server}), {})


async def test_an_authenticator_that_hangs_is_given_up(serve: Serve) -> None:
    class Slow:
        @hookimpl
        async def authenticate(self) -> Identity | None:
            await asyncio.Event().wait()
            return None

    running = await serve(extra=(Slow(),), session={"auth_s": 0.05})
    status, message = await refused(running, "/ws/chat")
    assert (status, "too long" in message) == (503, True)
    for path in ("/personas", "/session"):
        assert (await get(running, path))[0] == 503
