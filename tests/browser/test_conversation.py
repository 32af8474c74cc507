"""What one sees of a call: whose turn it is, both sides' words in their order, the timeline, and what is left of it."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Tab

REPORTING = """
window.Worker = class extends Worker {
  constructor(...options) {
    super(...options);
    window.report = (data) => this.onmessage({ data });
    this.addEventListener("message", (event) => {
      if (window.wordless && event.data.type === "text") event.stopImmediatePropagation();
    });
  }
};
"""
"""Lets a test say what the line would say, and keep the agent's own words back."""

SPEAKING = """
navigator.mediaDevices.getUserMedia = async () => {
  const context = new AudioContext();
  const [voice, loudness] = [new OscillatorNode(context, { frequency: 150 }), new GainNode(context, { gain: 0 })];
  const microphone = context.createMediaStreamDestination();
  voice.connect(loudness).connect(microphone);
  voice.start();
  window.speak = (gain) => { loudness.gain.value = gain; };
  return microphone.stream;
};
"""
"""A microphone that a test can have speak: `speak(0.3)`."""


def test_whose_turn_it_is(tabs: Callable[..., Tab]) -> None:
    tab = tabs(script=SPEAKING).choose("Good company").call()
    page, state = tab.page, tab.page.locator("#call-state")
    page.locator("body[data-turn=speaking]").wait_for(timeout=60_000)  # the greeting
    expect(state).to_have_text("Speaking")
    page.evaluate("speak(0.3)")
    expect(state).to_have_text("You are interrupting")
    page.locator("body[data-turn=heard]").wait_for(timeout=60_000)
    expect(state).to_have_text("Listening")
    page.get_by_role("button", name="Mute").click()
    expect(state).to_have_text("You are muted")
    page.get_by_role("button", name="Mute").click()
    page.evaluate("speak(0)")
    page.locator("body[data-turn=listening]").wait_for(timeout=60_000)
    tab.end()


def test_both_sides_in_their_order_and_what_is_left(tabs: Callable[..., Tab], tmp_path: Path) -> None:
    tab = tabs(script=REPORTING).choose("Good company").call()
    page = tab.page
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#recording")).to_have_text("Recording 0:02", timeout=10_000)
    expect(page.locator(".passage.agent").first).to_be_visible(timeout=60_000)
    you = page.locator(".passage.you").first
    expect(you).to_contain_text("You spoke,", timeout=60_000)
    page.wait_for_timeout(1500)
    # As a server with ears would say it, in the middle of what was only known as sound.
    page.evaluate("""report({ type: "metadata",
      metadata: { type: "caller_text", text: "Is breakfast <included>?", start_ms: 0, end_ms: 600000 } })""")
    expect(you).to_contain_text("Is breakfast <included>?")
    tab.end()
    starts = page.evaluate("[...document.querySelectorAll('.passage .at')].map((at) => at.textContent)")
    seconds = [60 * int(minutes) + int(rest) for minutes, rest in (start.split(":") for start in starts)]
    assert seconds == sorted(seconds)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download transcript as VTT").click()
    cues = Path(download.value.path()).read_text()
    assert download.value.suggested_filename.endswith(".vtt")
    assert cues.startswith("WEBVTT\n\n00:00:")
    assert "<v You>Is breakfast &lt;included&gt;?\n" in cues
    assert "<v Good company>" in cues
    figures = page.locator("#figures dd").all_inner_texts()
    assert len(figures) == 4
    assert figures[0] != "0:00"
    assert page.evaluate("document.body.dataset.outcome") == "calm"
    player = page.locator("#player")
    # Not `wait_for_function`, whose polling the page's Content-Security-Policy forbids.
    page.evaluate(
        "new Promise((done) => setInterval(() => document.getElementById('player').duration > 1 && done(), 20))"
    )
    page.get_by_label("Play the recording from").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert player.evaluate("player => player.currentTime") > 0
    page.locator(".passage .at").first.click()
    expect(player).to_have_js_property("paused", False)
    page.get_by_role("button", name="Call again").click()
    tab.until("live")
    assert player.evaluate("player => player.paused")
    expect(page.locator("#recording-box")).to_be_hidden()
    tab.end()


def test_a_plugin_that_hears_the_caller_and_ends_the_call(tabs: Callable[..., Tab]) -> None:
    tab = tabs().choose("Night gardener").call()
    words = tab.page.locator(".passage.you.heard")
    expect(words).to_contain_text("Do the moonflowers bloom?", timeout=60_000)
    tab.until("ended")
    tab.says("The call was ended")
    tab.says("The garden closes at dawn.")
    assert tab.page.evaluate("document.body.dataset.outcome") == "calm"
    expect(words).to_have_count(1)


def test_who_is_interrupted_ends_with_a_dash(tabs: Callable[..., Tab]) -> None:
    """The voices are real; the agent's words are given, so that they end in mid-sentence."""
    tab = tabs(script=REPORTING + SPEAKING + "window.wordless = true;").choose("Good company").call()
    page = tab.page
    page.locator("body[data-turn=speaking]").wait_for(timeout=60_000)
    page.evaluate("""report({ type: "text", text: " A sentence that nobody lets me" })""")
    page.evaluate("speak(0.3)")
    page.locator("body[data-turn=interrupting]").wait_for()
    page.locator("body[data-turn=heard]").wait_for(timeout=60_000)
    first = page.locator(".passage.agent").first
    expect(first).to_contain_text("A sentence that nobody lets me \N{EN DASH}")
    page.evaluate("""report({ type: "text", text: " Another one" })""")
    sides = page.evaluate("[...document.querySelectorAll('.passage')].map((row) => row.className)")
    assert sides == ["passage agent", "passage you", "passage agent"]
    expect(first).not_to_contain_text("Another one")
    tab.end()


def test_consent_is_a_banner_before_the_call(tabs: Callable[..., Tab]) -> None:
    tab = tabs()
    page = tab.page
    page.route("**/session", lambda route: route.fulfill(json={**route.fetch().json(), "notices": ["It is recorded."]}))
    page.reload()
    tab.choose()
    expect(page.locator("#consent")).to_have_text("It is recorded.")
    expect(page.locator("#notice")).not_to_contain_text("It is recorded.")
