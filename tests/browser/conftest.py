"""The page in a real Chromium, with a fake microphone that has a voice, before a real server with the nano engine."""

import json
import shutil
import socket
import time
import urllib.request
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sphn
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, sync_playwright

from core.media.sound_files import read_channels, write_wav
from tests.browser import process
from tests.browser.sound_server import SoundServer
from tests.browser.sound_server import missing as sound_server_missing

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
PASSWORD = "open sesame"
SILENT, LOUD = 1e-3, 1e-2
"""RMS below which nothing is heard (-60 dB), and above which somebody speaks."""


GARDEN = '''"""Hears one sentence of whoever calls the night gardener, tells the page something, and ends the call."""
from core import hookimpl

class Ears:
    def __init__(self, control):
        self.control, self.frames = control, 0

    def agent_frame(self, frame):
        self.frames += 1
        if self.frames == 10:
            self.control.caller_said("Do the moonflowers bloom?", 200, 1400)
            self.control.tell("bloom", flowers=3)
        if self.frames == 30:
            self.control.end("dawn", "The garden closes at dawn.")

@hookimpl
def open_session(control):
    return Ears(control) if control.persona.id == "night-gardener" else None
'''
"""A plugin of the service."""


@dataclass
class Served:
    """`personaplex serve` in a process of its own, to be killed and started again."""

    folder: Path
    port: int
    site_port: int = 0
    """Where another site may be, whose pages may use the service."""
    process: ForkServerProcess | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    def start(self) -> None:
        """Start, and return when it can take a call."""
        self.process = process.start(self.folder, self.port)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self.process.is_alive(), (self.folder / "log").read_text()
            try:
                with urllib.request.urlopen(f"{self.url}health", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.join()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two slots, one place in the queue, a password."""
    folder = tmp_path_factory.mktemp("served")
    port, site_port = free_ports(2)
    config = {
        "server": {"queue": 1, "origins": [f"http://127.0.0.1:{site_port}"]},
        "engine": {"name": "nano", "slots": 2, "device": "cpu", "cache": "cache"},
        "personas": {"custom": True},
        "plugins": {"options": {"password": {"password": PASSWORD}}},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "plugins").mkdir()
    (folder / "plugins" / "garden.py").write_text(GARDEN)
    server = Served(folder, port, site_port)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    """What drives browsers; there can be one at a time."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV with what a microphone hears: the caller of `docs/nano.opus`, who waits, asks and listens."""
    voice = tmp_path_factory.mktemp("voice") / "voice.wav"
    write_wav(voice, read_channels(ROOT / "docs" / "nano.opus")[:1])
    return voice


@pytest.fixture(scope="package")
def browser(playwright: Playwright, voice: Path) -> Iterator[Browser]:
    """Chromium, whose microphone plays a voice again and again."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM,
        args=[*FLAGS, f"--use-file-for-fake-audio-capture={voice}"],
        ignore_default_args=["--headless", "--mute-audio"],
    )
    yield browser
    browser.close()


@pytest.fixture(scope="package")
def sound_server(tmp_path_factory: pytest.TempPathFactory, voice: Path) -> Iterator[SoundServer]:
    """A speaker and a microphone for the browsers that have no fake ones."""
    if missing := sound_server_missing():
        pytest.skip(f"PulseAudio is not all installed: {', '.join(missing)} missing")
    server = SoundServer(tmp_path_factory.mktemp("sound"), voice)
    yield server
    server.close()


@dataclass
class Tab:
    """One tab, and what the tests do in it again and again. Errors in its console fail the test."""

    page: Page
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.add_init_script(LISTENING)

    def choose(self, name: str = "") -> "Tab":
        """Pick the persona of that name, or leave what is chosen."""
        self.page.locator(".card:not(.ghost)").first.wait_for()
        if name:
            self.page.locator(".card", has_text=name).first.click()
        return self

    def call(self) -> "Tab":
        """Talk, and wait until it is live."""
        self.page.get_by_role("button", name="Start talking").click()
        return self.until("live")

    def until(self, state: str, seconds: float = 30) -> "Tab":
        """Wait for a state of the call."""
        self.page.locator(f"body[data-call={state}]").wait_for(timeout=seconds * 1000)
        return self

    def says(self, text: str, seconds: float = 30) -> None:
        """Wait until the call's state or its detail says this."""
        place = self.page.locator("#call-state, #call-detail").filter(has_text=text)
        place.first.wait_for(timeout=seconds * 1000)

    def figure(self, name: str) -> Locator:
        """A figure of the connection panel."""
        row = self.page.locator("#readout > div").filter(has=self.page.locator(f'dt:text-matches("^{name}")'))
        return row.locator("dd")

    def end(self) -> None:
        """Hang up."""
        self.page.get_by_role("button", name="End", exact=True).click()
        self.until("ended")

    def heard(self) -> bool:
        """Whether the agent has sounded since this call went live; waits for it."""
        return bool(self.page.evaluate(HEARD))


LISTENING = """
let stream, analyser;
const samples = new Float32Array(2048);
window.loudest = 0;
setInterval(() => {
  const sound = document.getElementById("agent-audio")?.srcObject;
  if (sound && sound !== stream) {
    const context = new AudioContext();
    analyser = new AnalyserNode(context, { fftSize: samples.length });
    context.createMediaStreamSource(stream = sound).connect(analyser);
  }
  if (analyser) {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((total, sample) => total + sample * sample, 0) / samples.length;
    window.loudest = Math.max(window.loudest, Math.sqrt(power));
  }
  if (document.body?.dataset.call !== "live") window.loudest = 0;
}, 40);
"""
"""Listens to the speaker from the first: a greeting is over soon, and who calls then waits to be answered."""

HEARD = f"""async () => {{
  const end = performance.now() + 30_000;
  while (window.loudest < {LOUD} && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 40));
  return window.loudest >= {LOUD};
}}"""


@pytest.fixture
def tabs(browser: Browser, served: Served) -> Iterator[Callable[..., Tab]]:
    """Open tabs: `tabs(path="", enter=True, **context options)`; each in a context of its own, logged in or not."""
    opened: list[tuple[BrowserContext, Tab]] = []

    def open_tab(path: str = "", *, enter: bool = True, script: str = "", **options: Any) -> Tab:
        context = browser.new_context(**options)
        if enter:
            assert context.request.post(f"{served.url}login", form={"password": PASSWORD}).status == 204
        if script:
            context.add_init_script(script)
        tab = Tab(context.new_page())
        tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.page.on("console", lambda message: tab.errors.append(message.text) if message.type == "error" else None)
        tab.page.goto(served.url + path)
        opened.append((context, tab))
        return tab

    yield open_tab
    for context, _ in opened:
        context.close()
    for _, tab in opened:
        # What the network refuses is shown on the page; a script or policy error is a fault.
        shown = ("Failed to load resource", "WebSocket connection")
        assert [error for error in tab.errors if not error.startswith(shown)] == []


def stereo(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """A recording's samples [2, n] and its rate: WAV by the standard library, Ogg/Opus by sphn."""
    if path.suffix == ".wav":
        with wave.open(str(path)) as file:
            raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return np.float32(raw / 32768).reshape(-1, file.getnchannels()).T, file.getframerate()
    samples, rate = sphn.read_opus(str(path))
    return np.asarray(samples, np.float32), int(rate)
