"""A server process that is killed: its callers know at once, and another can take its place."""

import asyncio
import socket
from pathlib import Path

from tests.caller import FRAME, dial
from tests.conftest import speech, write_config
from tests.echo_server import echo_server


async def test_callers_of_a_killed_server_know_at_once_and_its_port_is_served_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = write_config(tmp_path, {"server": {"port": port}})
    url = f"ws://127.0.0.1:{port}"
    with echo_server(config) as (process, serving):
        assert serving == port
        async with (
            dial(f"{url}/ws/chat?audio=pcm", "pcm") as talking,
            dial(f"{url}/api/chat") as idle,
            dial(f"{url}/ws/chat") as waiting,
        ):
            await asyncio.gather(talking.shake_hands(), idle.shake_hands())
            assert (await waiting.told("queued"))["place"] == 1
            assert len(await talking.talk(speech(0.4))) == 5 * FRAME
            process.kill()
            async with asyncio.timeout(5):
                assert list(await asyncio.gather(talking.end(), idle.end(), waiting.end())) == [1006] * 3
    with echo_server(config):
        for path in ("/ws/chat?audio=pcm", "/api/chat?audio=pcm"):
            async with dial(f"{url}{path}", "pcm") as caller:
                await caller.shake_hands()
                assert len(await caller.talk(speech(0.4))) == 5 * FRAME
