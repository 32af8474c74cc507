"""The recipe for OpenID Connect, word for word, against a provider on this machine."""

import asyncio
import base64
import hashlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx2 as httpx
import jwt
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from core.events import Identity
from tests.caller import dial
from tests.conftest import Running, Serve
from tests.documents import doc
from tests.stoppable import Stoppable

SECRET = "the-clients-secret-marker"


class Provider:
    """An OpenID provider whose user is already logged in, and whom nobody asks for consent."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.user: dict[str, Any] = {"sub": "u-17", "email": "ann@example.com", "email_verified": True}
        self.client_secret = SECRET
        self.issuer = ""
        self.broken: set[str] = set()
        """The paths that answer 503."""
        self._key = key
        self._asked: dict[str, dict[str, str]] = {}
        self.app = Starlette(
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self.dispatch)],
            routes=[
                Route("/.well-known/openid-configuration", self.configuration),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/keys", self.keys),
            ],
        )

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return Response(status_code=503) if request.url.path in self.broken else await call_next(request)

    async def configuration(self, _request: Request) -> Response:
        places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return JSONResponse(
            {
                "issuer": self.issuer,
                "id_token_signing_alg_values_supported": ["RS256"],
                **{name: f"{self.issuer}/{path}" for name, path in places.items()},
            }
        )

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        code = f"code{len(self._asked)}"
        self._asked[code] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    async def token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        client = base64.b64decode(request.headers["authorization"].split()[1]).decode()
        asked = self._asked.pop(form["code"], None)
        if asked is None or client != f"voice:{self.client_secret}":
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        assert challenge.decode() == asked["code_challenge"]
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "voice", "iat": now, "exp": now + 60, "nonce": asked["nonce"], **self.user}
        signed = jwt.encode(claims, self._key, "RS256", headers={"kid": "1"})
        id_token = {"id_token": signed} if self.user else {}
        return JSONResponse({"access_token": "x", "token_type": "Bearer", **id_token})

    async def keys(self, _request: Request) -> Response:
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        return JSONResponse({"keys": [{**key, "kid": "1", "use": "sig", "alg": "RS256"}]})


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """Which takes a moment to find."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
async def provider(key: rsa.RSAPrivateKey) -> AsyncIterator[Provider]:
    one = Provider(key)
    listener = socket.create_server(("127.0.0.1", 0))
    one.issuer = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = Stoppable(uvicorn.Config(one.app, log_level="error"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield one
    await server.stop(task)


@pytest.fixture
async def running(serve: Serve, provider: Provider, tmp_path: Path) -> Running:
    """The service with the recipe's plugin and a password beside it."""
    folder = tmp_path / "oidc"
    folder.mkdir()
    found = re.search(r"```python\n(.*?)```", doc("recipes/oidc"), re.DOTALL)
    assert found
    (folder / "oidc.py").write_text(found[1])
    options = {"issuer": provider.issuer, "client_id": "voice", "client_secret": SECRET, "domains": ["example.com"]}
    options["label"] = "Continue with Example"
    settings = {"folders": [str(folder)], "options": {"oidc": options, "password": {"password": "sesame"}}}
    return await serve(plugins=settings)


def browser(running: Running) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=running.url("", "http"), follow_redirects=True, trust_env=False)


async def test_the_button_leads_to_the_provider_and_back_to_a_call(running: Running) -> None:
    async with browser(running) as client:
        session = (await client.get("/session")).json()
        ways = {way["kind"]: way for way in session["logins"]}
        assert ways.keys() == {"password", "redirect"}
        assert (session["authenticated"], ways["redirect"]["label"]) == (False, "Continue with Example")
        page = await client.get(ways["redirect"]["path"])
        assert (page.status_code, page.url.path) == (200, "/")
        assert (await client.get("/session")).json()["identity"] == "ann@example.com"
        assert (await client.get("/personas")).status_code == 200
        ticket = (await client.post("/ticket")).json()["ticket"]
        async with dial(running.url(f"/ws/chat?ticket={ticket}")) as caller:
            await caller.shake_hands()
        assert running.record.events[0][0].identity == Identity("ann@example.com")
        await client.post("/logout")
        assert (await client.get("/personas")).status_code == 401


@pytest.mark.parametrize(
    ("user", "status"),
    [
        ({"sub": "u-1", "email": "bob@elsewhere.com", "email_verified": True}, 403),
        ({"sub": "u-1", "email": "bob@example.com"}, 403),  # an address that nobody has checked
        ({"sub": "u-1"}, 403),
        ({}, 401),  # who they are is not said
        ({"sub": "u-1", "email": "bob@example.com", "email_verified": True, "nonce": "another"}, 401),
        ({"sub": "u-1", "email": "bob@example.com", "email_verified": True, "aud": "another"}, 401),
    ],
)
async def test_who_is_not_let_in(running: Running, provider: Provider, user: dict[str, Any], status: int) -> None:
    provider.user = user
    async with browser(running) as client:
        answer = await client.get("/oidc/begin")
        assert (answer.status_code, "error" in answer.json()) == (status, True)
        assert (await client.get("/personas")).status_code == 401


async def test_an_address_is_the_same_in_capitals(running: Running, provider: Provider) -> None:
    provider.user["email"] = "Ann@EXAMPLE.com"
    async with browser(running) as client:
        assert (await client.get("/oidc/begin")).status_code == 200
        assert (await client.get("/session")).json()["identity"] == "ann@example.com"


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys"])
async def test_a_provider_that_is_down_is_a_sentence_and_not_for_ever(
    running: Running, provider: Provider, path: str
) -> None:
    provider.broken = {path}
    async with browser(running) as client:
        answer = await client.get("/oidc/begin")
        assert (answer.status_code, "cannot be reached" in answer.json()["error"]) == (502, True)
        provider.broken = set()
        assert (await client.get("/oidc/begin")).status_code == 200
        assert (await client.get("/session")).json()["authenticated"]


async def test_a_callback_that_nobody_began_and_a_provider_that_refuses(
    running: Running, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    async with browser(running) as client:
        for query in ("", "?code=code0&state=x", "?error=access_denied&state=x"):
            assert (await client.get(f"/oidc/end{query}")).status_code == 401
        provider.client_secret = "another"
        assert (await client.get("/oidc/begin")).status_code == 401
        assert (await client.get("/personas")).status_code == 401
    assert SECRET not in caplog.text
