"""Before a call: personas in their groups, voices to be heard, and a check of the sound."""

from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.conftest import Tab
from tests.browser.test_engines import REFUSE

SOUNDS = """
window.Audio = class extends Audio {
  constructor(...options) { super(...options); window.sound = this; }
};
"""
"""Keeps the newest sound that the page has made in reach."""

EAR = """
navigator.mediaDevices.getUserMedia = async () => {
  const context = (window.room = new AudioContext());
  const [voice, loudness] = [new OscillatorNode(context, { frequency: 150 }), new GainNode(context, { gain: 0 })];
  window.ear = context.createMediaStreamDestination();
  voice.connect(loudness).connect(ear);
  voice.start();
  window.speak = (gain) => { loudness.gain.value = gain; };
  return ear.stream;
};
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  if (window.loud) room.createMediaStreamSource(this.srcObject).connect(ear);
  return play.call(this);
};
"""
"""A microphone that a test can have speak, and that hears the speaker where `loud` is set."""


def test_personas_stand_in_groups_and_say_how_to_begin(tabs: Callable[..., Tab]) -> None:
    page = tabs("?persona=hotel").choose().page
    headings = page.locator("#cards h2:visible")
    assert headings.all_inner_texts() == ["Good company", "Stories", "At your service", "Others"]
    expect(page.locator("#dial-starters")).to_contain_text("When can I check in?")
    expect(page.locator(".card", has_text="Hotel").locator("svg text")).to_have_text("🏨")
    page.get_by_label("Search personas").fill("parrot cutlasses")
    expect(page.locator("#no-match")).to_contain_text("Nobody")
    page.get_by_label("Search personas").fill("stories bess")
    expect(page.locator(".card:visible")).to_have_count(1)
    assert headings.all_inner_texts() == ["Stories"]


def test_a_voice_is_heard_before_it_is_chosen(tabs: Callable[..., Tab]) -> None:
    tab = tabs("?persona=hotel", script=SOUNDS).choose()
    page = tab.page
    voice, hear = page.get_by_label("Voice", exact=True), page.locator("#hear")
    expect(voice.locator("option").first).to_have_text("Natural, female 2 (own)")
    hear.click()
    expect(hear).to_have_accessible_name("Stop", timeout=60_000)  # nano says the sentence first
    assert page.evaluate("!sound.paused && sound.duration > 2")
    voice.select_option("VARM0")
    expect(hear).to_have_accessible_name("Hear this voice")
    assert page.evaluate("sound.paused")
    expect(page.locator("#voice-id")).to_have_text("VARM0")
    busy = {"error": "Every line is needed for callers just now. Try again in a minute."}
    page.route("**/voices/VARM0/sample", lambda route: route.fulfill(status=503, json=busy))
    hear.click()
    expect(page.locator(".note")).to_contain_text("Every line is needed for callers")
    expect(hear).to_have_accessible_name("Hear this voice")
    voice.select_option("")
    hear.click()
    expect(hear).to_have_accessible_name("Stop")  # it is there already
    page.get_by_role("button", name="Start talking").click()
    assert page.evaluate("sound.paused")
    tab.until("live").end()


def test_the_sound_is_checked(tabs: Callable[..., Tab]) -> None:
    page = tabs(script=EAR).choose().page
    first = page.get_by_role("button", name="First call? Check your sound")
    first.click()
    says, level = page.locator("#check-says"), page.get_by_role("meter", name="Level of your microphone")
    expect(says).to_have_text("Say something: the bar should move.")
    page.evaluate("speak(0.3)")
    expect(says).to_have_text("Your microphone works.")
    assert level.evaluate("meter => meter.value") > 0.5
    page.evaluate("speak(0)")
    page.get_by_role("button", name="Play a tone").click()
    expect(says).to_contain_text("does not hear your speaker", timeout=15_000)
    page.evaluate("window.loud = true")
    page.get_by_role("button", name="Play a tone").click()
    expect(says).to_contain_text("Your microphone hears your speaker", timeout=15_000)
    page.keyboard.press("Escape")
    page.evaluate("""new Promise((done) => setInterval(() =>
      ear.stream.getTracks().every((track) => track.readyState === "ended") && done(), 20))""")
    expect(first).to_be_hidden()
    page.reload()
    page.locator(".card:not(.ghost)").first.wait_for()
    expect(first).to_be_hidden()
    page.get_by_role("button", name="Sound settings").click()
    page.evaluate(f"() => {{ {REFUSE.format('NotAllowedError')} }}")
    page.get_by_role("button", name="Test microphone").click()
    expect(says).to_contain_text("The microphone is not allowed")
    expect(page.get_by_role("button", name="Test microphone")).to_be_visible()
