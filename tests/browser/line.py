"""The line between browser and server: a TCP proxy that tests cut."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Line:
    """Forwards connections to a local port, in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._dead = False
        self._held: set[asyncio.StreamWriter] = set()
        """Connections that nothing passes any more, and nobody knows."""
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._forward, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where the page is, over this line."""
        return f"http://localhost:{self.port}/"

    def cut(self) -> None:
        """Every connection breaks, and new ones too, until `mend`."""
        self._dead = True
        self._run(self._abort())

    def mend(self) -> None:
        """Connections pass again."""
        self._dead = False

    def hold(self) -> None:
        """Nothing passes over the connections that there are, which nobody is told; new ones pass."""
        self._held |= self._writers

    def close(self) -> None:
        """End it."""
        self._server.close()
        self._run(self._abort())
        self._run(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _ended(self) -> None:
        """Return when nothing runs any more."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=5)
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._dead:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers.add(far_writer)
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if writer not in self._held:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            if writer not in self._held:
                writer.close()
