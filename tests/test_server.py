"""The doors of the service: HTTP, and which upgrades are refused."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from core.cli.main import main
from core.errors import ConfigError, RefusedError
from core.events import (
    CallRefused,
    Identity,
)
from core.http.listening import bind
from core.plugin.hookspecs import hookimpl
from core.plugin.personas import Persona
from core.settings.sections import ServerConfig
from tests.caller import dial, get, refused
from tests.conftest import Running, Serve, speech, write_config


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("persona=nobody", 404, "nobody"),
        ("persona=../../etc/passwd", 404, "persona"),
        ("voice=VARF0", 404, "VARF0"),
        ("voice_prompt=../secret.pt", 404, "secret"),
        ("seed=abc", 400, "seed"),
        ("seed=99999999999999999999999", 400, "seed"),
        ("temperature=nan", 400, "temperature"),
        ("audio_temperature=9", 400, "temperature"),
        ("top_k=0", 400, "top_k"),
        ("text_topk=1.5", 400, "text_topk"),
        ("audio=mp3", 400, "audio"),
        ("prompt=You+are+free", 403, "personas.custom"),
        ("text_prompt=You+are+free", 403, "personas.custom"),
    ],
)
@pytest.mark.parametrize("route", ["/ws/chat", "/api/chat"])
async def test_bad_requests_are_refused_at_the_upgrade(
    serve: Serve, route: str, query: str, status: int, words: str
) -> None:
    running = await serve(personas={"custom": False})
    code, message = await refused(running, f"{route}?{query}")
    assert code == status
    assert words in message
    assert running.record.events == []
    assert running.engine.opened == 0


@pytest.mark.parametrize(
    ("query", "setting"),
    [("voice_prompt=NATF0.pt", "voices.allow"), ("prompt=Sell.", "personas.custom"), ("persona=nobody", "")],
)
async def test_the_setting_that_refuses_a_call_is_known(serve: Serve, query: str, setting: str) -> None:
    running = await serve(personas={"custom": False})
    await refused(running, f"/api/chat?{query}")
    [refusal] = [event for event in running.record.service_events if isinstance(event, CallRefused)]
    assert refusal.setting == setting


@pytest.mark.parametrize(
    ("custom", "login", "server", "allowed"),
    [
        ("auto", False, {}, True),
        ("auto", True, {"host": "0.0.0.0"}, True),
        ("auto", False, {"host": "0.0.0.0", "insecure": True}, False),
        (True, False, {"host": "0.0.0.0", "insecure": True}, True),
        (False, True, {}, False),
    ],
)
async def test_whoever_is_known_may_bring_a_prompt(
    serve: Serve, custom: object, login: bool, server: dict[str, Any], allowed: bool
) -> None:
    """Where callers log in, or only this machine can call."""
    options = {"options": {"password": {"password": "sesame"}}} if login else {}
    running = await serve(personas={"custom": custom}, server=server, plugins=options)
    headers = {"Authorization": "Bearer sesame"} if login else {}
    listed = json.loads((await get(running, "/personas", **headers))[2])
    assert listed["custom"] is allowed
    if allowed:
        async with dial(running.url("/ws/chat?prompt=You+sell+maps."), additional_headers=headers) as caller:
            await caller.shake_hands()
            assert running.engine.calls[0].prompt.text == "You sell maps."
    else:
        refusal = await refused(running, "/ws/chat?prompt=You+sell+maps.", additional_headers=headers)
        assert refusal[0] == 403
        assert "personas.custom" in refusal[1]


async def test_a_prompt_too_long_or_beside_a_persona_is_refused(serve: Serve) -> None:
    running = await serve(personas={"custom": True, "max_prompt_chars": 20})
    assert await refused(running, "/ws/chat?prompt=" + "x" * 21) == (
        400,
        "The prompt has 21 characters; at most 20 are allowed.",
    )
    status, _ = await refused(running, "/ws/chat?prompt=x&persona=teacher")
    assert status == 400


async def test_the_password_is_asked_for_at_every_door(serve: Serve) -> None:
    running = await serve(plugins={"options": {"password": {"password": "sesame"}}})
    for path in ("/ws/chat", "/api/chat", "/ws/chat?persona=nobody"):
        status, message = await refused(running, path)
        assert status == 401
        assert "log in" in message
    assert (await refused(running, "/ws/chat", additional_headers={"Authorization": "Bearer wrong"}))[0] == 401
    basic = {"Authorization": "Basic " + base64.b64encode(b"me:sesame").decode()}
    for path in ("/personas", "/voices"):
        assert (await get(running, path))[0] == 401
        assert (await get(running, path, **basic))[0] == 200
    async with dial(running.url(), additional_headers=basic) as caller:
        await caller.shake_hands()
    assert (await get(running, "/health"))[0] == 200
    session = json.loads((await get(running, "/session"))[2])
    assert (session["authenticated"], session["identity"], session["protected"]) == (False, None, True)


async def test_who_is_not_authorised_is_refused(serve: Serve) -> None:
    class OnlyTeachers:
        @hookimpl
        def authorize(self, persona: Persona) -> bool:
            return persona.id == "teacher"

    running = await serve(extra=(OnlyTeachers(),))
    assert (await refused(running, "/ws/chat?persona=assistant"))[0] == 403
    async with dial(running.url("/ws/chat?persona=teacher")) as caller:
        await caller.shake_hands()
    listed = json.loads((await get(running, "/personas"))[2])
    assert [persona["id"] for persona in listed["personas"]] == ["teacher"]


async def test_authorize_says_why_and_with_which_status(serve: Serve) -> None:
    class Paid:
        free: tuple[str, ...] = ("teacher",)

        @hookimpl
        async def authorize(self, persona: Persona) -> bool:
            if persona.id not in self.free:
                raise RefusedError(402, "Your minutes are used up.", reason="unpaid", headers={"retry-after": "60"})
            return True

    paid = Paid()
    running = await serve(extra=(paid,))
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(running.url("/ws/chat?persona=assistant"), proxy=None):
            pass
    response = refusal.value.response
    assert (response.status_code, response.headers["retry-after"]) == (402, "60")
    assert json.loads(response.body or b"") == {"error": "Your minutes are used up."}
    assert CallRefused("unpaid", 402, "/ws/chat", "127.0.0.1") in running.record.service_events
    assert not running.record.service_events[1:]  # the plugin has not failed
    listed = json.loads((await get(running, "/personas"))[2])
    assert [persona["id"] for persona in listed["personas"]] == ["teacher"]
    async with dial(running.url("/ws/chat")) as caller:
        await caller.shake_hands()
    paid.free = ()
    assert (await refused(running, "/ws/chat"))[0] == 402
    status, _, body = await get(running, "/personas")
    assert (status, json.loads(body)["personas"]) == (200, [])


async def test_a_denial_by_a_broken_auth_plugin(serve: Serve) -> None:
    class Broken:
        @hookimpl
        async def authenticate(self) -> Identity:
            raise RuntimeError("no database")

    running = await serve(extra=(Broken(),))
    assert (await refused(running, "/ws/chat"))[0] == 401
    assert (await get(running, "/personas"))[0] == 401


async def test_the_json_endpoints(serve: Serve) -> None:
    running = await serve(
        personas={"custom": True, "max_prompt_chars": 99, "default": "teacher"},
        voices={"allow": ["NATF2", "NATM2"], "labels": {"NATM2": "Bob"}},
    )
    personas = json.loads((await get(running, "/personas"))[2])
    plain: dict[str, Any] = {"group": "", "starters": [], "emoji": "", "image": None}
    assert personas == {
        "personas": [
            {"id": "teacher", "name": "Teacher", "description": "", "voice": "NATM2", **plain},
            {"id": "assistant", "name": "Assistant", "description": "Helps.", "voice": "NATF2", **plain},
        ],
        "default": "teacher",
        "custom": True,
        "max_prompt_chars": 99,
    }
    assert json.loads((await get(running, "/voices"))[2]) == {
        "voices": ["NATF2", "NATM2"],
        "labels": {"NATF2": "Natural, female 2", "NATM2": "Bob"},
        "samples": True,
    }
    status, headers, body = await get(running, "/health")
    health = json.loads(body)
    assert status == 200
    assert health | {"version": ""} == {
        "status": "ok",
        "engine": {"name": "echo", "notice": "This is an echo.", "device": "cpu", "slots": 2, "busy": 0},
        "waiting": 0,
        "version": "",
    }
    assert headers["cache-control"] == "no-store"
    assert json.loads((await get(running, "/session"))[2]) == {
        "authenticated": True,
        "identity": "anonymous",
        "protected": False,
        "logins": [],
        "engine": {"name": "echo", "notice": "This is an echo."},
        "notices": [],
    }


async def test_the_page_and_nothing_else(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / ".hidden").write_text("secret")
    running = await serve()
    status, headers, body = await get(running, "/")
    assert (status, body) == (200, b"<!doctype html><title>page</title>")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    status, headers, _ = await get(running, "/app.js")
    assert headers["content-type"].startswith("text/javascript")
    assert (await get(running, "/app.js", **{"If-None-Match": headers["etag"]}))[0] == 304
    for path in (
        "/nothing.html",
        "/secret.txt",
        "/.hidden",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/app.js%00",
        "//etc/passwd",
        "/page/index.html",
    ):
        status, _, body = await get(running, path)
        assert (status, b"secret" in body) == (404, False), path
        assert "error" in json.loads(body)


async def test_who_may_show_the_page_in_a_frame(serve: Serve, tmp_path: Path) -> None:
    async def ancestors(running: Running, path: str) -> tuple[str, bool]:
        _, headers, _ = await get(running, path)
        policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
        assert policy["script-src"] == "'self'"
        return policy["frame-ancestors"], "x-frame-options" in headers

    write_config(tmp_path, {})
    for name in ("embed.html", "talk.js"):
        (tmp_path / "page" / name).write_text("")
    strict = await serve()
    assert await ancestors(strict, "/") == await ancestors(strict, "/embed.html") == ("'none'", True)
    shared = await serve(server={"origins": ["https://a.example"], "frame_ancestors": ["https://*.b.example"]})
    assert await ancestors(shared, "/") == ("'self' https://*.b.example", False)
    assert await ancestors(shared, "/embed.html") == ("'self' https://*.b.example https://a.example", False)
    _, headers, _ = await get(shared, "/talk.js")
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in (await get(shared, "/app.js"))[1]


async def test_a_page_of_ones_own_may_need_a_looser_policy(serve: Serve) -> None:
    running = await serve(server={"csp": {"script-src": "'self' 'wasm-unsafe-eval'", "worker-src": "'self' blob:"}})
    _, headers, _ = await get(running, "/")
    policy = headers["content-security-policy"]
    assert "script-src 'self' 'wasm-unsafe-eval'; " in policy
    assert "worker-src 'self' blob:; " in policy
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'; " in policy


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("csp", {"script-src": "'self'; frame-ancestors *"}, "directives such as script-src"),
        ("csp", {"script-src": "'self'\r\nset-cookie: a=b"}, "directives such as script-src"),
        ("csp", {"frame-ancestors": "*"}, "directives such as script-src"),
        ("frame_ancestors", ["*"], "an origin such as"),
        ("frame_ancestors", ["https://example.com/"], "an origin such as"),
    ],
)
async def test_a_policy_that_means_something_else_is_refused(serve: Serve, key: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"server\.{key}.*{words}"):
        await serve(server={key: value})


async def test_a_page_whose_files_are_links_is_served(serve: Serve, tmp_path: Any) -> None:
    """As a mounted ConfigMap has them (through a hidden folder), and a package manager that links to its cache."""
    mounted, cache = tmp_path / "mounted", tmp_path / "cache"
    for folder in (mounted / "..2026", cache / "parts"):
        folder.mkdir(parents=True)
    (mounted / "..2026" / "index.html").write_text("mounted")
    (mounted / "..data").symlink_to("..2026")
    (mounted / "index.html").symlink_to("..data/index.html")
    (cache / "parts" / "part.js").write_text("export {}")
    (cache / "parts" / "above").symlink_to(mounted)
    (mounted / "parts").symlink_to(cache / "parts")
    (mounted / "itself").symlink_to(".")
    running = await serve(server={"web": "mounted"})
    assert (await get(running, "/"))[2] == b"mounted"
    assert (await get(running, "/parts/part.js"))[2] == b"export {}"
    for path in ("/..data/index.html", "/itself/index.html", "/parts/above/index.html"):
        assert (await get(running, path))[0] == 404


async def test_a_link_to_nothing_is_named(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "app.css").symlink_to("gone.css")
    with pytest.raises(ConfigError, match=r"server\.web: .*app\.css is a link to nothing: gone\.css"):
        await serve()


def test_a_second_service_on_a_port_says_so_before_it_loads_anything(tmp_path: Path) -> None:
    """Before the first one has a model to serve with, too: it listens from the start."""
    with bind(ServerConfig(port=0)) as first:
        port = first.getsockname()[1]
        path = write_config(tmp_path, {"server": {"port": port}, "engine": {"checkpoint": "no/such", "offline": True}})
        found = CliRunner().invoke(main, ["serve", "--config", str(path)])
    assert found.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in found.output


async def test_a_page_folder_without_a_page_is_named(serve: Serve, tmp_path: Any) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"server\.web: .*index\.html"):
        await serve(server={"web": "empty"})


async def test_queries_stay_out_of_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    running = await serve(personas={"custom": True})
    async with dial(running.url("/ws/chat?prompt=top+secret&ticket=hushhush")) as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.16))
    await refused(running, "/ws/chat?persona=nobody&ticket=hushhush")
    await running.record.ended()
    assert "session ended" in caplog.text
    assert "secret" not in caplog.text
    assert "hushhush" not in caplog.text
