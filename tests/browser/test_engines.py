"""The page in Firefox and WebKit: a call from the choice to the recording, heard at the speaker."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, expect

from tests.browser import webdriver
from tests.browser.conftest import LOUD, PASSWORD, Served, Tab
from tests.browser.sound_server import SoundServer
from tests.browser.test_call import NO_OPUS

SHIM = Path(__file__).with_name("firefox_shim.py")
PREFERENCES = {"media.navigator.permission.disabled": True, "media.autoplay.default": 0}
REFUSE = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{}'));"
PAINTED = """(() => {
  const canvas = document.getElementById("voices");
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const paint = copy.getContext("2d");
  paint.drawImage(canvas, 0, 0);
  return paint.getImageData(0, 0, copy.width, copy.height).data.some((value) => value);
})()"""
"""Whether the shape of the voices is there."""

NO_MICROPHONE = [
    ("NotAllowedError", "The microphone is not allowed"),
    ("NotFoundError", "No microphone found"),
]


@pytest.fixture(scope="module")
def launch(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Browser]:
    """Start Debian's Firefox ESR, over BiDi: `launch(environment, **preferences)`."""
    if shutil.which("firefox-esr") is None:
        pytest.skip("Firefox ESR is not installed")
    program = tmp_path_factory.mktemp("firefox") / "firefox"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SHIM}" "$@"\n')
    program.chmod(0o755)

    def start(environment: dict[str, str], **preferences: bool) -> Browser:
        return playwright.firefox.launch(
            channel="moz-firefox",
            executable_path=program,
            firefox_user_prefs={**PREFERENCES, **preferences},
            env=dict(environment),
        )

    return start


@pytest.fixture(scope="module")
def firefox(launch: Callable[..., Browser], sound_server: SoundServer) -> Iterator[Browser]:
    """Firefox with the speaker and the microphone."""
    browser = launch(sound_server.environment)
    yield browser
    browser.close()


@pytest.fixture
def firefox_tab(firefox: Browser, served: Served) -> Iterator[Callable[[str], Tab]]:
    """Open the page in Firefox, with a script of ours before its own."""
    contexts = []

    def open_tab(script: str = "") -> Tab:
        context = firefox.new_context()
        contexts.append(context)
        if script:
            context.add_init_script(script)
        tab = Tab(context.new_page())
        tab.page.goto(served.url)
        tab.page.get_by_label("Password").fill(PASSWORD)
        tab.page.keyboard.press("Enter")
        return tab.choose("Good company")

    yield open_tab
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("script", "codec"), [("", "Opus"), (NO_OPUS, "PCM")])
def test_a_call_in_firefox(
    firefox_tab: Callable[[str], Tab], sound_server: SoundServer, script: str, codec: str
) -> None:
    tab = firefox_tab(script)
    page = tab.page
    page.locator("#hear").click()
    assert sound_server.loudest() > LOUD, "the sample of the voice"
    tab.call()
    page.get_by_role("button", name="Record").click()
    assert sound_server.loudest() > LOUD
    expect(page.locator(".passage.agent").first).to_be_visible(timeout=60_000)
    expect(page.locator(".passage.you").first).to_be_visible(timeout=60_000)
    expect(tab.figure("Codec")).to_contain_text(codec)
    assert page.evaluate(PAINTED)
    page.get_by_role("button", name="Mute").click()
    tab.says("You are muted")
    tab.end()
    page.wait_for_function("document.getElementById('player').duration > 1")
    expect(page.get_by_role("link", name="Download recording")).to_be_visible()


@pytest.mark.parametrize(("error", "sentence"), NO_MICROPHONE)
def test_no_microphone_in_firefox(firefox_tab: Callable[[str], Tab], error: str, sentence: str) -> None:
    tab = firefox_tab(REFUSE.format(error))
    tab.page.get_by_role("button", name="Start talking").click()
    tab.until("ended")
    tab.says(sentence)


def test_firefox_without_a_speaker(launch: Callable[..., Browser], served: Served, tmp_path: Path) -> None:
    """Its sound never starts there, and it says nothing of it: the page does."""
    nowhere = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PULSE_SERVER": f"unix:{tmp_path}/none"}
    browser = launch({**os.environ, **nowhere}, **{"media.navigator.streams.fake": True})
    tab = Tab(browser.new_page())
    tab.page.goto(served.url)
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.keyboard.press("Enter")
    tab.choose().page.get_by_role("button", name="Start talking").click()
    tab.until("ended")
    tab.says("No speaker found")
    browser.close()


@pytest.fixture(scope="module")
def webkit(
    sound_server: SoundServer, served: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.WebKit]:
    """WebKitGTK's MiniBrowser, logged in; it gives the microphone without a question."""
    if missing := webdriver.missing():
        pytest.skip(f"WebKitGTK's driver is not all installed: {', '.join(missing)} missing")
    browser = webdriver.WebKit(tmp_path_factory.mktemp("webkit"), sound_server.environment)
    browser.goto(served.url)
    browser.until("document.activeElement.id === 'password'")
    browser.type("#password", PASSWORD)
    browser.click("#login-form button")
    browser.until("document.body.dataset.view === 'choose'")
    yield browser
    browser.close()


@pytest.mark.parametrize(("script", "codec"), [("", ""), (NO_OPUS, "PCM")])
def test_a_call_in_webkit(
    webkit: webdriver.WebKit, served: Served, sound_server: SoundServer, script: str, codec: str
) -> None:
    webkit.goto(f"{served.url}?persona=assistant")
    webkit.until("!document.getElementById('start').disabled")
    webkit.evaluate(f"(() => {{ {script} }})()")
    webkit.click("#hear")
    assert sound_server.loudest() > LOUD, "the sample of the voice"
    webkit.click("#start")
    webkit.until("document.body.dataset.call === 'live'")
    webkit.click("#record")
    assert sound_server.loudest() > LOUD
    webkit.until("document.querySelector('.passage.agent')")
    webkit.until("document.querySelector('.passage.you')")
    webkit.until(f"document.getElementById('readout').textContent.includes('{codec}')")
    assert webkit.evaluate(PAINTED)
    webkit.click("#mute")
    webkit.until("document.getElementById('call-state').textContent === 'You are muted'")
    webkit.click("#end")
    webkit.until("document.body.dataset.call === 'ended'")
    webkit.until("document.getElementById('player').duration > 1")


@pytest.mark.parametrize(("error", "sentence"), NO_MICROPHONE)
def test_no_microphone_in_webkit(webkit: webdriver.WebKit, served: Served, error: str, sentence: str) -> None:
    webkit.goto(served.url)
    webkit.until("!document.getElementById('start').disabled")
    webkit.evaluate(f"(() => {{ {REFUSE.format(error)} }})()")
    webkit.click("#start")
    webkit.until(f"document.getElementById('call-state').textContent === '{sentence}'")
