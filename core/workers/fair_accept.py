"""How workers share the callers: all listen on one socket, and whoever has the fewest connections accepts the next.

Nobody hands connections out, so nobody who hangs can keep them: a worker that has more than another only lets that one
go first.
"""

import asyncio
import mmap
import socket
import struct
from collections.abc import Callable
from pathlib import Path

HEAD_START_S = 0.01
"""How long a worker leaves a connection to each of those that have fewer."""
MOST_AHEAD = 5
"""For so many at most: a call must not wait long where they all hang."""
NOTE_S = 1.0
"""How often a worker says how many connections it has, while none comes."""
NO_DESCRIPTOR_S = 1.0
"""The pause after the system had no descriptor for a connection, as asyncio makes it."""
MOST_WORKERS = 256
"""How many are compared; others accept whatever comes."""
_NUMBER = struct.Struct("i")
_NOBODY = -1


class WorkerLoads:
    """How many connections each worker has: a file of one number a worker, which all of them have in their memory."""

    @staticmethod
    def create(path: Path) -> None:
        """Make the file. No worker is there yet."""
        path.write_bytes(_NUMBER.pack(_NOBODY) * MOST_WORKERS)

    def __init__(self, path: Path, worker: int) -> None:
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("i")
        self._place = worker if worker < MOST_WORKERS else None

    def note(self, connections: int) -> None:
        """Say how many connections this worker has now."""
        if self._place is not None:
            self._numbers[self._place] = connections

    def ahead(self) -> int:
        """How many workers have fewer, as far as they have said.

        One that has died keeps its number until it is started again: meanwhile the others wait a moment longer.
        """
        if self._place is None:
            return 0
        return sum(_NOBODY < other < self._numbers[self._place] for other in self._numbers)


class FairAccept:
    """Accepts connections for one worker."""

    def __init__(self, loads: WorkerLoads) -> None:
        self._loads = loads

    async def __call__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], connections: Callable[[], int]
    ) -> None:
        """Accept until this is cancelled. `connections` says how many there are now."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            self._loads.note(connections())
            if not await _readable(listener):
                continue
            self._loads.note(connections())
            if ahead := self._loads.ahead():
                await asyncio.sleep(HEAD_START_S * min(ahead, MOST_AHEAD))
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                continue  # another worker was faster, or the caller is gone
            except OSError as error:
                loop.call_exception_handler({"message": "socket.accept() failed", "exception": error})
                await asyncio.sleep(NO_DESCRIPTOR_S)
                continue
            connection.setblocking(False)
            try:
                await loop.connect_accepted_socket(protocol, connection)
            except Exception as error:  # one connection's fault must not keep the next from being accepted
                connection.close()
                loop.call_exception_handler({"message": "a connection could not be begun", "exception": error})


async def _readable(listener: socket.socket) -> bool:
    """Return when there is something to accept, or False after NOTE_S.

    The socket is not looked at afterwards, so that nobody spins who leaves a connection to others.
    """
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        async with asyncio.timeout(NOTE_S):
            return await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(listener)
