"""The page around a call: password, choosing, keyboard, accessibility, sizes, weight, and its words in trouble."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from core.http.login_throttle import FREE as FREE_TRIES
from tests.browser.conftest import PASSWORD, Tab

AXE = Path(__file__).parents[1] / "web" / "node_modules" / "axe-core" / "axe.min.js"
SHIFTS = """() => new Promise((resolve) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const shift of list.getEntries()) sum += shift.hadRecentInput ? 0 : shift.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(sum), 300);
})"""
LOADED = """() => [performance.getEntriesByType("navigation"), performance.getEntriesByType("resource")]
  .flat().map(({ name, encodedBodySize }) => [name, encodedBodySize])"""


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
        ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })", "This page is not secure"),
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
    expect(page.locator("#call-state")).to_have_text("Live")
    assert page.evaluate("new Promise((done) => setInterval(() => given !== first && done(given.active), 20))")
    moved = page.locator("#meter-you:not([style*='scaleX(0.00)'])")
    moved.wait_for(state="attached")
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
    expect(page.get_by_role("radio", name="Astronaut")).to_be_checked()
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
    expect(page.locator("#call-state")).to_have_text("Live")
    page.get_by_role("button", name="End", exact=True).press("Enter")
    tab.until("ended")
    expect(page.get_by_role("button", name="Talk again")).to_be_focused()
    keys.press("Tab")
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Who would you like to talk to?")).to_be_focused()


@pytest.mark.parametrize(
    ("scheme", "width", "height"),
    [("light", 1280, 800), ("dark", 1280, 800), ("light", 390, 844), ("dark", 390, 844), ("light", 320, 640)],
)
def test_looks(tabs: Callable[..., Tab], tmp_path: Path, scheme: str, width: int, height: int) -> None:
    tab = tabs(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce").choose()
    page = tab.page

    def look(name: str) -> None:
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
    if width == 320:
        return
    tab.call()
    page.wait_for_timeout(1000)
    look("call")
    tab.end()
    look("ended")
    assert page.evaluate(SHIFTS) < 0.05


def test_weight(tabs: Callable[..., Tab]) -> None:
    """What goes over the wire until a persona can be chosen."""
    loaded = dict(tabs().choose().page.evaluate(LOADED))
    assert sum(loaded.values()) < 50_000
    assert len(loaded) < 36
