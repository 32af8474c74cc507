"""WebKitGTK's MiniBrowser by plain WebDriver over HTTP, with the standard library."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROGRAMS = ("WebKitWebDriver", "Xvfb")
BROWSERS = tuple(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))


def missing() -> list[str]:
    """What it wants and is not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None] + (["MiniBrowser"] if not BROWSERS else [])


class WebKit:
    """One browser window."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Start a screen, the driver and the browser; what they say goes to files in a folder."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self._log = (folder / "webkit.log").open("wb")
        reading, writing = os.pipe()
        self._screen = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
            pass_fds=(writing,),
            stderr=self._log,
        )
        os.close(writing)
        with os.fdopen(reading) as pipe:
            display = pipe.readline().strip()
        self._driver = subprocess.Popen(
            ["WebKitWebDriver", f"--port={self._url.rsplit(':', 1)[1]}", "--host=127.0.0.1"],
            env={**environment, "DISPLAY": f":{display}", "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1"},
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                self._ask("GET", "/status")
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline, "WebKitWebDriver does not answer"
                time.sleep(0.1)
        options = {"binary": str(BROWSERS[-1]), "args": ["--automation"]}
        wanted = {"alwaysMatch": {"browserName": "MiniBrowser", "webkitgtk:browserOptions": options}}
        self._session = self._ask("POST", "/session", {"capabilities": wanted})["sessionId"]

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, method=method, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:600]) from None

    def _tell(self, path: str, body: object) -> Any:
        return self._ask("POST", f"/session/{self._session}{path}", body)

    def goto(self, url: str) -> None:
        """Load a page."""
        self._tell("/url", {"url": url})

    def evaluate(self, script: str) -> Any:
        """What an expression of the page is."""
        return self._tell("/execute/sync", {"script": f"return ({script})", "args": []})

    def until(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression of the page is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(script):
            words = self.evaluate("document.body.innerText.slice(0, 600)")
            assert time.monotonic() < deadline, f"{script} is not true. The page says: {words}"
            time.sleep(0.1)

    def click(self, selector: str) -> None:
        """Click what a CSS selector finds first."""
        found = self._tell("/element", {"using": "css selector", "value": selector})
        self._tell(f"/element/{next(iter(found.values()))}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        found = self._tell("/element", {"using": "css selector", "value": selector})
        self._tell(f"/element/{next(iter(found.values()))}/value", {"text": text})

    def close(self) -> None:
        """End the browser, the driver and the screen."""
        try:
            self._ask("DELETE", f"/session/{self._session}")
        finally:
            for process in (self._driver, self._screen):
                process.terminate()
                process.wait()
            self._log.close()
