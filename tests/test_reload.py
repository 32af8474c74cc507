"""Edits of config.yaml while the service runs: all of one, or nothing, from the next call on."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from core.events import SettingsReloaded
from core.plugin.hookspecs import hookimpl
from core.plugin.host import PluginHost
from core.plugin.reload import Reloader
from core.session.protocol import CloseCode
from core.settings.config import load_config
from core.testing import EchoEngine
from tests.caller import dial, get, refused
from tests.conftest import Running, Serve, speech, write_config

GAIN = """
import asyncio
import msgspec
from pathlib import Path
from core import hookimpl
from starlette.responses import PlainTextResponse
from starlette.routing import Route

class Plugin:
    class Options(msgspec.Struct):
        gain: float = 1.0
        start: str = ""
    def __init__(self, options):
        self.options = options
        self.note(f"made {options.gain}")
    def note(self, text):
        with (Path(__file__).parent / "notes").open("a") as file:
            file.write(text + chr(10))
    @hookimpl
    async def startup(self, engine):
        if self.options.start == "fails": raise RuntimeError("no such thing")
        if self.options.start == "hangs": await asyncio.sleep(3600)
        self.note(f"up {self.options.gain}")
    @hookimpl
    def shutdown(self): self.note(f"down {self.options.gain}")
    @hookimpl
    def transform_output(self): return self
    def process(self, frame): return frame * self.options.gain
    @hookimpl
    def register_routes(self): return [Route("/gain", self.serve)]
    async def serve(self, request): return PlainTextResponse(str(self.options.gain))
"""
DOOR = """
import msgspec
from core import Identity, hookimpl

class Plugin:
    class Options(msgspec.Struct):
        word: str | None = None
    def __init__(self, options):
        self.enabled = options.word is not None
        self.word = options.word
    @hookimpl
    def authenticate(self, connection):
        return Identity("friend") if connection.headers.get("authorization") == f"Bearer {self.word}" else None
"""


class Events:
    """What is said of reloads."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, ...]] = []

    @hookimpl
    def service_event(self, event: object) -> None:
        if isinstance(event, SettingsReloaded):
            self.problems.append(event.problems)


class Edited:
    """A running service, and its config.yaml."""

    def __init__(self, running: Running, folder: Path, events: Events) -> None:
        self.running = running
        self.folder = folder
        self.events = events
        self.settings: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())

    def edit(self, text: str = "", **sections: Any) -> None:
        """Save the file, with other sections, or another text altogether."""
        self.settings |= sections
        part = self.folder / "part"
        part.write_text(text or yaml.safe_dump(self.settings))
        part.replace(self.folder / "config.yaml")

    def options(self, plugin: str, **options: Any) -> None:
        """Save the file with other options of a plugin."""
        plugins = self.settings.get("plugins", {})
        self.edit(plugins=plugins | {"options": plugins.get("options", {}) | {plugin: options}})

    async def json(self, path: str, **headers: str) -> Any:
        return json.loads((await get(self.running, path, **headers))[2])

    async def gain(self) -> float:
        """What a new call hears of what it says."""
        async with dial(self.running.url("/ws/chat?audio=pcm"), "pcm") as caller:
            await caller.shake_hands()
            return await heard(caller)

    def notes(self) -> list[str]:
        return (self.folder / "plugins" / "notes").read_text().split("\n")[:-1]


async def heard(caller: Any) -> float:
    said = speech(0.16)
    return round(float(np.abs(await caller.talk(said)).max() / np.abs(said).max()), 2)


Editing = Callable[..., Awaitable[Edited]]


@pytest.fixture
def editing(serve: Serve, tmp_path: Path) -> Editing:
    """A service with the plugins above."""

    async def start(**settings: Any) -> Edited:
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "gain.py").write_text(GAIN)
        (tmp_path / "plugins" / "door.py").write_text(DOOR)
        events = Events()
        plugins = {"disabled": ["loudness"], **settings.pop("plugins", {})}
        running = await serve(extra=(events,), plugins=plugins, **settings)
        return Edited(running, tmp_path, events)

    return start


async def test_voices_personas_and_limits_change_with_the_next_call(editing: Editing) -> None:
    service = await editing()
    assert await service.json("/voices") == {"voices": ["NATF2", "NATM2"]}
    service.edit(
        voices={"allow": ["NATM2", "NATF2", "VARF0"]},
        personas={"custom": True, "default": "teacher"},
        session={"max_s": 77},
    )
    assert await service.json("/voices") == {"voices": ["NATM2", "NATF2", "VARF0"]}
    assert (await service.json("/personas"))["default"] == "teacher"
    async with dial(service.running.url("/ws/chat?voice=VARF0&prompt=Hello")) as caller:
        await caller.shake_hands()
        (ready,) = [told for told in caller.metadata if told["type"] == "ready"]
    assert (ready["voice"], ready["max_s"]) == ("VARF0", 77)
    assert service.events.problems == [()]


async def test_a_running_call_keeps_what_it_began_with(editing: Editing) -> None:
    service = await editing()
    async with dial(service.running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        service.options("gain", gain=0.5)
        assert await service.gain() == 0.5
        assert await heard(caller) == 1.0
        assert service.notes() == ["made 1.0", "up 1.0", "made 0.5", "up 0.5"]
        service.options("gain", gain=0.25)
        assert await service.gain() == 0.25
        assert await heard(caller) == 1.0
        assert "down 1.0" not in service.notes()
    await service.running.record.ended(3)
    async with asyncio.timeout(10):
        while "down 0.5" not in service.notes():  # noqa: ASYNC110 - a plugin in a file of its own writes it
            await asyncio.sleep(0)
    assert service.notes()[-2:] == ["down 1.0", "down 0.5"]


async def test_a_plugin_whose_options_stay_is_not_made_anew(editing: Editing) -> None:
    service = await editing()
    service.edit(session={"max_s": 77})
    await service.json("/voices")
    service.options("door")
    await service.json("/voices")
    assert service.notes() == ["made 1.0", "up 1.0"]
    assert (await get(service.running, "/metrics"))[2].count(b'personaplex_reloads_total{result="ok"} 2.0') == 1


async def test_routes_are_those_of_the_plugins_in_force(editing: Editing) -> None:
    service = await editing()
    assert await service.json("/gain") == 1.0
    service.options("gain", gain=0.5)
    assert await service.json("/gain") == 0.5


async def test_a_login_can_be_added_and_changed_but_not_taken_away(editing: Editing) -> None:
    service = await editing()
    service.options("door", word="one")
    assert (await refused(service.running, "/ws/chat"))[0] == 401
    assert (await get(service.running, "/voices", authorization="Bearer one"))[0] == 200
    service.options("door", word="two")
    assert (await get(service.running, "/voices", authorization="Bearer one"))[0] == 401
    assert (await get(service.running, "/voices", authorization="Bearer two"))[0] == 200
    for edit in (partial(service.options, "door"), partial(service.edit, "{}\n")):
        edit()
        assert (await get(service.running, "/voices"))[0] == 401
        assert (await service.json("/health"))["problems"] == 1
        (sentence,) = (await service.json("/health", authorization="Bearer two"))["details"]
        assert "nobody would have to log in" in sentence
    assert "details" not in await service.json("/health")


BROKEN: dict[str, tuple[Any, str]] = {
    "yaml": ("voices: [", "not valid YAML"),
    "key": ({"voices": {"alow": ["NATF2"]}}, "voices.alow: unknown key. Did you mean 'allow'?"),
    "voice": ({"voices": {"allow": ["NATF2", "NATM2", "NATX"]}}, "there is no voice 'NATX'"),
    "persona's voice": ({"voices": {"allow": ["NATF2"]}}, "teacher.yaml: voice: the voice 'NATM2' is not offered"),
    "default": ({"personas": {"default": "nobody"}}, "personas.default: there is no persona 'nobody'"),
    "option": ({"plugins": {"options": {"gain": {"gain": "loud"}}}}, "plugins.options.gain.gain: expected float"),
    "plugin": ({"plugins": {"options": {"gian": {"gain": 1}}}}, "there is no plugin 'gian'. Did you mean 'gain'?"),
    "startup": (
        {"plugins": {"options": {"gain": {"gain": 0.5, "start": "fails"}}}},
        "plugin gain: startup failed: RuntimeError: no such thing",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_edit_changes_nothing_and_is_reported(
    editing: Editing, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = await editing()
    edit, says = BROKEN[kind]
    if isinstance(edit, str):
        service.edit(edit)
    else:  # with a second edit, which is fine by itself
        service.edit(**{"session": {"max_s": 77}, **edit})
    for _ in range(3):
        assert await service.gain() == 1.0
    assert await service.json("/voices") == {"voices": ["NATF2", "NATM2"]}
    assert service.running.service.config.session.max_s == 900
    health = await service.json("/health")
    assert health["status"] == "ok"
    assert any(says in sentence for sentence in health["details"])
    assert caplog.text.count("settings kept as they were") == 1
    assert len(service.events.problems) == 1
    assert "down 1.0" not in service.notes()

    service.settings.pop("session", None)
    service.settings |= {"voices": {"allow": ["NATF2", "NATM2"]}, "personas": {}, "plugins": {"disabled": ["loudness"]}}
    service.options("gain", gain=0.5)
    assert await service.gain() == 0.5
    assert "problems" not in await service.json("/health")
    assert service.events.problems[-1] == ()


async def test_a_plugin_that_never_starts_is_given_up(editing: Editing, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await editing()
    monkeypatch.setattr("core.plugin.reload.STARTUP_TIMEOUT_S", 0.05)
    service.options("gain", gain=0.5, start="hangs")
    assert await service.gain() == 1.0
    assert "have not started" in (await service.json("/health"))["details"][0]


async def test_a_file_that_is_gone_changes_nothing(editing: Editing) -> None:
    service = await editing()
    (service.folder / "config.yaml").unlink()
    assert await service.gain() == 1.0
    assert "cannot be read" in (await service.json("/health"))["details"][0]
    service.options("gain", gain=0.5)
    assert await service.gain() == 0.5


async def test_what_needs_a_restart_is_named(editing: Editing, caplog: pytest.LogCaptureFixture) -> None:
    service = await editing()
    service.edit(server={"port": 1, "queue": 3}, log={"level": "debug"}, voices={"allow": ["NATM2", "NATF2"]})
    assert await service.json("/voices") == {"voices": ["NATM2", "NATF2"]}
    assert "settings that take effect after a restart" in caplog.text
    for key in ("server.port", "server.queue", "log.level"):
        assert key in caplog.text
    assert service.running.service.config.server.port == 0


async def test_a_broken_persona_is_reported_too(editing: Editing) -> None:
    service = await editing()
    assert (await service.json("/personas"))["default"] == "assistant"
    path = service.folder / "personas" / "teacher.yaml"
    good = path.read_text()
    path.write_text("name: [")
    assert len((await service.json("/personas"))["personas"]) == 2
    assert "teacher.yaml" in (await service.json("/health"))["details"][0]
    path.write_text(good)
    await service.json("/personas")
    assert "problems" not in await service.json("/health")


async def test_requests_in_the_midst_of_an_edit_all_see_one_state(editing: Editing) -> None:
    service = await editing()
    for number in range(5):
        allow = ["NATF2", "NATM2", *(["VARF0"] if number % 2 else [])]
        service.edit(voices={"allow": allow}, plugins={"disabled": ["loudness"], "options": {"gain": {"gain": number}}})
        answers = await asyncio.gather(*(service.json(path) for path in ("/voices", "/gain") * 2))
        assert answers == [{"voices": allow}, float(number)] * 2
    assert service.notes().count("up 4.0") == 1


async def test_a_caller_in_the_queue_is_not_disturbed(editing: Editing) -> None:
    service = await editing(server={"drain_s": 0.1})
    url = service.running.url()
    async with dial(url) as one, dial(url) as two, dial(url) as waiting:
        await one.shake_hands()
        await two.shake_hands()
        await waiting.told("queued")
        service.options("gain", gain=0.5)
        await service.json("/voices")
        await one.socket.close()
        await waiting.shake_hands()
        service.running.server.should_exit = True
        assert await waiting.end() == CloseCode.GOING_AWAY
    await service.running.record.ended(3)


async def test_a_half_written_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor empties the file first; nobody sees the service with the settings of an empty file."""
    path = write_config(tmp_path, {})
    reloader = Reloader(PluginHost.load(load_config(path, {})), EchoEngine(), {})
    await reloader.start()
    whole = path.read_text().replace("NATF2\n  - NATM2", "NATM2\n  - NATF2")
    path.write_text("")
    refreshing = asyncio.create_task(reloader.refresh())
    await asyncio.sleep(0)
    path.write_text(whole)
    await refreshing
    await reloader.refresh()
    assert reloader.host.config.voices.allow == ("NATM2", "NATF2")
    assert reloader.problems == ()
    await reloader.stop()
