"""Workers that listen on one socket: whoever has the fewest connections accepts the next."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from core.workers.fair_accept import HEAD_START_S, MOST_AHEAD, MOST_WORKERS, FairAccept, WorkerLoads


class Worker:
    """One that says its number to everybody who connects."""

    def __init__(self, path: Path, number: int) -> None:
        self.number = number
        self.loads = WorkerLoads(path, number)
        self.connections: set[Greeting] = set()

    async def accept(self, listener: socket.socket) -> None:
        with listener.dup() as own:  # as every process has
            await FairAccept(self.loads)(own, lambda: Greeting(self), lambda: len(self.connections))


class Greeting(asyncio.Protocol):
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._worker.connections.add(self)
        transport.write(bytes([self._worker.number]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.connections.discard(self)


class Workers:
    """Some workers, and whom they take."""

    def __init__(self, folder: Path, numbers: tuple[int, ...]) -> None:
        WorkerLoads.create(folder / "loads")
        self.workers = [Worker(folder / "loads", number) for number in numbers]
        self.listener = socket.create_server(("127.0.0.1", 0))

    @asynccontextmanager
    async def call(self) -> AsyncIterator[int]:
        """A connection, and the worker that has it."""
        await asyncio.sleep(
            2 * MOST_AHEAD * HEAD_START_S
        )  # timers of this loop: none leaves the last one to others still
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        try:
            async with asyncio.timeout(10):
                yield (await reader.readexactly(1))[0]
        finally:
            writer.close()

    async def __aenter__(self) -> "Workers":
        self._accepting = [asyncio.create_task(worker.accept(self.listener)) for worker in self.workers]
        return self

    async def __aexit__(self, *_: object) -> None:
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self.listener.close()


async def test_connections_spread_evenly_and_one_that_lost_some_gets_the_next(tmp_path: Path) -> None:
    async with Workers(tmp_path, (1, 2, 3)) as workers, AsyncExitStack() as calls:
        ended = []
        for _ in range(9):
            call = workers.call()
            if await call.__aenter__() == 2:
                ended.append(call)
            else:
                calls.push_async_exit(call)
        assert sorted(len(worker.connections) for worker in workers.workers) == [3, 3, 3]
        for call in ended[:2]:
            await call.__aexit__(None, None, None)
        second = workers.workers[1]
        async with asyncio.timeout(10):
            while len(second.connections) > 1:  # noqa: ASYNC110 - the sockets do it
                await asyncio.sleep(0.01)
        second.loads.note(1)  # as every worker says each second
        assert [await calls.enter_async_context(workers.call()) for _ in range(2)] == [2, 2]
        calls.push_async_exit(ended[2])


async def test_one_that_has_the_fewest_and_does_nothing_holds_up_nobody(tmp_path: Path) -> None:
    async with Workers(tmp_path, (1, 3)) as workers, AsyncExitStack() as calls:
        WorkerLoads(tmp_path / "loads", 2).note(0)
        assert sorted([await calls.enter_async_context(workers.call()) for _ in range(6)]) == [1, 1, 1, 3, 3, 3]


async def test_more_workers_than_are_compared_accept_as_they_come(tmp_path: Path) -> None:
    WorkerLoads.create(tmp_path / "loads")
    WorkerLoads(tmp_path / "loads", 1).note(0)
    beyond = WorkerLoads(tmp_path / "loads", MOST_WORKERS)
    beyond.note(5)
    assert beyond.ahead() == 0


async def test_a_connection_that_cannot_be_begun_keeps_nobody_from_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: told.append(context["message"]))
    async with Workers(tmp_path, (1,)) as workers:
        with monkeypatch.context() as patch:
            patch.setattr(Greeting, "__init__", None)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                async with workers.call():
                    pass
        async with workers.call() as number:
            assert number == 1
    assert told == ["a connection could not be begun"]
