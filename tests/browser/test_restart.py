"""The server dies in mid-call and comes back with a shorter limit of time. The package's last test: it stays so."""

import json
from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.conftest import Served, Tab


def test_killed_started_again_and_out_of_time(tabs: Callable[..., Tab], served: Served) -> None:
    tab = tabs().choose().call()
    expect(tab.page.locator("#transcript .passage").first).to_be_visible(timeout=60_000)
    served.kill()
    tab.until("reconnecting")
    tab.says("The connection was lost")
    config = json.loads((served.folder / "config.yaml").read_text())
    (served.folder / "config.yaml").write_text(json.dumps({**config, "session": {"max_s": 6, "warn_s": 4}}))
    served.start()
    tab.until("live")
    expect(tab.page.locator("#transcript .mark")).to_have_text("Connected again. The conversation begins anew.")
    assert tab.heard()
    expect(tab.page.locator(".note").filter(has_text="The call's time is nearly up")).to_be_visible()
    tab.until("ended")
    tab.says("Time is up")
    expect(tab.page.get_by_role("button", name="Call again")).to_be_focused()
