"""Calls: talk, hear, read, mute, record, wait in the queue."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from playwright.sync_api import expect

from tests.browser.conftest import SILENT, Tab, stereo

NO_OPUS = "delete window.AudioEncoder; delete window.AudioDecoder;"

HURRIED = "performance.now = ((now) => () => 5 * now())(performance.now.bind(performance));"
"""The page's clock goes five times as fast, and with it the pauses between its calls."""

LONGEST_PAUSE_MS = 6000
"""The caller whom the microphone plays is silent for less than this: he waits for greetings and answers."""

Sound = npt.NDArray[np.float32]


def record(tab: Tab, folder: Path, act: Callable[[], object]) -> tuple[Sound, int, float]:
    """Record while `act` runs, end the call, download: samples [2, n], rate, and seconds that it should be long."""
    page = tab.page
    button = page.get_by_role("button", name="Record")
    begin = page.evaluate("performance.now()")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    act()
    button.click()
    seconds = (page.evaluate("performance.now()") - begin) / 1000
    tab.end()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download recording").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return *stereo(path), seconds


def level(samples: Sound) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def test_talk_hear_read_mute_record(tabs: Callable[..., Tab], tmp_path: Path) -> None:
    tab = tabs().choose("Good company").call()
    page = tab.page
    expect(page.get_by_role("heading", name="Good company")).to_be_focused()
    expect(page).to_have_title("Live: Good company")

    def act() -> None:
        assert tab.heard()
        expect(page.locator("#transcript .passage").first).to_be_visible(timeout=60_000)
        expect(page.get_by_role("button", name="Copy transcript")).to_be_enabled()
        expect(tab.figure("Codec")).to_have_text("Opus")
        expect(tab.figure("Model")).to_have_text("nano")
        page.wait_for_timeout(LONGEST_PAUSE_MS)  # so that both voices are recorded
        page.get_by_role("button", name="Mute").click()
        tab.says("You are muted")
        page.wait_for_timeout(2000)

    sound, rate, seconds = record(tab, tmp_path, act)
    assert sound.shape[0] == 2
    assert abs(sound.shape[1] / rate - seconds) < 0.25 * seconds
    caller, agent = sound
    assert level(caller[: -2 * rate]) > SILENT
    assert level(caller[-int(1.2 * rate) :]) < SILENT, "muted"
    assert level(agent) > SILENT
    with page.expect_download() as words:
        page.get_by_role("button", name="Download transcript as text").click()
    text = Path(words.value.path()).read_text()
    assert text.startswith("[0:")
    expect(page.locator("#call-state")).to_have_text("Call ended")


def test_a_muted_caller_is_greeted(tabs: Callable[..., Tab]) -> None:
    tab = tabs().choose("Good company").call()
    tab.page.get_by_role("button", name="Mute").click()
    tab.says("You are muted")
    tab.page.evaluate("window.loudest = 0")  # What sounded before does not count.
    assert tab.heard()
    tab.end()


def test_another_voice_and_seed(tabs: Callable[..., Tab]) -> None:
    tab = tabs().choose("Hotel")
    page = tab.page
    page.get_by_label("Voice", exact=True).select_option("NATM2")
    page.get_by_text("Advanced").click()
    page.get_by_label("Seed").fill("9007199254740993")
    page.get_by_label("Text temperature").fill("0.5")
    tab.call()
    expect(tab.figure("Voice")).to_have_text("NATM2")
    expect(tab.figure("Seed")).to_have_text("9007199254740993")
    tab.end()
    page.get_by_role("button", name="Choose someone else").click()
    tab.choose("Clinic")
    expect(page.get_by_label("Voice", exact=True)).to_have_value("")
    tab.call()
    expect(tab.figure("Voice")).to_have_text("VARF0")
    tab.end()


def test_a_prompt_of_ones_own(tabs: Callable[..., Tab]) -> None:
    tab = tabs().choose("Your own")
    page = tab.page
    page.get_by_role("button", name="Start talking").click()
    expect(page.get_by_label("Who should it be?")).to_be_focused()  # required, so nothing started
    page.get_by_label("Who should it be?").fill("You enjoy having a good conversation. " * 5)
    page.get_by_label("Voice", exact=True).select_option("VARM0")
    tab.call()
    expect(tab.figure("Voice")).to_have_text("VARM0")
    tab.end()


def test_without_webcodecs(tabs: Callable[..., Tab], tmp_path: Path) -> None:
    tab = tabs(script=NO_OPUS).choose().call()
    assert tab.heard()
    expect(tab.page.locator("#readout dd").filter(has_text="PCM")).to_have_count(1)
    sound, rate, seconds = record(tab, tmp_path, lambda: tab.page.wait_for_timeout(2000))
    assert (sound.shape[0], rate) == (2, 24_000)
    assert abs(sound.shape[1] / rate - seconds) < 0.25 * seconds
    assert level(sound[0]) > SILENT
    assert level(sound[1]) > SILENT


def test_two_tabs_a_queue_and_a_busy_server(tabs: Callable[..., Tab]) -> None:
    first, second, third = (tabs().choose(name) for name in ("Bank", "Pirate", ""))
    fourth = tabs(script=HURRIED).choose()
    first.call()
    second.call()
    assert second.heard()
    assert first.heard()
    third.page.get_by_role("button", name="Start talking").click()
    third.until("queued")
    third.says("you are number 1")
    fourth.page.get_by_role("button", name="Start talking").click()
    fourth.until("ended")
    fourth.says("Everyone is busy")
    fourth.says("This page tries again in")
    assert fourth.page.evaluate("document.body.dataset.outcome") == "failed"
    first.end()
    third.until("live")
    third.end()
    second.end()
    fourth.until("live", 60)  # by itself
    fourth.end()


def test_a_server_out_of_reach(tabs: Callable[..., Tab]) -> None:
    tab = tabs().choose().call()
    tab.end()
    # To the page, the same as a server that is not there.
    tab.page.context.set_offline(True)
    tab.page.get_by_role("button", name="Call again").click()
    tab.says("The server cannot be reached")
    tab.page.context.set_offline(False)
    tab.page.get_by_role("button", name="Try again").click()
    tab.until("live").end()


def test_a_server_that_is_gone_before_the_first_call(tabs: Callable[..., Tab]) -> None:
    tab = tabs(script="window.setTimeout = ((real) => (act, ms) => real(act, ms === 1000 ? 1e6 : ms))(setTimeout)")
    tab.choose().page.context.set_offline(True)  # before a call's half of the page has come
    tab.page.get_by_role("button", name="Start talking").click()
    expect(tab.page.get_by_role("heading", name="The server cannot be reached")).to_be_focused()
    tab.page.context.set_offline(False)
    tab.page.get_by_role("button", name="Try again").click()
    tab.choose().call().end()
