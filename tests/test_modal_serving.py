"""Both functions of the deployment on Modal serve calls: run here, with nano, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from core.client.connection import CallOptions
from core.client.place_call import place_call
from core.errors import CallError
from deploy.page import FreshVolume
from tests.caller import dial
from tests.conftest import speech
from tests.deployed import AFTER, PASSWORD, DictRecords, container, deploy, hooks, place
from tests.deployed_service import BEARER, Serve, Service, ask, reports, service, until

pytestmark = pytest.mark.modal
asgi = pytest.importorskip("modal._runtime.asgi")
__all__ = ["place", "service"]  # fixtures


async def test_a_whole_call_through_both_functions(service: Serve) -> None:
    async with service() as here:
        page = here.url
        # The page, and who may come in.
        status, headers, body = await ask(f"{page}/")
        assert (status, body[:15]) == (200, b"<!doctype html>")
        assert "connect-src 'self' wss://*.modal.host https://*.modal.host;" in headers["content-security-policy"]
        _, _, session = await ask(f"{page}/session")
        assert session["calls"] == {"url": None, "ticket": True, "wake": "call", "wake_s": 30}
        assert (session["engine"]["name"], session["notices"]) == ("nano", [])
        for path in ("/personas", "/metrics/calls"):
            assert (await ask(f"{page}{path}"))[0] == 401
        for path in ("/ticket", "/calls"):
            assert (await ask(f"{page}{path}", b""))[0] == 401
        status, headers, _ = await ask(f"{page}/login", b"password=open+sesame", Origin=page)
        assert status == 204
        cookie: dict[str, Any] = {"Cookie": headers["set-cookie"].partition(";")[0], "Origin": page}
        assert (await ask(f"{page}/personas", **cookie))[2]["default"] == "hotel"
        assert (await ask(f"{page}/voices", **cookie))[2]["voices"] == ["NATF2", "NATM2", "VARF0", "VARM0"]
        with pytest.raises(InvalidStatus):
            async with dial(page.replace("http", "ws") + "/ws/chat"):
                pass
        assert not here.gpus.running, "none of this wakes a GPU, a login neither"

        # A call does.
        status, body = await here.calls(**cookie)
        assert status == 202
        assert body["usual_s"] == 30
        socket = await here.awake()
        calls = socket.replace("ws", "http", 1)
        assert list(here.gpus.running) == ["fc-1"]
        _, headers, health = await ask(f"{calls}/health", Origin=page)
        assert headers["access-control-allow-origin"] == page
        assert health["engine"]["slots"] == 2
        assert "access-control-allow-origin" not in (await ask(f"{calls}/health", Origin="https://evil.example"))[1]
        for path in ("/", "/personas", "/voices", "/session", "/metrics"):
            assert (await ask(f"{calls}{path}", **BEARER))[0] == 404
        assert (await ask(f"{calls}/login", b"password=open+sesame"))[0] == 404

        # A ticket of the one opens the other, once.
        _, _, ticket = await ask(f"{page}/ticket", b"", **cookie)
        address = f"{socket}/ws/chat?persona=hotel&audio=pcm&seed=1&ticket={ticket['ticket']}"
        async with dial(address, "pcm", origin=page) as caller:
            await caller.shake_hands()
            assert caller.metadata[-1]["persona"] == "hotel"
            assert len(await caller.talk(speech(0.8))) == 10 * 1920
        evil = {"origin": "https://evil.example", "additional_headers": BEARER}
        for refused, options in ((address, {"origin": page}), (f"{socket}/ws/chat", {}), (f"{socket}/ws/chat", evil)):
            with pytest.raises(InvalidStatus) as refusal:
                async with dial(refused, **options):
                    pass
            assert refusal.value.response.status_code in (401, 403)
            assert "error" in json.loads(refusal.value.response.body)

        # A client that is no page gives the password.
        async with dial(f"{socket}/api/chat", additional_headers=BEARER) as caller:
            await caller.shake_hands()

        # What it cost, and how it went.
        _, _, session = await ask(f"{page}/session", **cookie)
        assert session["notices"][0].startswith("GPU time today: 0 of 480 minutes, about $0.0")
        serving_metrics = b'personaplex_calls_started_total{container="fc-1",identity="caller"}'
        assert b"personaplex_engine_slots" in (await ask(f"{page}/metrics/calls", **BEARER))[2]
        assert serving_metrics.split(b"{")[0] in (await ask(f"{page}/metrics/calls", **BEARER))[2]
        assert len(here.gpus.running) == 1


async def test_the_command_line_wakes_waits_and_says_so(service: Serve) -> None:
    async with service(scaledown_s=3600) as here:
        states: list[str] = []
        options = CallOptions({"persona": "hotel", "seed": "1"}, "pcm", PASSWORD)
        _, report = await place_call(here.url, speech(0.4), options, lambda state, _frames: states.append(state))
        assert (report.frames_received, report.close_reason) == (5, "")
        assert "waking the model, 0 of about 30 s" in states
        assert states[-1] == "talking"
        here.gpus.fail_with = "There is no card."
        await here.gpus.close()
        here.records.kept.pop("container fc-1", None)
        with pytest.raises(CallError, match=r"HTTP 503.*2 times in a row.*There is no card\."):
            await place_call(here.url, speech(0.4), options)
        with pytest.raises(CallError, match="HTTP 401"):
            await place_call(here.url, speech(0.4), CallOptions({}))


async def test_strangers_wake_nothing_and_hold_nothing(service: Serve) -> None:
    async with service() as here:
        host, port = here.url.removeprefix("http://").split(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
        for _, writer in held:
            writer.write(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\np")
        for path in ("/", "/calls", "/ws/chat", "/api/chat", "/health", "/session", "/metrics/calls", "/nothing"):
            await ask(f"{here.url}{path}")
            await ask(f"{here.url}{path}", b"x=1")
            await ask(f"{here.url}{path}", b"", Authorization="Bearer wrong", Origin="https://evil.example")
        assert not here.gpus.running
        assert not [key for key in here.records.kept if key != "page"]
        for _, writer in held:
            writer.close()


async def test_a_full_container_is_joined_by_another_and_then_by_a_queue(service: Serve) -> None:
    async with service(max_containers=2) as here:
        first = await here.awake()
        async with (
            dial(f"{first}/ws/chat", additional_headers=BEARER) as one,
            dial(f"{first}/ws/chat", additional_headers=BEARER) as two,
        ):
            await one.shake_hands()
            await two.shake_hands()
            second = await here.awake(but=first)
            assert list(here.gpus.running) == ["fc-1", "fc-2"]
            async with (
                dial(f"{second}/ws/chat", additional_headers=BEARER) as three,
                dial(f"{second}/ws/chat", additional_headers=BEARER) as four,
            ):
                await three.shake_hands()
                await four.shake_hands()
                await until(lambda: [one["busy"] for one in reports(here)] == [2, 2])
                status, body = await here.calls()
                assert status == 200
                async with dial(f"{body['url']}/ws/chat", additional_headers=BEARER) as fifth:
                    assert (await fifth.told("queued"))["place"] == 1
                assert len(here.gpus.running) == 2


# Settings on the Volume.


OTHERS = ["VARM0", "NATF2", "NATM2", "VARF0"]


async def test_settings_on_the_volume_count_in_running_containers_also_the_first(service: Serve, place: Path) -> None:
    async with service() as here:
        assert (await ask(f"{here.url}/voices", **BEARER))[2]["voices"][0] == "NATF2"
        (place / "config.yaml").write_text(json.dumps({"voices": {"allow": OTHERS}}))
        here.settings.refresh()
        assert (await ask(f"{here.url}/voices", **BEARER))[2]["voices"] == OTHERS


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"voices": {"alow": OTHERS}}, "alow"),
        ({"voices": {"allow": ["VARM0"]}}, "assistant.yaml: voice: the voice 'NATF2' is not offered"),
        ({"plugins": {"options": {"budget": {"caller_minutes": -1}}}}, "caller_minutes"),
        ({"plugins": {"options": {"password": {"named": {"ann": {"env": "ANNS_PASSWORD"}}}}}}, "ANNS_PASSWORD"),
    ],
)
async def test_broken_settings_on_the_volume_leave_the_checkout_s_and_say_so(
    service: Serve, place: Path, broken: dict[str, Any], said: str
) -> None:
    (place / "config.yaml").write_text(json.dumps(broken))
    async with service() as here:
        assert (await ask(f"{here.url}/voices", **BEARER))[2]["voices"][0] == "NATF2"
        await until_problems(here, 1)
        assert said in str((await ask(f"{here.url}/health", **BEARER))[2]["details"])
        assert await here.awake(), "calls are served too"
        (place / "config.yaml").write_text(json.dumps({"voices": {"allow": OTHERS}}))
        here.settings.refresh()
        await until_problems(here, 0)
        assert (await ask(f"{here.url}/voices", **BEARER))[2]["voices"] == OTHERS


async def until_problems(here: Service, count: int) -> None:
    async with asyncio.timeout(20):
        while bool((await ask(f"{here.url}/health"))[2].get("problems", 0)) != bool(count):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_volume_is_looked_at_now_and_then() -> None:
    looked, served, now = [], [], [0.0]

    async def refresh() -> None:
        looked.append(now[0])

    async def inner(scope: Any, _receive: Any, _send: Any) -> None:
        served.append(scope["type"])

    async def nothing(_message: Any = None) -> Any:
        return None

    fresh = FreshVolume(inner, refresh, lambda: now[0])
    for at, kind in ((0, "lifespan"), (5, "http"), (21, "http"), (22, "websocket"), (42, "http"), (99, "lifespan")):
        now[0] = at
        await fresh({"type": kind}, nothing, nothing)
    assert looked == [21, 42]
    assert len(served) == 6


# Modal's own adapter.


async def test_the_page_behind_modal_s_own_adapter_holds_no_input_for_a_body_that_never_comes(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """What stands between Modal's front and our app in a container: one generator of messages a connection."""
    (place / "config.yaml").write_text("server: {request_s: 0.2}")
    app = deploy(monkeypatch, place)
    page = container(app, "Page")
    monkeypatch.setattr(app, "ModalRecords", DictRecords)
    await hooks(page, AFTER)["start"]()

    class Inputs:
        class get_data_in:  # noqa: N801 - Modal's way to say await
            @staticmethod
            async def aio(_call: str, _attempt: str) -> AsyncIterator[dict[str, Any]]:
                yield {"type": "http.request", "body": b"p", "more_body": True}
                await asyncio.Event().wait()

    monkeypatch.setattr(asgi, "current_function_call_id", lambda: "fc-1")
    monkeypatch.setattr(asgi, "current_attempt_token", lambda: "1")
    connection, lifespan = asgi.asgi_app_wrapper(page.service, Inputs())
    life = asyncio.create_task(lifespan.background_task())
    await lifespan.lifespan_startup()
    headers = [(b"host", b"page"), (b"content-length", b"1000")]
    scope = {"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": headers}
    async with asyncio.timeout(5):
        sent = [message async for message in connection(scope)]
    assert sent[0]["status"] == 408
    await lifespan.lifespan_shutdown()
    await life
