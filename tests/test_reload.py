"""Edits of config.yaml while the service runs: all of one, or nothing, from the next call on."""

import asyncio
import itertools
import json
import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from core.events import SettingsReloaded
from core.media.voices import packaged_label
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
    async def serve(self, request):
        if request.query_params: self.note("asked")
        while request.query_params and (Path(__file__).parent / "hold").exists(): await asyncio.sleep(0.01)
        return PlainTextResponse(str(self.options.gain))
"""
FUNCTIONS = """
from pathlib import Path
from core import hookimpl

def note(text):
    with (Path(__file__).parent / "notes").open("a") as file:
        file.write(text + chr(10))

@hookimpl
def startup(config): note("functions up")
@hookimpl
def shutdown(): note("functions down")
@hookimpl
def register_routes():
    note("functions routes")
    return []
"""
SLOW = """
import time
import msgspec
from pathlib import Path
from core import hookimpl

class Plugin:
    class Options(msgspec.Struct):
        hold: bool = False
    def __init__(self, options): self.options = options
    @hookimpl
    def startup(self):
        while self.options.hold and (Path(__file__).parent / "hold").exists(): time.sleep(0.01)
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

    async def edit(self, text: str = "", **sections: Any) -> None:
        """Save the file, with other sections, or another text altogether, and wait until a request has had it taken in
        or rejected."""
        self.save(text, **sections)
        await get(self.running, "/health")
        await self.running.service.reloader.refresh()

    def save(self, text: str = "", **sections: Any) -> None:
        """Save the file, with other sections, or another text altogether."""
        self.settings |= sections
        part = self.folder / "part"
        part.write_text(text or yaml.safe_dump(self.settings))
        part.replace(self.folder / "config.yaml")

    async def options(self, plugin: str, **options: Any) -> None:
        """Save the file with other options of a plugin, and wait as `edit` does."""
        plugins = self.settings.get("plugins", {})
        await self.edit(plugins=plugins | {"options": plugins.get("options", {}) | {plugin: options}})

    async def json(self, path: str, **headers: str) -> Any:
        return json.loads((await get(self.running, path, **headers))[2])

    async def gain(self) -> float:
        """What a new call hears of what it says."""
        async with dial(self.running.url("/ws/chat?audio=pcm"), "pcm") as caller:
            await caller.shake_hands()
            return await heard(caller)

    def notes(self) -> list[str]:
        return (self.folder / "plugins" / "notes").read_text().split("\n")[:-1]

    async def noted(self, *notes: str) -> None:
        """Return when the plugin has noted all of these: it does so in a thread, beside the calls."""
        async with asyncio.timeout(20):
            while not set(notes) <= set(self.notes()):  # noqa: ASYNC110 - the notes are in a file
                await asyncio.sleep(0.01)


async def heard(caller: Any) -> float:
    said = speech(0.16)
    return round(float(np.abs(await caller.talk(said)).max() / np.abs(said).max()), 2)


Editing = Callable[..., Awaitable[Edited]]


@pytest.fixture
def editing(serve: Serve, tmp_path: Path) -> Editing:
    """A service with the plugins above."""

    async def start(engine: EchoEngine | None = None, more: dict[str, str] | None = None, **settings: Any) -> Edited:
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "gain.py").write_text(GAIN)
        (tmp_path / "plugins" / "door.py").write_text(DOOR)
        for name, source in (more or {}).items():
            (tmp_path / "plugins" / f"{name}.py").write_text(source)
        events = Events()
        plugins = {"disabled": ["loudness"], **settings.pop("plugins", {})}
        running = await serve(engine, extra=(events,), plugins=plugins, **settings)
        return Edited(running, tmp_path, events)

    return start


async def test_voices_personas_and_limits_change_with_the_next_call(editing: Editing) -> None:
    service = await editing()
    assert (await service.json("/voices"))["voices"] == ["NATF2", "NATM2"]
    await service.edit(
        voices={"allow": ["NATM2", "NATF2", "VARF0"]},
        personas={"custom": True, "default": "teacher"},
        session={"max_s": 77},
    )
    assert (await service.json("/voices"))["voices"] == ["NATM2", "NATF2", "VARF0"]
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
        await service.options("gain", gain=0.5)
        assert await service.gain() == 0.5
        assert await heard(caller) == 1.0
        assert service.notes() == ["made 1.0", "up 1.0", "made 0.5", "up 0.5"]
        await service.options("gain", gain=0.25)
        assert await service.gain() == 0.25
        assert await heard(caller) == 1.0
        assert "down 1.0" not in service.notes()
    await service.running.record.ended(3)
    await service.noted("down 1.0", "down 0.5")


async def test_a_plugin_whose_options_stay_is_not_made_anew(editing: Editing) -> None:
    service = await editing()
    await service.edit(session={"max_s": 77})
    await service.json("/voices")
    await service.options("door")
    await service.json("/voices")
    assert service.notes() == ["made 1.0", "up 1.0"]
    assert (await get(service.running, "/metrics"))[2].count(b'personaplex_reloads_total{result="ok"} 2.0') == 1


async def test_routes_are_those_of_the_plugins_in_force(editing: Editing) -> None:
    service = await editing()
    assert await service.json("/gain") == 1.0
    await service.options("gain", gain=0.5)
    assert await service.json("/gain") == 0.5


async def test_a_login_can_be_added_and_changed_but_not_taken_away(editing: Editing) -> None:
    service = await editing()
    await service.options("door", word="one")
    assert (await refused(service.running, "/ws/chat"))[0] == 401
    assert (await get(service.running, "/voices", authorization="Bearer one"))[0] == 200
    await service.options("door", word="two")
    assert (await get(service.running, "/voices", authorization="Bearer one"))[0] == 401
    assert (await get(service.running, "/voices", authorization="Bearer two"))[0] == 200
    for edit in (partial(service.options, "door"), partial(service.edit, "{}\n")):
        await edit()
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
        await service.edit(edit)
    else:  # with a second edit, which is fine by itself
        await service.edit(**{"session": {"max_s": 77}, **edit})
    for _ in range(3):
        assert await service.gain() == 1.0
    assert (await service.json("/voices"))["voices"] == ["NATF2", "NATM2"]
    assert service.running.service.config.session.max_s == 900
    health = await service.json("/health")
    assert health["status"] == "ok"
    assert any(says in sentence for sentence in health["details"])
    assert caplog.text.count("settings kept as they were") == 1
    assert len(service.events.problems) == 1
    assert "down 1.0" not in service.notes()

    service.settings.pop("session", None)
    service.settings |= {"voices": {"allow": ["NATF2", "NATM2"]}, "personas": {}, "plugins": {"disabled": ["loudness"]}}
    await service.options("gain", gain=0.5)
    assert await service.gain() == 0.5
    assert "problems" not in await service.json("/health")
    assert service.events.problems[-1] == ()


async def test_a_plugin_that_never_starts_is_given_up(editing: Editing, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await editing()
    monkeypatch.setattr("core.plugin.reload.STARTUP_TIMEOUT_S", 0.05)
    await service.options("gain", gain=0.5, start="hangs")
    assert await service.gain() == 1.0
    assert "have not started" in (await service.json("/health"))["details"][0]


async def test_a_file_that_is_gone_changes_nothing(editing: Editing) -> None:
    service = await editing()
    (service.folder / "config.yaml").unlink()
    assert await service.gain() == 1.0
    assert "cannot be read" in (await service.json("/health"))["details"][0]
    await service.options("gain", gain=0.5)
    assert await service.gain() == 0.5


async def test_what_needs_a_restart_is_named(editing: Editing, caplog: pytest.LogCaptureFixture) -> None:
    service = await editing()
    await service.edit(server={"port": 1, "queue": 3}, log={"level": "debug"}, voices={"allow": ["NATM2", "NATF2"]})
    assert (await service.json("/voices"))["voices"] == ["NATM2", "NATF2"]
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


async def test_requests_in_the_midst_of_an_edit_see_the_old_state_or_the_new_one(editing: Editing) -> None:
    service = await editing()

    def offer(voices: list[str]) -> dict[str, Any]:
        return {"voices": voices, "labels": {name: packaged_label(name) for name in voices}, "samples": True}

    states: list[tuple[Any, float]] = [(offer(["NATF2", "NATM2"]), 1.0)]
    for number in range(2, 6):
        allow = ["NATF2", "NATM2", *(["VARF0"] if number % 2 else [])]
        states.append((offer(allow), float(number)))
        plugins = {"disabled": ["loudness"], "options": {"gain": {"gain": number}}}
        service.save(voices={"allow": allow}, plugins=plugins)
        answers = await asyncio.gather(*(service.json(path) for path in ("/voices", "/gain") * 2))
        assert all(answer in (*states[-2], *states[-1]) for answer in answers)
        await service.running.service.reloader.refresh()
        assert (await service.json("/voices"), await service.json("/gain")) == states[-1]
    assert service.notes().count("up 5.0") == 1


async def test_a_caller_in_the_queue_is_not_disturbed(editing: Editing) -> None:
    service = await editing(server={"drain_s": 0.1})
    url = service.running.url()
    async with dial(url) as one, dial(url) as two, dial(url) as waiting:
        await one.shake_hands()
        await two.shake_hands()
        await waiting.told("queued")
        await service.options("gain", gain=0.5)
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


async def test_a_plugin_of_functions_starts_once_whatever_is_edited(serve: Serve, editing: Editing) -> None:
    service = await editing(more={"functions": FUNCTIONS})
    for max_s in (77, 88, -1, 99):
        await service.edit(session={"max_s": max_s})
    await service.options("gain", gain=0.5, start="fails")
    await service.options("gain", gain=0.5)
    assert await service.gain() == 0.5
    once = [note for note in service.notes() if note.startswith("functions")]
    assert sorted(once) == ["functions routes", "functions up"]
    await service.running.service.stop()
    assert service.notes().count("functions down") == service.notes().count("down 0.5") == 1


async def test_an_edit_that_fails_shuts_down_only_what_it_started(editing: Editing) -> None:
    service = await editing()
    await service.edit(
        personas={"default": "nobody"}, plugins={"disabled": ["loudness"], "options": {"gain": {"gain": 3}}}
    )
    await service.noted("up 3.0", "down 3.0")
    assert "down 1.0" not in service.notes()
    assert await service.gain() == 1.0


async def test_a_request_keeps_the_plugin_that_answers_it_running(editing: Editing) -> None:
    service = await editing()
    hold = service.folder / "plugins" / "hold"
    hold.touch()
    asked = asyncio.create_task(service.json("/gain?wait=1"))
    await service.noted("asked")
    await service.options("gain", gain=0.5)
    assert await service.json("/gain") == 0.5
    assert "down 1.0" not in service.notes()
    hold.unlink()
    assert await asked == 1.0
    await service.noted("down 1.0")


async def test_the_old_state_serves_while_a_plugin_starts(editing: Editing) -> None:
    service = await editing(more={"slow": SLOW})
    hold = service.folder / "plugins" / "hold"
    hold.touch()
    plugins = {"disabled": ["loudness"], "options": {"slow": {"hold": True}, "gain": {"gain": 0.5}}}
    service.save(plugins=plugins, voices={"allow": ["NATF2", "NATM2", "VARF0"]})
    for _ in range(2):  # the plugin's startup blocks until the end of these
        assert (await get(service.running, "/app.js"))[0] == 200
        assert (await service.json("/health"))["status"] == "ok"
        assert (await service.json("/voices"))["voices"] == ["NATF2", "NATM2"]
        assert await service.gain() == 1.0
    assert service.events.problems == []
    hold.unlink()
    await service.running.service.reloader.refresh()
    assert (await service.json("/voices"))["voices"] == ["NATF2", "NATM2", "VARF0"]
    assert await service.gain() == 0.5


async def test_a_service_stops_in_the_midst_of_an_edit(editing: Editing) -> None:
    service = await editing()
    service.save(plugins={"disabled": ["loudness"], "options": {"gain": {"gain": 0.5, "start": "hangs"}}})
    assert (await service.json("/health"))["status"] == "ok"
    await service.running.service.stop()
    assert "down 1.0" in service.notes()


async def test_calls_longer_than_the_memory_allows_are_no_edit(editing: Editing) -> None:
    service = await editing(EchoEngine(longest_s=1000))
    await service.edit(session={"max_s": 990})
    assert "1005 s needs more memory" in (await service.json("/health"))["details"][0]
    assert service.running.service.config.session.max_s == 900
    assert await service.gain() == 1.0
    await service.edit(session={"max_s": 985})
    assert "problems" not in await service.json("/health")
    assert service.running.service.config.session.max_s == 985


async def test_a_pipe_in_place_of_the_file_hangs_nobody(editing: Editing) -> None:
    service = await editing()
    (service.folder / "config.yaml").unlink()
    os.mkfifo(service.folder / "config.yaml")
    assert await service.gain() == 1.0
    await service.running.service.reloader.refresh()
    assert "not a regular file" in (await service.json("/health"))["details"][0]


@pytest.mark.parametrize("rewritten", [False, True])
async def test_a_file_that_changes_all_the_time_keeps_nobody_waiting(editing: Editing, rewritten: bool) -> None:
    service = await editing()
    path = service.folder / "config.yaml"
    texts = [path.read_text() + "# a" * number for number in range(2)]

    async def change() -> None:
        for number in itertools.count():
            if rewritten:
                (service.folder / "part").write_text(texts[number % 2])
                (service.folder / "part").replace(path)
            else:
                os.utime(path, ns=(number, number))
            await asyncio.sleep(0.03)

    changing = asyncio.create_task(change())
    for _ in range(5):
        assert (await service.json("/voices"))["voices"] == ["NATF2", "NATM2"]
    assert await service.gain() == 1.0
    assert not changing.done()
    changing.cancel()
    await asyncio.wait([changing])
    await service.edit(voices={"allow": ["NATM2", "NATF2"]})
    assert (await service.json("/voices"))["voices"] == ["NATM2", "NATF2"]


async def test_many_edits_in_a_call_keep_only_what_it_uses(editing: Editing) -> None:
    service = await editing(plugins={"options": {"recording": {"enabled": True}}})

    def recorders() -> int:
        return sum(thread.name == "recording" for thread in threading.enumerate())

    async with dial(service.running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        for number in range(10):
            await service.edit(session={"max_s": 100 + number})
        async with asyncio.timeout(20):
            while recorders() > 2:  # noqa: ASYNC110 - that of the call and that of the next one
                await asyncio.sleep(0.01)
        assert await heard(caller) > 0
        assert recorders() == 2
    async with asyncio.timeout(20):
        while recorders() > 1:  # noqa: ASYNC110 - the threads end by themselves
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("section", "folder"),
    [
        *(("personas", folder) for folder in ("~nobody-here/p", "x" * 300, "missing", "page/app.js/below")),
        *(("voices", folder) for folder in ("~nobody-here/p", "x" * 300, "page/app.js/below")),
    ],
)
async def test_a_folder_that_cannot_be_is_reported_and_changes_nothing(
    editing: Editing, section: str, folder: str
) -> None:
    service = await editing()
    changed: dict[str, Any] = {section: {"folder": folder, **service.settings.get(section, {})}}
    await service.edit(**changed)
    assert await service.gain() == 1.0
    health = await service.json("/health")
    assert (health["status"], health["problems"]) == ("ok", 1)
    assert folder in health["details"][0]
    assert "Error" not in health["details"][0]
    service.settings.pop("personas", None)
    await service.edit(voices={"allow": ["NATM2", "NATF2"]})
    assert "problems" not in await service.json("/health")
    assert (await service.json("/voices"))["voices"] == ["NATM2", "NATF2"]


async def test_folders_that_vanish_are_reported_and_what_they_held_goes_on(editing: Editing) -> None:
    service = await editing()
    for name in ("personas", "voices"):
        (service.folder / name).mkdir(exist_ok=True)
        (service.folder / name).rename(service.folder / "away")
        (service.folder / name).write_text("a file in its place")
        assert await service.gain() == 1.0
        assert len((await service.json("/personas"))["personas"]) == 2
        [problem] = (await service.json("/health"))["details"]
        assert f"{service.folder / name}: {name} cannot be read: Not a directory." in problem
        (service.folder / name).unlink()
        (service.folder / "away").rename(service.folder / name)
        await service.json("/personas")
        assert "problems" not in await service.json("/health")
