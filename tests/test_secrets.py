"""Passwords, tokens, cookies, tickets, prompts and words are in no line of the log, whatever is done with them."""

import base64
import io
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from core.events import Identity
from core.plugin.hookspecs import hookimpl
from core.session.protocol import Kind
from core.settings.config import LogConfig
from core.settings.log import configure_logging
from core.testing import EchoEngine
from tests.caller import dial, get, refused
from tests.conftest import Serve, speech
from tests.test_password import COOKIE, bearer, logged_in, post, ticket

RIGHT, TOKEN, WRONG = "right-marker-1", "token-marker-2", "wrong-marker-3"
PROMPT = "You are the prompt-marker-4."
ELSEWHERE = "path-marker-5"
PLUGINS = {"options": {"password": {"password": RIGHT, "named": {"phone-bridge": TOKEN}}}}
CLIENT = "websockets.client"
"""The tests' own client, which is in this process too."""


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """What is logged at the lowest level, by whomever: as the service writes it, and as Python keeps it."""
    root, own, uvicorn = logging.getLogger(), logging.getLogger("personaplex"), logging.getLogger("uvicorn.error")
    before = (root.handlers[:], root.level, own.level, uvicorn.level)
    stream = io.StringIO()
    configure_logging(LogConfig(format="json", level="debug"), stream)
    root.addHandler(caplog.handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger(CLIENT).setLevel(logging.WARNING)
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
    uvicorn.setLevel(before[3])


class Talkative:
    """Puts what it is given into its errors."""

    @hookimpl
    async def authenticate(self, connection: object) -> Identity | None:
        header = getattr(connection, "headers", {}).get("x-break")
        if header:
            raise ValueError(f"cannot read {header}")
        return None


async def test_nothing_secret_is_logged(
    serve: Serve, everything: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    engine = EchoEngine()
    running = await serve(engine, extra=(Talkative(),), plugins=PLUGINS, personas={"custom": True})
    secrets = [RIGHT, TOKEN, WRONG, "prompt-marker-4", ELSEWHERE, "word0"]

    cookie = await logged_in(running, RIGHT)
    basic = {"Authorization": "Basic " + base64.b64encode(f"user:{TOKEN}".encode()).decode()}
    first, second = await ticket(running, Cookie=cookie), await ticket(running, **bearer(TOKEN))
    secrets += [cookie.partition("=")[2], first, second, basic["Authorization"].split()[1]]
    for wrong in (bearer(WRONG), {"Authorization": f"Basic {WRONG}"}, {"Cookie": f"{COOKIE}=caller.{WRONG}"}):
        assert (await get(running, f"/personas?x={ELSEWHERE}", **wrong))[0] == 401
    assert (await get(running, "/personas", **{"x-break": WRONG}))[0] == 401
    for _ in range(7):
        assert (await post(running, "/login", {"password": WRONG}))[0] in (401, 429)
    await get(running, f"/{ELSEWHERE}?ticket={first}")
    await post(running, f"/{ELSEWHERE}")

    prompt = f"prompt={quote(PROMPT)}"
    async with dial(running.url(f"/ws/chat?{prompt}&ticket={first}")) as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.16))
    async with dial(running.url(f"/api/chat?text_{prompt}&ticket={second}")) as caller:
        await caller.shake_hands()
        await caller.socket.send(bytes([Kind.METADATA]) + f"{{{WRONG}".encode())
        await caller.socket.send(bytes([Kind.AUDIO]) + WRONG.encode())
        await caller.end()
    for query in (f"{prompt}&ticket={first}", f"ticket={WRONG}", f"{prompt}&persona={ELSEWHERE}"):
        await refused(running, f"/ws/chat?{query}")
    for query in (f"{prompt}&persona={ELSEWHERE}", f"voice={ELSEWHERE}", f"seed={ELSEWHERE}"):
        await refused(running, f"/ws/chat?{query}", additional_headers={"Cookie": cookie})
    await refused(running, f"/{ELSEWHERE}?{prompt}", additional_headers={"Origin": f"https://{ELSEWHERE}.example"})
    engine.faults.frames = RuntimeError("out of order")
    async with dial(running.url(f"/ws/chat?{prompt}"), additional_headers={"Cookie": cookie}) as caller:
        await caller.shake_hands()
        await caller.say(speech(0.16))
        await caller.end()
    await running.record.ended(3)

    written = everything.getvalue()
    for line in (
        "logged in",
        "wrong password",
        "plugin failed",
        "session started",
        "session ended",
        "a session failed",
    ):
        assert line in written
    assert '"identity": "phone-bridge"' in written
    assert "uvicorn" not in written
    kept = "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records if record.name != CLIENT)
    assert "session started" in kept
    for secret in secrets:
        assert secret not in written
        assert secret not in kept
