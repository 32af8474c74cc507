"""Two services of nano behind a real Caddy, with the Caddyfile of the recipe."""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from core.session.protocol import CloseCode
from tests.caller import FRAME, Caller, dial
from tests.conftest import speech
from tests.documents import doc
from tests.service_processes import ServiceProcesses, several_processes, until

CADDY = shutil.which("caddy")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CADDY is None, reason="there is no caddy here: apt install caddy"),
]
PASSWORD = {"Authorization": "Bearer sesame"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def caddy(folder: Path, servers: list[ServiceProcesses]) -> Iterator[ServiceProcesses]:
    """The recipe's balancer in front of these; it is asked like one of them."""
    [file] = re.findall(r"```text\n(.*?reverse_proxy.*?)```", doc("recipes/several-hosts"), re.DOTALL)
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + file)  # which is one port of the machine's
    port = free_port()
    environ = os.environ | {
        "SITE": f"http://127.0.0.1:{port}",
        "SERVERS": " ".join(f"127.0.0.1:{server.port}" for server in servers),
        "HOME": str(folder),
    }
    environ.pop("XDG_CONFIG_HOME", None)
    with (folder / "caddy.log").open("w") as log:
        process = subprocess.Popen([CADDY or "caddy", "run"], cwd=folder, env=environ, stderr=log, text=True)
    try:
        yield ServiceProcesses(process, port, folder)
    finally:
        process.terminate()
        process.wait(30)


@asynccontextmanager
async def host(folder: Path, slots: int) -> AsyncIterator[ServiceProcesses]:
    """A host of the recipe: nano in one process."""
    folder.mkdir()  # noqa: ASYNC240 - a moment, and nobody waits
    settings: dict[str, Any] = {
        "server": {"workers": 0, "queue": 0, "trusted_proxies": ["127.0.0.1"]},
        "engine": {"name": "nano", "device": "cpu", "slots": slots},
        "plugins": {"options": {"password": {"password": "sesame"}}},
    }
    async with several_processes(folder, "tests.nano_service", **settings) as service:
        yield service


async def slots_taken(*services: ServiceProcesses) -> list[int]:
    return [(await service.health())[1]["engine"]["busy"] for service in services]


async def are_answered(*callers: Caller) -> None:
    said = await asyncio.gather(*(caller.talk(speech(0.24)) for caller in callers))
    assert [len(heard) for heard in said] == [3 * FRAME] * len(callers)


async def test_calls_spread_and_a_full_host_and_a_dead_one_are_left_out(tmp_path: Path) -> None:
    async with AsyncExitStack() as opened:
        small = await opened.enter_async_context(host(tmp_path / "a", 1))
        large = await opened.enter_async_context(host(tmp_path / "b", 3))
        site = opened.enter_context(caddy(tmp_path, [small, large]))

        async def is_there() -> bool:
            with contextlib.suppress(OSError):
                return (await site.health())[0] == 200
            return False

        await until(is_there)

        async def call() -> Caller:
            dialled = dial(site.url(), "pcm", additional_headers=PASSWORD)
            return await (await opened.enter_async_context(dialled)).shake_hands()

        # They spread, and the one that has no slot left is full.
        callers = [await call()]
        [at_small, _] = await slots_taken(small, large)
        callers.append(await call())
        assert await slots_taken(small, large) == [1, 1]
        lost, kept = callers if at_small else callers[::-1]
        await are_answered(lost, kept)
        assert [(await small.get(f"/health{query}"))[0] for query in ("", "?full=503")] == [200, 503]
        assert [(await large.get(f"/health{query}"))[0] for query in ("", "?full=503")] == [200, 200]
        assert (await small.health())[1]["status"] == "full"

        async def another() -> bool:
            """One more call is served; the full host says no, as long as the balancer has not looked."""
            async with AsyncExitStack() as trying:
                dialled = dial(site.url(), "pcm", additional_headers=PASSWORD)
                caller = await trying.enter_async_context(dialled)
                try:
                    await caller.shake_hands()
                except ConnectionClosed:
                    assert caller.socket.close_code == CloseCode.BUSY
                    return False
                opened.push_async_exit(trying.pop_all())
                callers.append(caller)
                return True

        await until(another)
        assert await slots_taken(small, large) == [1, 2]

        async def left_out() -> bool:
            """The balancer asks the large one, though the small one has fewer connections."""
            return bool((await site.health())[1]["engine"]["slots"] == 3)

        await until(left_out)
        await call_and_hang_up(site)
        await are_answered(*callers)

        # One is killed, and the other goes on and takes the next.
        small.process.kill()
        assert await lost.end() == 1006
        await are_answered(kept)
        await call_and_hang_up(site)


async def call_and_hang_up(site: ServiceProcesses) -> None:
    """A call at once, without a second try."""
    async with dial(site.url(), "pcm", additional_headers=PASSWORD) as caller:
        await are_answered(await caller.shake_hands())
