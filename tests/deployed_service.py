"""Both functions of the deployment on Modal, with nano, over real sockets: the page, and the containers it starts."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.client import waking
from core.http.listening import bind
from core.settings.sections import ServerConfig
from deploy import serving
from deploy.choices import Deployment
from deploy.page import page_app
from deploy.settings import Settings
from tests.conftest import StoppableServer
from tests.deployed import PASSWORD, ROOT, DictRecords, LocalGpus, place

__all__ = ["place"]  # a fixture
BEARER: dict[str, Any] = {"Authorization": f"Bearer {PASSWORD}"}


async def ask(url: str, data: bytes | None = None, **headers: Any) -> tuple[int, Any, Any]:
    """Status, headers and body of a GET, or of a POST of `data`."""

    def fetch() -> tuple[int, Any, bytes]:
        request = urllib.request.Request(url, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    status, found, body = await asyncio.to_thread(fetch)
    return status, found, json.loads(body) if "json" in found.get("content-type", "") else body


@dataclass
class Service:
    """The page's container, over a real socket, and the containers that it starts."""

    url: str
    records: DictRecords
    gpus: LocalGpus
    settings: Settings

    async def calls(self, **headers: Any) -> tuple[int, Any]:
        """What `POST /calls` says to somebody who is logged in."""
        status, _, body = await ask(f"{self.url}/calls", b"", **(headers or BEARER))
        return status, body

    async def awake(self, but: str = "") -> str:
        """Where calls are, once they are somewhere (else than `but`)."""
        async with asyncio.timeout(30):
            while True:
                status, body = await self.calls()
                assert status in (200, 202), body
                if status == 200 and body["url"] != but:
                    return str(body["url"])
                await asyncio.sleep(0.05)


Serve = Callable[..., Any]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, place: Path) -> Serve:
    monkeypatch.setattr(serving, "REPORT_S", 0.1)
    monkeypatch.setattr(waking, "PAUSE_S", 0.1)
    monkeypatch.setattr(serving, "LAST_CALLERS_S", 0.3)

    @asynccontextmanager
    async def run(records: DictRecords | None = None, **choices: Any) -> AsyncIterator[Service]:
        deployment = Deployment(deployed=1, **{"scaledown_s": 3600, **choices})
        records = records or DictRecords()
        with bind(ServerConfig(port=0)) as listener:
            origin = f"http://localhost:{listener.getsockname()[1]}"
            gpus = LocalGpus(records, place, origin, deployment)
            settings = Settings(place.parent / "settings", ROOT, place)

            async def refresh(settings: Settings) -> None:
                settings.refresh()

            app = await page_app(settings, place, deployment, records, gpus, 60.0, refresh)
            ready = asyncio.Event()
            inner = app._app
            server = StoppableServer(inner, ServerConfig(), ready.set)
            async with inner.router.lifespan_context(inner):
                task = asyncio.create_task(server.serve(sockets=[listener]))
                await ready.wait()
                yield Service(origin, records, gpus, settings)
                await gpus.close()
                await server.stop(task)

    return run


def reports(here: Service) -> list[Any]:
    return [value for key, value in here.records.kept.items() if key.startswith("container ")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is in a record, which has no event
            await asyncio.sleep(0.02)
