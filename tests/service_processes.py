"""A service in several processes, for tests: what it is made of, and how to stop or kill a part of it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tests.caller import Caller, dial
from tests.conftest import write_config

PATIENCE_S = 60
"""For what takes a moment on a quiet machine."""


@dataclass
class ServiceProcesses:
    """One that runs."""

    process: subprocess.Popen[str]
    port: int
    scratch: Path
    """Where it makes its private folder, and nobody else anything."""
    said: list[str] = field(default_factory=list)
    """What it said before it served."""

    def url(self, path: str = "/ws/chat?audio=pcm", scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def parts(self) -> dict[str, int]:
        """Process ids, by names such as `engine 0`."""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if "-m" in command:
                role = command[command.index("-m") + 1].removeprefix("core.boot.").removesuffix("_process")
                found[f"{role} {command[-2]}"] = int(pid)
        return found

    def kill(self, part: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a part."""
        os.kill(self.parts()[part], number)

    @asynccontextmanager
    async def dial_at(self, worker: int, path: str = "/ws/chat?audio=pcm") -> AsyncIterator[Caller]:
        """A connection to this worker: the others are stopped until it stands."""
        with self.stopped(*(name for name in self.parts() if name.startswith("worker") and name != f"worker {worker}")):
            connection = dial(self.url(path), "pcm")
            caller = await connection.__aenter__()
        try:
            yield caller
        finally:
            await connection.__aexit__(None, None, None)

    def connection_to(self, worker: int) -> socket.socket:
        """A connection that this worker has answered a request on, for another."""
        others = (name for name in self.parts() if name.startswith("worker") and name != f"worker {worker}")
        with self.stopped(*others):
            connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = HTTPResponse(connection)
            answer.begin()
            answer.read()
        connection.setblocking(False)
        return connection

    @contextmanager
    def stopped(self, *parts: str) -> Iterator[None]:
        """These parts do nothing meanwhile."""
        pids = [self.parts()[part] for part in parts]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and text."""

        def fetch() -> tuple[int, str]:
            request = urllib.request.Request(self.url(path, "http"), headers=headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await asyncio.to_thread(fetch)

    async def health(self) -> tuple[int, dict[str, Any]]:
        status, text = await self.get("/health")
        return status, json.loads(text)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Return when it is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not await true():  # noqa: ASYNC110 - what another process does sets no event
            await asyncio.sleep(0.05)


def leftovers(folder: str) -> list[Path]:
    """What is in the folder."""
    return list(Path(folder).iterdir())


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@asynccontextmanager
async def several_processes(
    folder: Path, module: str = "tests.echo_service", **settings: Any
) -> AsyncIterator[ServiceProcesses]:
    """A service with two workers and an engine of two slots that echoes, unless the settings say otherwise.

    Nothing of it is left afterwards: that is checked, too.
    """
    settings["server"] = {"workers": 2, **settings.get("server", {})}
    settings["engine"] = {"slots": 2, **settings.get("engine", {})}
    settings.setdefault("plugins", {"disabled": ["loudness"]})
    config = write_config(folder, settings)
    with tempfile.TemporaryDirectory(prefix="pp") as scratch:  # short: the name of a Unix socket has 107 characters
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, "-m", module, str(config)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": scratch},
        )
        assert process.stderr is not None
        said: list[str] = []
        try:
            while "serves at" not in "".join(said[-1:]):
                line = await asyncio.to_thread(process.stderr.readline)
                assert line, "".join(said)
                said.append(line)
            reading = asyncio.create_task(asyncio.to_thread(process.stderr.read))
            service = ServiceProcesses(process, int(said[-1].split()[3].rpartition(":")[2]), Path(scratch), said)
            yield service
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, PATIENCE_S)
            assert not leftovers(scratch), await reading
        finally:
            process.kill()
            process.wait()
            await reading
            process.stderr.close()
