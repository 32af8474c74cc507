"""The page around a call: password, choosing, keyboard, accessibility, sizes, weight, and its words in trouble."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from core.http.login_throttle import FREE as FREE_TRIES
from tests.browser.conftest import PASSWORD, Tab
from tests.browser.test_hardening import WHOLE_CONTEXT

AXE = Path(__file__).parents[1] / "web" / "node_modules" / "axe-core" / "axe.min.js"
SHIFTS = """() => new Promise((resolve) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const shift of list.getEntries()) sum += shift.hadRecentInput ? 0 : shift.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(sum), 300);
})"""
LOADED = """() => [performance.getEntriesByType("navigation"), performance.getEntriesByType("resource")]
  .flat().map(({ encodedBodySize, decodedBodySize }) => [encodedBodySize, decodedBodySize])"""


def violations(tab: Tab) -> list[str]:
    """What the accessibility scanner finds on the page as it is."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run `npm install` in tests/web")
    tab.page.evaluate(AXE.read_text())
    found = tab.page.evaluate("async () => (await axe.run()).violations")
    return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found for node in one["nodes"]]


WITH_PASSWORD = """(password) => new Promise((resolve) => {
  const socket = new WebSocket(`ws://somebody:${encodeURIComponent(password)}@${location.host}/api/chat`);
  socket.onopen = () => { socket.close(); resolve("open"); };
  socket.onerror = () => resolve("refused");
})"""


def test_an_address_with_the_password_opens_nvidias_route(tabs: Callable[..., Tab]) -> None:
    tab = tabs(enter=False)
    assert tab.page.evaluate(WITH_PASSWORD, PASSWORD) == "open"


def test_password(tabs: Callable[..., Tab]) -> None:
    tab = tabs("?persona=hotel", enter=False)
    page = tab.page
    field, enter = page.get_by_label("Password"), page.get_by_role("button", name="Enter")
    expect(field).to_be_focused()
    assert violations(tab) == []
    field.fill("wrong")
    enter.click()
    expect(page.get_by_role("alert")).to_have_text("That is not the password. Try again.")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(enter).to_be_enabled()
    for _ in range(FREE_TRIES):
        expect(enter).to_be_enabled()
        field.fill("still wrong")
        field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Wait 1 seconds")
    expect(enter).to_be_disabled()
    expect(enter).to_be_enabled(timeout=5000)
    field.fill("open sesame")
    field.press("Enter")
    expect(page.get_by_role("radio", name="Hotel front desk")).to_be_checked()
    page.reload()
    tab.choose()
    # Logged out in the meantime: the page says so, and leads back in.
    page.context.clear_cookies()
    page.get_by_role("button", name="Start talking").click()
    tab.until("ended")
    tab.says("You are no longer logged in")
    page.get_by_role("button", name="Enter the password").click()
    expect(field).to_be_focused()
    field.fill("open sesame")
    field.press("Enter")
    tab.call().end()


def test_choosing(tabs: Callable[..., Tab]) -> None:
    tab = tabs("?persona=bank").choose()
    page = tab.page
    expect(page.get_by_role("radio", name="Bank service")).to_be_checked()
    expect(page.locator("#notice")).to_contain_text("small built-in model")
    expect(page.locator("#engine")).to_have_text("Model: nano")
    page.get_by_label("Search personas").fill("olive")
    expect(page.locator(".card:visible")).to_have_count(1)
    page.get_by_label("Search personas").press("Enter")
    expect(page.get_by_role("radio", name="Restaurant")).to_be_checked()
    expect(page).to_have_url(re.compile(r"\?persona=restaurant$"))
    page.get_by_label("Search personas").fill("nobody at all")
    expect(page.locator("#no-match")).to_contain_text("Nobody matches")
    page.get_by_label("Search personas").fill("")
    page.get_by_text("Advanced").click()
    page.get_by_label("Seed").fill("many")
    page.get_by_role("button", name="Start talking").click()
    expect(page.get_by_label("Seed")).to_be_focused()  # not a seed, so nothing started
    expect(page.locator("#call")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("radio", name="Restaurant")).to_be_checked()
    # Gone from the server since the page was loaded.
    page.get_by_role("radio", name="Restaurant").evaluate("input => { input.value = 'gone'; }")
    page.get_by_role("button", name="Start talking").click()
    tab.until("ended")
    tab.says("This persona is no longer offered")
    page.get_by_role("button", name="Choose", exact=True).click()
    expect(page.get_by_role("radio", name="Restaurant")).to_be_checked()
    # Allowed by its length, but too long for an address.
    page.get_by_role("radio", name="Your own").check(force=True)
    page.locator("textarea").fill("私" * 1500)
    page.get_by_role("button", name="Start talking").click()
    tab.until("ended")
    tab.says("Your prompt is too long")


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            "Object.defineProperty(window, 'isSecureContext', { value: false }); delete window.AudioWorkletNode",
            "not secure",
        ),
        ("NotAllowedError", "The microphone is not allowed"),
        ("NotFoundError", "No microphone found"),
        ("NotReadableError", "The microphone is in use"),
    ],
)
def test_no_microphone(tabs: Callable[..., Tab], script: str, sentence: str) -> None:
    if script.endswith("Error"):
        script = f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{script}'))"
    tab = tabs(script=script).choose()
    tab.page.get_by_role("button", name="Start talking").click()
    tab.until("ended")
    tab.says(sentence)


def test_microphone_unplugged(tabs: Callable[..., Tab]) -> None:
    script = """const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => (window.given = await ask(wanted));"""
    tab = tabs(script=script).choose().call()
    page = tab.page
    page.evaluate("window.first = given; given.getAudioTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.locator("body")).to_have_attribute("data-call", "live")
    assert page.evaluate("new Promise((done) => setInterval(() => given !== first && done(given.active), 20))")
    expect(page.locator("#transcript .passage.you").first).to_be_visible(timeout=30_000)
    tab.end()


def test_keyboard_only(tabs: Callable[..., Tab]) -> None:
    tab = tabs("?persona=assistant").choose()
    page, keys = tab.page, tab.page.keyboard
    keys.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page's content")).to_be_focused()
    keys.press("/")
    expect(page.get_by_label("Search personas")).to_be_focused()
    keys.press("Tab")
    expect(page.get_by_role("radio", name="Wise teacher")).to_be_focused()
    keys.press("ArrowDown")
    expect(page.get_by_role("radio", name="Good company")).to_be_checked()  # the next one of its group
    keys.press("Enter")
    tab.until("live")
    keys.press("m")
    expect(page.get_by_role("button", name="Mute")).to_have_attribute("aria-pressed", "true")
    keys.press("m")
    expect(page.get_by_role("button", name="Mute")).to_have_attribute("aria-pressed", "false")
    keys.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    keys.press("m")  # belongs to the dialog now
    keys.press("Escape")
    expect(page.get_by_role("button", name="Mute")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Sound settings").focus()
    keys.press("Enter")
    page.get_by_role("switch", name="Push to talk").focus()
    keys.press("Space")
    keys.press("Escape")
    tab.says("Hold the space bar")
    keys.down("Space")
    tab.says("You are heard")
    keys.up("Space")
    tab.says("Hold the space bar")
    page.get_by_role("button", name="Sound settings").press("Enter")
    page.get_by_role("switch", name="Single-key shortcuts").press("Space")
    keys.press("Escape")
    keys.press("e")
    keys.press("e")
    expect(page.locator("body")).to_have_attribute("data-call", "live")
    page.get_by_role("button", name="End", exact=True).press("Enter")
    tab.until("ended")
    expect(page.get_by_role("button", name="Call again")).to_be_focused()
    keys.press("Tab")
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Who would you like to talk to?")).to_be_focused()


STAGED = """
window.Worker = class extends Worker {
  constructor(...options) {
    super(...options);
    if (String(options[0]).includes("line-worker")) window.report = (data) => this.onmessage({ data });
  }
  postMessage(message, ...more) {
    if (message.type !== "open") super.postMessage(message, ...more);
  }
};
window.tell = (type, more) => report({ type: "metadata", metadata: { type, ...more } });
"""
"""A call without a line: a test says what the line would say."""


@pytest.mark.parametrize(
    ("scheme", "width", "height", "calls"),
    [
        ("light", 1280, 800, True),
        ("dark", 1280, 800, False),
        ("light", 390, 844, False),
        ("dark", 390, 844, True),
        ("light", 320, 640, False),
    ],
)
def test_looks(tabs: Callable[..., Tab], tmp_path: Path, scheme: str, width: int, height: int, calls: bool) -> None:
    """Every state of the page fits the screen, and the accessibility scanner finds nothing in it."""
    script = STAGED + WHOLE_CONTEXT
    viewport = {"width": width, "height": height}
    tab = tabs("?persona=hotel", script=script, viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    page = tab.choose().page

    def look(name: str, act: str = "") -> None:
        if act:
            page.evaluate(act)
        page.screenshot(path=tmp_path / f"{scheme}-{width}-{name}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
        assert violations(tab) == [], name

    assert page.evaluate(SHIFTS) < 0.02
    look("choose")
    page.get_by_text("Advanced").click()
    look("advanced")
    page.get_by_role("button", name="Sound settings").click()
    look("sound")
    page.keyboard.press("Escape")
    if not calls:
        return
    page.get_by_role("button", name="Start talking").click()
    tab.until("connecting")
    look("preparing", """report({ type: "opened" })""")
    look("queued", """tell("queued", { place: 2 })""")
    page.evaluate("""tell("preparing"); report({ type: "handshake" })""")
    expect(page.locator("#starters")).to_contain_text("When can I check in?")
    page.evaluate("""report({ type: "text", text: " Good evening, the Lakeside Hotel. How can I" });
      tell("caller_text", { text: "When can I check in?", start_ms: 400, end_ms: 900 });
      tell("weather.rain", { drops: 3 }); tell("another", { text: 1 })""")
    expect(page.locator(".passage.you.heard")).to_contain_text("When can I check in?")
    page.get_by_role("button", name="Record").click()
    look("live")
    page.get_by_role("button", name="Mute").click()
    tab.says("You are muted")
    look("muted")
    assert page.evaluate(SHIFTS) < 0.05  # from here on what comes is meant to be seen
    page.evaluate("context.suspend()")
    tab.says("The sound is paused")
    look("held")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#held")).to_be_hidden()
    look("reconnecting", """report({ type: "closed", code: 1006, opened: true })""")
    page.evaluate("""report({ type: "opened" }); report({ type: "handshake" });
      report({ type: "error", message: "The survey is complete. Thank you." });
      report({ type: "closed", code: 4010, opened: true })""")
    tab.says("The call was ended")
    tab.says("The survey is complete.")  # a plugin's own words
    assert page.evaluate("document.body.dataset.outcome") == "calm"
    page.locator("#recording-box").wait_for()
    look("ended")
    page.get_by_role("button", name="Call again").click()
    tab.until("connecting")
    look("busy", """report({ type: "closed", code: 1013, opened: true })""")
    assert page.evaluate("document.body.dataset.outcome") == "failed"
    page.context.set_offline(True)
    page.get_by_role("button", name="Choose someone else").click()
    expect(page.get_by_role("heading", name="The server cannot be reached")).to_be_focused()
    look("failed")


def test_weight(tabs: Callable[..., Tab]) -> None:
    """What goes over the wire until a persona can be chosen."""
    loaded = tabs().choose().page.evaluate(LOADED)
    assert sum(encoded for encoded, _ in loaded) < 60_000
    assert sum(decoded for _, decoded in loaded) < 150_000
    assert len(loaded) < 45
