"""The page of one process, and the calls of another, which sleeps at first."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Served, Tab, free_ports

PASSWORD = "open sesame"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Served, Served]]:
    """A process with the page and one with the calls, neither of them started."""
    page, gpu = (Served(tmp_path / name, port) for name, port in zip(("page", "gpu"), free_ports(2), strict=True))
    roles = (
        (page, {"role": "page", "socket": f"ws://localhost:{gpu.port}", "wake_s": 5}),
        (gpu, {"role": "gpu", "origins": [f"http://localhost:{page.port}"]}),
    )
    for server, settings in roles:
        server.folder.mkdir()
        config = {
            "server": settings,
            "engine": {"name": "nano", "slots": 1, "device": "cpu"},
            "plugins": {"options": {"password": {"password": PASSWORD}}},
        }
        (server.folder / "config.yaml").write_text(json.dumps(config))
    yield page, gpu
    page.kill()
    gpu.kill()


def test_a_call_wakes_the_model_and_comes_back_after_a_restart(browser: Browser, pair: tuple[Served, Served]) -> None:
    page, gpu = pair
    page.start()
    context = browser.new_context()
    tab = Tab(context.new_page())
    faults: list[str] = []
    tab.page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.page.goto(page.url)
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.keyboard.press("Enter")
    tab.choose().page.get_by_role("button", name="Start talking").click()
    tab.until("waking")
    tab.says("Waking the model")
    tab.says("of about 5 seconds")
    gpu.start()
    tab.until("live", 60)
    assert tab.heard()
    expect(tab.page.locator("#engine")).to_have_text("Model: nano")
    gpu.kill()
    tab.until("reconnecting")
    gpu.start()
    tab.until("live", 60)
    tab.end()
    context.close()
    network = ("Failed to load resource", "WebSocket connection")
    assert [fault for fault in faults if not fault.startswith(network)] == []


def test_the_page_may_wake_it_early_and_the_caller_may_hang_up_on_it(
    browser: Browser, pair: tuple[Served, Served]
) -> None:
    page, gpu = pair
    config = json.loads((page.folder / "config.yaml").read_text())
    config["server"]["wake"] = "page"
    (page.folder / "config.yaml").write_text(json.dumps(config))
    page.start()
    context = browser.new_context()
    tab = Tab(context.new_page())
    tab.page.goto(page.url)
    tab.page.get_by_label("Password").fill(PASSWORD)
    with tab.page.expect_request(f"http://localhost:{gpu.port}/health"):
        tab.page.keyboard.press("Enter")
    tab.choose().page.get_by_role("button", name="Start talking").click()
    tab.until("waking")
    tab.end()
    tab.says("Call ended")
    context.close()


ASKED = """
from starlette.responses import JSONResponse
from starlette.routing import Route

from core import RefusedError, hookimpl

answers = ANSWERS


@hookimpl
def register_routes():
    async def calls(request):
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        if status >= 400:
            raise RefusedError(status, body)
        return JSONResponse(body, status)

    return [Route("/calls", calls, methods=["POST"])]
"""


def test_the_page_asks_where_calls_are_and_says_why_there_are_none(
    browser: Browser, pair: tuple[Served, Served]
) -> None:
    """As on Modal: the address changes, and the server starts what it leads to, or says that it does not."""
    page, gpu = pair
    config = json.loads((page.folder / "config.yaml").read_text())
    config["server"]["socket"] = f"ws://*.localhost:{gpu.port}"
    (page.folder / "config.yaml").write_text(json.dumps(config))
    (page.folder / "plugins").mkdir()
    answers = [
        (503, "The model could not be started, 2 times in a row."),
        (202, {"waited_s": 1.0, "usual_s": 77}),
        (202, {"waited_s": 3.0, "usual_s": 77}),
        (200, {"url": f"ws://calls.localhost:{gpu.port}"}),
    ]
    (page.folder / "plugins" / "asked.py").write_text(ASKED.replace("ANSWERS", repr(answers)))
    page.start()
    gpu.start()
    context = browser.new_context()
    tab = Tab(context.new_page())
    tab.page.goto(page.url)
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.keyboard.press("Enter")
    tab.choose().page.get_by_role("button", name="Start talking").click()
    tab.says("The model could not be started, 2 times in a row.")
    tab.page.get_by_role("button", name="Try again").click()
    tab.until("waking")
    tab.says("of about 77 seconds")
    tab.until("live", 60)
    assert tab.heard()
    tab.end()
    context.close()
