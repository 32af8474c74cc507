"""Stands where Playwright starts Firefox: starts Debian's ESR and answers the BiDi command that it does not know.

Playwright sets the colour scheme of every page by `emulation.setMediaFeaturesOverride`, which ESR 140 and 153 lack; the
answer "done" costs nothing but dark mode.
"""

import asyncio
import json
import re
import shutil
import signal
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

UNKNOWN = {"emulation.setMediaFeaturesOverride"}
LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


async def relay(page: ServerConnection, browser: ClientConnection) -> None:
    """Carry commands to the browser and its answers back."""

    async def answers() -> None:
        async for message in browser:
            await page.send(message)
        await page.close()

    task = asyncio.create_task(answers())
    async for message in page:
        command = json.loads(message)
        if command["method"] in UNKNOWN:
            await page.send(json.dumps({"type": "success", "id": command["id"], "result": {}}))
        else:
            await browser.send(message)
    task.cancel()


async def main() -> None:
    """Run Firefox with the arguments that Playwright gives, until it ends."""
    program = shutil.which("firefox-esr")
    assert program is not None
    firefox = await asyncio.create_subprocess_exec(program, *sys.argv[1:], stderr=asyncio.subprocess.PIPE)
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, firefox.terminate)
    assert firefox.stderr is not None

    async def read(until_address: bool) -> str:
        assert firefox.stderr is not None
        async for raw in firefox.stderr:
            line = raw.decode(errors="replace")
            if until_address and (found := LISTENING.search(line)):
                return found[1]
            sys.stderr.write(line)
            sys.stderr.flush()
        return ""

    address = await read(until_address=True)

    async def accept(page: ServerConnection) -> None:
        async with connect(f"{address}/session", max_size=None) as browser:
            await relay(page, browser)

    async with serve(accept, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        sys.stderr.write(f"WebDriver BiDi listening on ws://127.0.0.1:{port}\n")
        sys.stderr.flush()
        await asyncio.gather(read(until_address=False), firefox.wait())


asyncio.run(main())
