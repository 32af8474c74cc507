"""The page on other sites: the button of the documentation's example, with tickets, and the page itself in a frame."""

import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from tests.browser.conftest import PASSWORD, Served, Tab
from tests.browser.test_page import violations
from tests.documents import ROOT

TICKETS = """() => {{ document.querySelector("personaplex-call").getTicket = async () => {} }}"""
RECIPE = ROOT / "docs" / "recipes" / "embed.md"


class Site(BaseHTTPRequestHandler):
    """A hotel's site: its page, and tickets for its visitors."""

    page = b""
    service = ""

    def do_GET(self) -> None:
        self._answer("text/html", self.page)

    def do_POST(self) -> None:
        assert self.path == "/voice-ticket"
        wanted = {"Authorization": f"Bearer {PASSWORD}"}
        request = urllib.request.Request(f"{self.service}ticket", method="POST", headers=wanted)
        with urllib.request.urlopen(request) as response:
            self._answer("application/json", response.read())

    def _answer(self, media_type: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(served: Served) -> Iterator[str]:
    """The address of a site with the documentation's page."""
    (example,) = re.findall(r"```html\n(.*?)```", RECIPE.read_text(), re.DOTALL)
    assert "https://talk.example.com/" in example
    Site.page = example.replace("https://talk.example.com/", served.url).encode()
    Site.service = served.url
    server = ThreadingHTTPServer(("127.0.0.1", served.site_port), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.site_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Page]:
    """Somebody's tab, without a cookie of the service. Errors in its console fail the test."""
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    # What the network or the service refuses is what is tested; a script or policy error of the page's is a fault.
    refused = re.compile("Failed to load resource|WebSocket connection|Framing")
    assert [error for error in errors if not refused.match(error)] == []


def says(frame: FrameLocator, words: str) -> None:
    expect(frame.locator("#says")).to_contain_text(words, timeout=60_000)


def test_a_button_on_another_site(visitor: Page, site: str) -> None:
    visitor.goto(site)
    visitor.evaluate("""window.states = []; document.querySelector("personaplex-call")
      .addEventListener("personaplex-state", ({ detail }) => states.push(detail))""")
    frame = visitor.frame_locator("personaplex-call iframe")
    expect(frame.locator("#name")).to_have_text("Front desk")
    frame.get_by_role("button", name="Talk to Front desk").click()
    says(frame, "speaking")  # both are: the microphone has a voice, and the agent greets
    frame.get_by_role("button", name="Mute").click()
    says(frame, "You are muted")
    frame.get_by_role("button", name="End the call").click()
    says(frame, "Call ended")
    assert visitor.evaluate("states") == ["asking", "connecting", "preparing", "preparing", "live", "ended"]
    # Another call takes another ticket, and a site that gives none is told of.
    visitor.evaluate(TICKETS.format('{ throw "Closed today."; }'))
    frame.get_by_role("button", name="Talk to Front desk").click()
    says(frame, "Closed today.")
    visitor.evaluate(TICKETS.format('"caller.forged"'))
    frame.get_by_role("button", name="Talk to Front desk").click()
    says(frame, "You are no longer logged in")


def test_the_page_in_the_frame_is_accessible(tabs: Callable[..., Tab]) -> None:
    """Opened by itself, where its caller is logged in."""
    tab = tabs("embed.html?persona=hotel")
    tab.page.get_by_role("button", name="Talk to Hotel front desk").click()
    expect(tab.page.locator("#says")).to_contain_text("speaking", timeout=60_000)
    assert violations(tab) == []
    tab.page.get_by_role("button", name="End the call").click()
    expect(tab.page.get_by_role("button", name="Talk to Hotel front desk")).to_be_focused()
    assert violations(tab) == []


def test_no_other_site_may_frame_it(visitor: Page, site: str, served: Served) -> None:
    visitor.goto(f"http://localhost:{served.site_port}/")  # the same page, and not the origin that is named
    frame = visitor.frame_locator("personaplex-call iframe")
    expect(frame.locator("#ball")).to_have_count(0)
    visitor.goto(site)
    visitor.evaluate(f"document.body.innerHTML = '<iframe src=\"{served.url}\"></iframe>'")
    expect(visitor.frame_locator("iframe").locator("#choose")).to_have_count(0)
