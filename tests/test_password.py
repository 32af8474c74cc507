"""The password plugin at a running service: every way in, and every way that must not be one."""

import asyncio
import base64
import http.client
import json
import time
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from core.events import CallRefused, Identity, SessionStarted
from core.http.login_throttle import FREE
from core.plugin.hookspecs import hookimpl
from core.plugin.logins import COOKIE
from core.plugin.signed_tokens import Holder, SignedToken
from core.session.chat_request import BASIC
from tests.caller import dial, get, refused
from tests.conftest import Running, Serve


def passwords(**options: Any) -> dict[str, Any]:
    return {"options": {"password": options}}


ANN = Holder("password", "ann")
ANN_AND_BOB = passwords(named={"ann": "sesame", "bob": "saffron"})


async def post(
    running: Running, path: str, form: dict[str, str] | bytes = b"", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """POST, off the loop."""

    def send() -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", path, form if isinstance(form, bytes) else urlencode(form), {**kind, **headers})
        with connection.getresponse() as response:
            answer = response.status, response.headers, response.read()
        connection.close()
        return answer

    return await asyncio.to_thread(send)


async def logged_in(running: Running, password: str, **headers: str) -> str:
    """The `Cookie` header of somebody who logged in."""
    status, answer, _ = await post(running, "/login", {"password": password}, **headers)
    assert status == 204
    [(name, cookie)] = SimpleCookie(answer["Set-Cookie"]).items()
    return f"{name}={cookie.value}"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def ticket(running: Running, **headers: str) -> str:
    status, _, body = await post(running, "/ticket", b"", **headers)
    assert status == 200
    return str(json.loads(body)["ticket"])


async def test_the_page_logs_in_and_the_cookie_opens_every_door(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    session = json.loads((await get(running, "/session"))[2])
    assert (session["authenticated"], session["protected"], session["logins"]) == (
        False,
        True,
        [{"kind": "password", "path": "/login", "label": ""}],
    )
    status, headers, _ = await post(running, "/login", {"password": "saffron"})
    assert status == 204
    cookie = SimpleCookie(headers["Set-Cookie"])[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "strict", "/", "")
    assert int(cookie["max-age"]) == 7 * 86_400
    header = {"Cookie": f"{COOKIE}={cookie.value}"}
    assert json.loads((await get(running, "/session", **header))[2])["identity"] == "bob"
    for path in ("/personas", "/voices"):
        assert (await get(running, path))[0] == 401
        assert (await get(running, path, **header))[0] == 200
    async with dial(running.url(), additional_headers=header) as caller:
        await caller.shake_hands()
    info = next(info for info, event in running.record.events if isinstance(event, SessionStarted))
    assert info.identity == Identity("bob")
    status, headers, _ = await post(running, "/logout", b"", **header)
    assert status == 204
    forgotten = SimpleCookie(headers["Set-Cookie"])[COOKIE]
    assert (forgotten.value, forgotten["max-age"]) == ("", "0")


async def test_over_https_the_cookie_is_secure(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB, server={"trusted_proxies": ["127.0.0.1"]})
    _, headers, _ = await post(running, "/login", {"password": "sesame"}, **{"X-Forwarded-Proto": "https"})
    assert SimpleCookie(headers["Set-Cookie"])[COOKIE]["secure"]


@pytest.mark.parametrize("headers", [bearer("sesame"), basic("anybody", "sesame"), basic("", "sesame")])
async def test_headers_that_open(serve: Serve, headers: dict[str, str]) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    assert (await get(running, "/personas", **headers))[0] == 200
    async with dial(running.url("/api/chat"), additional_headers=headers) as caller:
        await caller.shake_hands()
    assert running.record.events[0][0].identity == Identity("ann")


async def test_a_stock_client_with_the_password_in_its_address(serve: Serve) -> None:
    running = await serve(plugins=passwords(password="söl: @/?#"))
    await logged_in(running, "söl: @/?#")
    address = running.url("/api/chat").replace("://", f"://me:{quote('söl: @/?#', safe='')}@")
    async with dial(address) as caller:
        await caller.shake_hands()
    assert running.record.events[0][0].identity == Identity("caller")


async def test_only_nvidias_route_asks_for_what_an_address_may_hold(serve: Serve) -> None:
    """Asked for Basic, a browser sends the password of its address, and where there is none opens a window."""
    running = await serve(plugins=ANN_AND_BOB)
    for path, challenges in (("/api/chat", [BASIC, "Bearer"]), ("/ws/chat", ["Bearer"])):
        with pytest.raises(InvalidStatus) as refusal:
            async with connect(running.url(path), proxy=None):
                pass
        assert refusal.value.response.headers.get_all("www-authenticate") == challenges
    for path in ("/personas", "/voices"):
        assert (await get(running, path))[1]["www-authenticate"] == "Bearer"
    assert (await post(running, "/ticket"))[1].get_all("www-authenticate") == ["Bearer"]
    assert (await post(running, "/login", {"password": "x"}))[1].get_all("www-authenticate") == ["Bearer"]


async def test_a_ticket_opens_one_socket_once(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    assert (await post(running, "/ticket"))[0] == 401
    one = await ticket(running, **bearer("saffron"))
    assert (await get(running, f"/personas?ticket={one}"))[0] == 401
    async with dial(running.url(f"/ws/chat?ticket={one}")) as caller:
        await caller.shake_hands()
    assert running.record.events[0][0].identity == Identity("bob")
    assert (await refused(running, f"/ws/chat?ticket={one}"))[0] == 401
    cookie = await logged_in(running, "sesame")
    two = await ticket(running, Cookie=cookie)
    async with dial(running.url(f"/api/chat?ticket={two}")) as caller:
        await caller.shake_hands()
    assert (await refused(running, f"/ws/chat?ticket={cookie.partition('=')[2]}"))[0] == 401  # no cookie is a ticket
    assert (await get(running, "/personas", Cookie=f"{COOKIE}={await ticket(running, Cookie=cookie)}"))[0] == 401


async def test_who_is_known_to_another_plugin_gets_no_ticket(serve: Serve) -> None:
    class Everybody:
        @hookimpl
        def authenticate(self) -> Identity:
            return Identity("stranger")

    running = await serve(extra=(Everybody(),), plugins=ANN_AND_BOB)
    status, _, body = await post(running, "/ticket")
    assert (status, "have a password" in json.loads(body)["error"]) == (403, True)


async def test_a_password_that_is_changed_or_removed_ends_its_cookies(serve: Serve, tmp_path: Path) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    ann, bob = await logged_in(running, "sesame"), await logged_in(running, "saffron")
    tickets = [await ticket(running, Cookie=cookie) for cookie in (ann, bob)]

    def edit(**named: str) -> None:
        config = yaml.safe_load((tmp_path / "config.yaml").read_text())
        config["plugins"]["options"]["password"]["named"] = named
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))

    edit(bob="saffron", cid="cinnamon")
    assert [(await get(running, "/personas", Cookie=cookie))[0] for cookie in (ann, bob)] == [401, 200]
    assert (await refused(running, f"/ws/chat?ticket={tickets[0]}"))[0] == 401
    edit(bob="changed", cid="cinnamon")
    assert [(await get(running, "/personas", Cookie=cookie))[0] for cookie in (ann, bob)] == [401, 401]
    assert (await refused(running, f"/ws/chat?ticket={tickets[1]}"))[0] == 401
    assert (await get(running, "/personas", **bearer("cinnamon")))[0] == 200


async def test_a_cookie_that_was_touched_is_none(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    value = (await logged_in(running, "sesame")).partition("=")[2]
    bobs = (await logged_in(running, "saffron")).partition("=")[2].partition(".")[0]
    name, _, signed = value.partition(".")
    for bad in (f"{bobs}.{signed}", value[:-2], f"{name}.", signed, name, ".", f"{value}.{value}", "x" * 5000):
        assert (await get(running, "/personas", Cookie=f"{COOKIE}={bad}"))[0] == 401
        assert (await refused(running, "/ws/chat", additional_headers={"Cookie": f"{COOKIE}={bad}"}))[0] == 401
    assert (await post(running, "/login", {"password": "sesame"}))[0] == 204  # none of these was a try at the password


async def test_whoever_guesses_must_wait_whichever_way_it_is_tried(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    cookie = await logged_in(running, "sesame")
    assert [(await post(running, "/login", {"password": f"guess{n}"}))[0] for n in range(3)] == [401] * 3
    assert (await get(running, "/personas", **bearer("guess")))[0] == 401
    assert (await refused(running, "/ws/chat", additional_headers=basic("ann", "guess")))[0] == 401
    for _ in range(3):  # guessing on while it has to wait makes nothing better, and nothing worse
        status, headers, body = await post(running, "/login", {"password": "guess"})
        assert (status, headers["Retry-After"], "1 s" in json.loads(body)["error"]) == (429, "1", True)
    assert (await post(running, "/login", {"password": "sesame"}))[0] == 429
    status, refusal = await refused(running, "/ws/chat", additional_headers=bearer("sesame"))
    assert (status, "Too many" in refusal) == (429, True)
    assert (await get(running, "/personas", **bearer("sesame")))[0] == 429
    assert (await get(running, "/session", **bearer("sesame")))[0] == 429
    assert (await get(running, "/health", **bearer("sesame")))[0] == 200
    assert (await get(running, "/personas", Cookie=cookie))[0] == 200  # who was in stays in
    assert CallRefused("too_many_requests", 429, "/ws/chat", "127.0.0.1") in running.record.service_events


async def test_guesses_at_the_same_moment_are_counted_too(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    answers = await asyncio.gather(*(post(running, "/login", {"password": f"guess{n}"}) for n in range(30)))
    assert [status for status, _, _ in answers].count(401) == FREE


async def test_behind_a_proxy_each_client_waits_for_itself(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB, server={"trusted_proxies": ["127.0.0.0/8"]})

    async def guess(forwarded: str, password: str = "guess") -> int:
        return (await post(running, "/login", {"password": password}, **{"X-Forwarded-For": forwarded}))[0]

    assert [await guess(f"10.9.9.{n}, 192.0.2.1") for n in range(FREE + 1)] == [401] * FREE + [429]
    assert await guess("192.0.2.2", "sesame") == 204


async def test_without_a_proxy_nobody_is_believed(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    answers = [
        (await post(running, "/login", {"password": "guess"}, **{"X-Forwarded-For": f"192.0.2.{n}"}))[0]
        for n in range(FREE + 1)
    ]
    assert answers == [401] * FREE + [429]


async def test_who_was_right_before_is_not_locked_out_by_a_guesser_at_the_same_address(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    assert (await get(running, "/personas", **bearer("saffron")))[0] == 200
    answers = [(await get(running, "/personas", **bearer(f"guess{n}")))[0] for n in range(FREE + 3)]
    assert answers == [401] * FREE + [429] * 3
    assert (await get(running, "/personas", **bearer("saffron")))[0] == 200
    assert (await get(running, "/personas", **bearer("sesame")))[0] == 429  # who was never here before
    async with dial(running.url(), additional_headers=bearer("saffron")) as caller:
        await caller.shake_hands()


async def test_a_cookie_and_a_ticket_count_before_the_authorization_of_a_proxy(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    cookie = await logged_in(running, "sesame")
    proxy = basic("proxy", "the proxy's own password")
    for _ in range(FREE + 3):
        assert (await get(running, "/personas", Cookie=cookie, **proxy))[0] == 200
    one = await ticket(running, Cookie=cookie)
    async with dial(running.url(f"/ws/chat?ticket={one}"), additional_headers=proxy) as caller:
        await caller.shake_hands()
    assert (await post(running, "/login", {"password": "sesame"}))[0] == 204  # none of these was a wrong password


async def test_an_edit_keeps_used_tickets_and_the_wait(serve: Serve, tmp_path: Path) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    one = await ticket(running, **bearer("saffron"))
    async with dial(running.url(f"/ws/chat?ticket={one}")) as caller:
        await caller.shake_hands()
    for n in range(FREE):
        assert (await post(running, "/login", {"password": f"guess{n}"}))[0] == 401
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["plugins"]["options"]["password"]["named"]["cid"] = "cinnamon"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert (await refused(running, f"/ws/chat?ticket={one}"))[0] == 401
    assert (await post(running, "/login", {"password": "cinnamon"}))[0] == 429
    two = await ticket(running, **bearer("saffron"))
    async with dial(running.url(f"/ws/chat?ticket={two}")) as caller:
        await caller.shake_hands()


async def test_one_callers_tickets_end_nobody_elses(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    used = running.service.host.authentication.tokens._used_tickets
    for number in range(10_100):
        assert used.first_use(SignedToken(ANN, Identity("ann"), str(number), time.time()), 30)
    for who in ("saffron", "sesame"):
        one = await ticket(running, **bearer(who))
        async with dial(running.url(f"/ws/chat?ticket={one}")) as caller:
            await caller.shake_hands()


@pytest.mark.parametrize(
    ("form", "status"),
    [
        (b"", 400),
        (b"pass=sesame", 400),
        (b"password=sesame&password=saffron", 400),
        (b"password=", 400),
        (b"&".join(b"a=1" for _ in range(100)), 400),
        (b"password=" + b"x" * 5000, 413),
        (b"password=%ff%00", 401),
        (b"\xff\xfe\x00", 400),
        (b'{"password": "sesame"}', 400),
    ],
)
async def test_forms_that_are_none(serve: Serve, form: bytes, status: int) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    answer, headers, body = await post(running, "/login", form)
    assert answer == status
    assert json.loads(body)["error"]
    assert "Set-Cookie" not in headers
    assert headers["x-content-type-options"] == "nosniff"


async def test_only_posts_change_anything(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    for path in ("/login", "/logout", "/ticket"):
        assert (await get(running, path, **bearer("sesame")))[0] == 404


async def test_what_a_client_says_cannot_add_a_header(serve: Serve) -> None:
    running = await serve(plugins=ANN_AND_BOB)
    for path in ("/login%0d%0aX-Evil:1", "/ws/chat?persona=%0d%0aX-Evil:1", "/personas?x=%0d%0aX-Evil:1"):
        _, headers, _ = await get(running, path, **bearer("sesame"))
        assert "x-evil" not in {name.lower() for name in headers}
    _, answer, _ = await post(running, "/login", {"password": "x\r\nX-Evil: 1"})
    assert "x-evil" not in {name.lower() for name in answer}
    _, message = await refused(running, "/ws/chat?voice=%0d%0aX-Evil:1", additional_headers=bearer("sesame"))
    assert "X-Evil" in message  # in the JSON, where it harms nobody
