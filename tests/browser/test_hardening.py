"""What must not break a call or the page: long words, bad values, interruptions of the system, strange browsers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Tab

URL = "https://example.com/" + "a-long-address-" * 4
WORD = "Donaudampfschifffahrt" * 15
PLAIN: dict[str, Any] = {"group": "", "starters": [], "emoji": "", "image": None}
PERSONAS: dict[str, Any] = {
    "personas": [
        {**PLAIN, "id": "address", "name": URL[:80], "description": f"See {URL[:80]}", "voice": "NATF2"},
        {
            "id": "word",
            "name": WORD[:300],
            "description": WORD[:300],
            "voice": "NATM1",
            "group": WORD[:60],
            "starters": [WORD[:100]] * 6,
            "emoji": "🏴‍☠️",
            "image": "icon.svg",
        },
        {**PLAIN, "id": "right", "name": "מלון האגם", "description": "ברוכים הבאים!", "voice": "NATF2"},
        {**PLAIN, "id": "plain", "name": "Plain", "description": "A name like any other.", "voice": "NATF2"},
    ],
    "custom": False,
    "max_prompt_chars": 4000,
    "default": "word",
}
WHOLE_CONTEXT = """
window.AudioContext = class extends AudioContext {
  constructor(options) { super(options); if (options) window.context = this; }
};
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => (window.given = await ask(wanted));
"""
"""Keeps the call's audio context and microphone in reach."""


def answer(tab: Tab, path: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Have the server's answer at a path changed on its way; the page is loaded again."""

    def fulfil(route: Route) -> None:
        route.fulfill(json=change(json.loads(route.fetch().body())))

    tab.page.route(f"**/{path}", fulfil)
    tab.page.reload()
    tab.choose()


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (844, 390), (1440, 900)])
def test_long_words(tabs: Callable[..., Tab], width: int, height: int) -> None:
    tab = tabs(viewport={"width": width, "height": height}).choose()
    answer(tab, "personas", lambda _: PERSONAS)
    answer(tab, "session", lambda session: {**session, "notices": [f"Recorded, see {URL} {WORD}"]})
    page, start = tab.page, tab.page.get_by_role("button", name="Start talking")
    for index in range(len(PERSONAS["personas"])):
        page.locator(".card input").nth(index).evaluate("input => input.click()")
        assert fits(page)
        page.evaluate("scrollTo(0, 0)")
        expect(start).to_be_in_viewport(ratio=1)
    expect(page.locator("#consent")).to_contain_text("Recorded, see")
    name = page.locator(".card .name").nth(2)
    assert name.evaluate("name => getComputedStyle(name).direction") == "rtl"
    page.locator(".card input").nth(1).evaluate("input => input.click()")
    start.click()  # A persona that the server does not know: the longest name with an ending.
    tab.until("ended")
    assert fits(page)


def test_low_screen_has_nothing_that_sticks(tabs: Callable[..., Tab]) -> None:
    tab = tabs(viewport={"width": 844, "height": 390}).choose()
    assert tab.page.locator(".dial").evaluate("dial => getComputedStyle(dial).position") == "static"


def test_a_bad_value_that_is_folded_away(tabs: Callable[..., Tab]) -> None:
    tab = tabs().choose()
    page = tab.page
    page.get_by_text("Advanced").click()
    page.get_by_label("Text top-k").fill("2.5")
    page.get_by_text("Advanced").click()
    expect(page.get_by_label("Text top-k")).to_be_hidden()
    page.get_by_role("button", name="Start talking").click()
    expect(page.get_by_label("Text top-k")).to_be_focused()
    expect(page.locator("#advanced-error")).to_have_text("Text top-k: a whole number from 1 to 500.")
    expect(page.locator("#call")).to_be_hidden()
    page.get_by_label("Text top-k").fill("20")
    expect(page.locator("#advanced-error")).to_have_text("")
    page.get_by_label("Voice temperature").fill("0.333")
    tab.call().end()


def test_the_system_pauses_the_sound(tabs: Callable[..., Tab]) -> None:
    tab = tabs(script=WHOLE_CONTEXT).choose().call()
    page = tab.page
    page.evaluate("context.suspend()")
    tab.says("The sound is paused")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#held")).to_be_hidden()
    assert page.evaluate("context.state") == "running"
    page.evaluate("document.getElementById('agent-audio').pause()")
    tab.says("The sound is paused")
    # Coming back to the page goes on by itself.
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#held")).to_be_hidden()
    assert not page.evaluate("document.getElementById('agent-audio').paused")
    tab.end()


def test_the_system_takes_the_microphone(tabs: Callable[..., Tab]) -> None:
    tab = tabs(script=WHOLE_CONTEXT).choose().call()
    page = tab.page
    page.evaluate("""window.first = given; const [track] = given.getAudioTracks();
    Object.defineProperty(track, "muted", { value: true }); track.dispatchEvent(new Event("mute"))""")
    tab.says("Your microphone is paused")
    expect(page.locator("#status")).to_contain_text("Your microphone is paused")
    page.locator("#call-name").click()  # one tap, wherever
    expect(page.locator("#held")).to_be_hidden()
    assert page.evaluate("given !== first && given.active")
    tab.end()


OVERCONSTRAINED = """navigator.mediaDevices.getUserMedia = () =>
  Promise.reject(Object.assign(new Error("no"), { name: "OverconstrainedError" }));"""


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("AudioContext.prototype.resume = () => new Promise(() => {});", "No speaker found"),
        (OVERCONSTRAINED, "No microphone found"),
        ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })", "switched off in this browser"),
        ("delete window.AudioContext; delete window.AudioWorkletNode;", "This browser cannot make calls"),
    ],
    ids=["no speaker", "no such microphone", "capture switched off", "no AudioContext"],
)
def test_no_sound(tabs: Callable[..., Tab], script: str, sentence: str) -> None:
    tab = tabs(script=script).choose()
    tab.page.get_by_role("button", name="Start talking").click()
    tab.until("ended")
    tab.says(sentence)
    expect(tab.page.locator("#status")).to_contain_text(sentence)
    # There was no call: no clock, no figures, no empty transcript.
    for part in ("#clock", "#figures", "#voices", "#transcript"):
        expect(tab.page.locator(part)).to_be_hidden()
    assert tab.page.locator("#again").inner_text() in {"Try again", "Reload the page"}


def test_a_browser_whose_elements_are_silent_plays_by_the_context(tabs: Callable[..., Tab]) -> None:
    script = f"""{WHOLE_CONTEXT}
    delete HTMLMediaElement.prototype.captureStream;
    const connect = AudioNode.prototype.connect;
    AudioNode.prototype.connect = function (target, ...more) {{
      if (target === window.context?.destination) {{
        const analyser = new AnalyserNode(target.context, {{ fftSize: 2048 }});
        const samples = new Float32Array(2048);
        connect.call(this, analyser);
        setInterval(() => {{
          analyser.getFloatTimeDomainData(samples);
          const power = samples.reduce((total, sample) => total + sample * sample, 0) / samples.length;
          window.loudest = Math.max(window.loudest, Math.sqrt(power));
        }}, 40);
      }}
      return connect.call(this, target, ...more);
    }};"""
    tab = tabs(script=script).choose("Good company").call()
    assert tab.heard()
    assert tab.page.evaluate("document.getElementById('agent-audio').srcObject") is None
    tab.end()


def test_forced_colours(tabs: Callable[..., Tab]) -> None:
    tab = tabs(forced_colors="active").choose("Hotel")
    page = tab.page
    outline = "card => getComputedStyle(card).outlineStyle"
    assert page.locator(".card:has(:checked)").evaluate(outline) == "solid"
    assert page.locator(".card:has(:not(:checked))").last.evaluate(outline) == "none"
    tab.call()
    dot, back = page.evaluate(
        """[getComputedStyle(document.getElementById("call-state"), "::before"), getComputedStyle(document.body)]
        .map(({ backgroundColor }) => backgroundColor)"""
    )
    assert dot != back
    colors = page.evaluate("""async () => {
      await new Promise((resolve) => setTimeout(resolve, 500));
      const canvas = document.getElementById("voices");
      const paint = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
      paint.drawImage(canvas, 0, 0);
      const { data } = paint.getImageData(0, canvas.height / 2, canvas.width, 1);
      const seen = new Set();
      for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) seen.add(data.slice(at, at + 3).join());
      return [...seen];
    }""")
    assert len(colors) >= 2, "both bodies are drawn, each in a colour of its own"
    tab.end()


def test_words_of_the_page(tabs: Callable[..., Tab]) -> None:
    tab = tabs("?persona=nosuch").choose()
    page = tab.page
    expect(page.locator(".note")).to_contain_text("There is no persona “nosuch” here")
    for name in ("Sound settings", "Keyboard shortcuts"):
        button = page.get_by_role("button", name=name)
        expect(button).to_have_attribute("title", name)
        button.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.mouse.click(5, 5)  # its backdrop
        expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_text("Advanced").click()
    tops = [page.get_by_label(f"{kind} top-k").bounding_box() for kind in ("Voice", "Text")]
    sides = [page.get_by_label(f"{kind} temperature").bounding_box() for kind in ("Voice", "Text")]
    for top, side in zip(tops, sides, strict=True):
        assert top is not None
        assert side is not None
        assert (top["y"], top["height"]) == (side["y"], side["height"])
    tab.call()
    expect(page.locator("#status")).to_contain_text("Live")
    page.get_by_role("button", name="Mute").click()
    expect(page.locator("#status")).to_have_text("You are muted.")
    page.get_by_role("button", name="Mute").click()
    page.keyboard.press("e")
    expect(page.locator(".note").last).to_contain_text("Press E again to end the call.")
    assert page.evaluate("document.body.dataset.call") == "live"
    page.keyboard.press("e")
    tab.until("ended")
    expect(page.locator("#status")).to_have_text("Call ended. Thanks for talking.")
    expect(page.get_by_role("button", name="Call again")).to_be_focused()


WARNED = """
window.Worker = class extends Worker {
  constructor(...options) {
    super(...options);
    window.warn = (seconds) => this.onmessage({ data: { type: "metadata",
      metadata: { type: "warning", limit: "idle", seconds } } });
  }
};
"""


def test_the_idle_warning(tabs: Callable[..., Tab]) -> None:
    tab = tabs(script=WARNED).choose().call()
    page, note = tab.page, tab.page.locator(".note").filter(has_text="or the call ends")
    page.get_by_role("button", name="Mute").click()
    page.evaluate("warn(30)")
    expect(note).to_contain_text("You are muted")
    expect(note.locator("b")).to_have_text("29 s")
    expect(note.locator("b")).to_have_text("28 s")
    page.get_by_role("button", name="Mute").click()
    expect(page.locator(".note").filter(has_text="Are you still there?")).to_have_count(0)  # the microphone speaks
    expect(note).to_have_count(0)
    tab.end()
