"""The line breaks in mid-call: the page goes on in the same conversation."""

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Served, Tab
from tests.browser.line import Line

STATES = """() => {
  window.states = [];
  const note = () => states.push(document.body.dataset.call);
  new MutationObserver(note).observe(document.body, { attributeFilter: ["data-call"] });
}"""
"""Keeps the states that a call comes to, however short they are."""
NEXT_LIVE = """async () => {
  const end = performance.now() + 10_000;
  while (states.at(-1) !== "live" && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 40));
  return states;
}"""


@pytest.fixture
def line(served: Served) -> Iterator[Line]:
    """Between the page and the server."""
    line = Line(served.port)
    yield line
    line.close()


def test_a_call_goes_on_where_its_line_is_cut(tabs: Callable[..., Tab], line: Line) -> None:
    tab = tabs()
    page = tab.page
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.goto(line.url)
    tab.choose("Good company").call()
    expect(page.locator("#transcript .passage.agent").first).to_be_visible(timeout=60_000)
    before = page.locator("#transcript .passage.agent").first.inner_text()

    line.cut()
    tab.until("reconnecting")
    tab.says("The conversation goes on as soon as it is back")
    page.wait_for_timeout(3000)
    line.mend()
    tab.until("live")

    page.evaluate(STATES)
    line.hold()  # the device is on another network: nothing passes any more, and no connection breaks
    page.evaluate("dispatchEvent(new Event('online'))")
    assert page.evaluate(NEXT_LIVE) == ["reconnecting", "live"]
    assert tab.heard()

    expect(page.locator("#transcript .mark")).to_have_count(0)
    assert page.locator("#transcript .passage.agent").first.inner_text().startswith(before)
    tab.end()
    tokens = [parse_qs(urlsplit(url).query).get("resume") for url in sockets]
    assert tokens[0] is None
    assert all(tokens[1:])
    assert len({str(token) for token in tokens}) >= 3
