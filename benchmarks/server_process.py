"""A server in a process of its own, with a plugin that tells how that process is."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

EngineName = Literal["nano", "echo"]
ECHO_SLOTS = 1000
BOOT_S = 120.0

PROBE = '''"""`GET /probe`: how the server's process is, and how late its event loop was since the last look.

With `?tidy` it collects Python's garbage first, which holds the event loop up.
"""

import asyncio
import gc
import resource
import threading
import time
from pathlib import Path

from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.allocated import bytes_in_use
from core import hookimpl

PERIOD_S = 0.01


class Plugin:
    def __init__(self):
        self._late_ms = []

    @hookimpl
    async def startup(self):
        self._watching = asyncio.create_task(self._watch())

    @hookimpl
    async def shutdown(self):
        self._watching.cancel()

    @hookimpl
    def register_routes(self):
        return [Route("/probe", self.answer)]

    async def _watch(self):
        while True:
            due = time.perf_counter() + PERIOD_S
            await asyncio.sleep(PERIOD_S)
            self._late_ms.append((time.perf_counter() - due) * 1000)

    async def answer(self, request):
        if "tidy" in request.query_params:
            gc.collect()
        late, self._late_ms = sorted(self._late_ms) or [0.0], []
        return JSONResponse(
            {
                "cpu_s": time.process_time(),
                "loop_lag_p50_ms": late[len(late) // 2],
                "loop_lag_p99_ms": late[int(len(late) * 0.99)],
                "loop_lag_max_ms": late[-1],
                "memory": int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
                "in_use": bytes_in_use(),
                "threads": threading.active_count(),
                "descriptors": len(list(Path("/proc/self/fd").iterdir())),
                "tasks": len(asyncio.all_tasks()),
            }
        )
'''


@dataclass(frozen=True)
class State:
    """What the probe says."""

    cpu_s: float
    """Of all threads, since the process began."""
    loop_lag_p50_ms: float
    loop_lag_p99_ms: float
    """How late the event loop wakes a task that sleeps for 10 ms, since the probe was last asked."""
    loop_lag_max_ms: float
    memory: int
    """Resident bytes."""
    in_use: int
    """Those that malloc has given out. The rest is the interpreter's, code, and what the allocator keeps for later."""
    threads: int
    descriptors: int
    tasks: int


@dataclass(frozen=True)
class ServerProcess:
    """A server that runs."""

    address: str
    """`http://host:port`"""

    def state(self, path: str = "/probe") -> State:
        """Ask the probe. `/probe?tidy`: of what is left when Python's garbage is gone."""
        return State(**self._get(path))

    def slots(self) -> int:
        """How many callers it takes."""
        return int(self._get("/health")["engine"]["slots"])

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=30) as response:  # noqa: S310 - our own server
            answer: dict[str, Any] = json.load(response)
            return answer


@contextmanager
def serve(
    engine: EngineName, slots: int | None = None, plugins: Mapping[str, Any] | None = None
) -> Iterator[ServerProcess]:
    """The server with this engine; it ends with the context. `slots` None: what nano finds fit on this machine.

    `plugins` are options of plugins, by name.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plugins").mkdir()
        (folder / "plugins" / "probe.py").write_text(PROBE)
        settings = {
            "server": {"port": 0},
            "engine": {"name": "nano", "device": "cpu", "slots": slots or "auto"},
            "voices": {"allow": ["NATF2", "NATM2", "VARF0", "VARM0"]},
            "plugins": {"options": dict(plugins or {})},
            "log": {"level": "warning"},
        }
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = {
            "nano": ["-c", "from core.cli.main import main; main()", "serve", "--config", str(config)],
            "echo": ["-m", "tests.echo_server", str(config), "--slots", str(slots or ECHO_SLOTS)],
        }[engine]
        log = folder / "log"
        with (
            log.open("w") as output,
            subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, *command], stdout=output, stderr=output, cwd=Path(__file__).parent.parent
            ) as process,
        ):
            try:
                yield ServerProcess(_wait(process, log))
            finally:
                process.terminate()


def _wait(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """The server's address, when it serves."""
    until = time.monotonic() + BOOT_S
    while time.monotonic() < until and process.poll() is None:
        _, found, rest = log.read_text().partition("serves at ")
        if found and rest.split():
            return rest.split()[0]
        time.sleep(0.1)
    raise RuntimeError(f"The server did not start:\n{log.read_text()}")
