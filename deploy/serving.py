"""The calls' side: the service in the container with the GPU, on a port that Modal forwards, for as long as there are
callers."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request

from core.engine.call import Engine
from core.errors import EngineError
from core.events import SessionEnded, SessionEvent, SessionInfo
from core.http.listening import bind
from core.http.uvicorn_server import GracefulServer
from core.plugin.hookspecs import hookimpl
from core.plugin.host import PluginHost
from core.session.call_service import CallService
from core.settings.log import get_logger
from core.settings.sections import ServerConfig
from deploy import records as recorded
from deploy.choices import Deployment
from deploy.ledger import Ledger
from deploy.records import REPORT_S, Records, Report

PORT = 8998
LAST_CALLERS_S = 10.0
"""How long a container goes on after it has left the records: somebody may have been told its address just before."""
METRICS_S = 30.0
"""How often its metrics are written."""
_log = get_logger("serving")


class CountedCalls:
    """A plugin that counts the calls that ended, and says so."""

    def __init__(self) -> None:
        self.ended = 0
        self.saved = 0
        """How many of them had ended when `recordings` were last committed."""

    @hookimpl
    def session_event(self, session: SessionInfo, event: SessionEvent) -> None:  # noqa: ARG002 - the hook's
        """Count a call that had a conversation."""
        if isinstance(event, SessionEnded) and event.frames_out:
            self.ended += 1


@dataclass(frozen=True)
class Container:
    """This container, for Modal and for the page. The last three are Modal's, so that tests may bring their own."""

    call: str
    """The id of the function call that it serves."""
    deployment: Deployment
    records: Records
    ledger: Ledger
    forward: Callable[[int], AbstractAsyncContextManager[str]]
    """Makes a port of this container reachable; gives the address."""
    refresh: Callable[[], Awaitable[None]]
    """Has the Volume show what was written elsewhere."""
    commit: Callable[[], Awaitable[None]]
    """Has the Volume of recordings keep what was written here."""


async def serve_calls(
    app: Starlette, config: ServerConfig, engine: Engine, counted: CountedCalls, container: Container, lasts_s: float
) -> None:
    """Serve calls until there have been none for `scaledown_s`, the day's GPU minutes are used up, a later deployment
    is in force, or `lasts_s` seconds have passed.

    Calls that run may end first, and who must go is told. So they are where Modal takes the machine back, which it does
    by cancelling this coroutine. Raises EngineError when the engine failed: the container must not be used again.
    """
    serving = _Serving(app, engine, counted, container, lasts_s)
    listener = bind(config)
    ready = asyncio.Event()
    server = GracefulServer(app, config, ready.set)
    async with app.router.lifespan_context(app), container.forward(listener.getsockname()[1]) as url:
        # A task of its own, since Modal cancels the one that it knows, and goodbyes take a moment.
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await ready.wait()
            await serving.run(url)
        except asyncio.CancelledError:
            # The call then ends as others do, and Modal does not repeat it: the next caller starts a container.
            _log.warning("Modal takes the machine back")
            if this := asyncio.current_task():
                this.uncancel()
        finally:
            await serving.leave()
            server.should_exit = True
            await task
    await serving.settle()
    if problem := engine.health().problem:
        raise EngineError(problem)


class _Serving:
    """The loop that reports, and decides on the end."""

    def __init__(
        self, app: Starlette, engine: Engine, counted: CountedCalls, container: Container, lasts_s: float
    ) -> None:
        self._service: CallService = app.state.service
        self._engine = engine
        self._counted = counted
        self._container = container
        self._ends = time.monotonic() + lasts_s
        self._metrics, self._metrics_due = "", 0.0
        self._counted_until = time.monotonic()
        self._later_deployment = False

    async def run(self, url: str) -> None:
        """Report until it is time to end."""
        idle_since = time.monotonic()
        while not (why := self._why_to_end()):
            now = time.monotonic()
            if self._busy():
                idle_since = now
            elif now - idle_since >= self._container.deployment.scaledown_s:
                await self.leave()
                if not await self._late_callers():
                    why = "nobody has called for a while"
                    break
                idle_since = time.monotonic()
            try:
                await self._report(url)
            except Exception:  # Modal may be away for a moment, and calls need none of this
                _log.exception("the report cannot be written")
            await asyncio.sleep(REPORT_S)
        _log.info("no more calls are taken here", reason=why)

    async def leave(self) -> None:
        """Be no more among those that the page sends callers to."""
        with contextlib.suppress(Exception):  # it goes stale by itself
            await self._container.records.pop(recorded.CONTAINER + self._container.call)

    async def settle(self) -> None:
        """Write down what the last calls were, after they have ended."""
        try:
            await self._count()
            await self._container.commit()
        except Exception:
            _log.exception("what was used last is not written down")

    def _busy(self) -> int:
        return self._engine.health().busy + self._service.admission.waiting

    def _why_to_end(self) -> str:
        """Why calls end here although there are callers; "" when they go on."""
        bound = self._container.deployment.gpu_minutes
        if problem := self._engine.health().problem:
            return problem
        if bound and self._container.ledger.gpu_s() >= 60 * bound:
            return "the GPU minutes of today are used up"
        if self._later_deployment and not self._busy():
            return "a later deployment is in force"
        if time.monotonic() >= self._ends and not self._busy():
            return "Modal ends a container after a day"
        return ""

    async def _late_callers(self) -> bool:
        """Whether somebody calls who was told this address before it left the records."""
        until = time.monotonic() + LAST_CALLERS_S
        while time.monotonic() < until:
            await asyncio.sleep(0.2)
            if self._busy():
                return True
        return False

    async def _count(self) -> None:
        """Add the time of this container, take over what the others have used, and look for a later deployment."""
        now = time.monotonic()
        self._container.ledger.add_gpu(now - self._counted_until)
        self._counted_until = now
        known = await recorded.read(self._container.records)
        await self._container.ledger.sync(known.spent)
        self._later_deployment = known.page.deployed > self._container.deployment.deployed

    async def _report(self, url: str) -> None:
        health, now = self._engine.health(), time.monotonic()
        if now >= self._metrics_due:
            self._metrics, self._metrics_due = await exposition(self._service.host), now + METRICS_S
        report = Report(
            call=self._container.call,
            url=url,
            at=time.time(),
            slots=health.slots,
            busy=health.busy,
            waiting=self._service.admission.waiting,
            ended=self._counted.ended,
            deployed=self._container.deployment.deployed,
            metrics=self._metrics,
        )
        if now < self._ends:
            await recorded.write_report(self._container.records, report)
        await self._count()
        await self._container.refresh()
        if self._counted.ended > self._counted.saved:
            self._counted.saved = self._counted.ended
            await self._container.commit()


async def exposition(host: PluginHost) -> str:
    """What the plugin `metrics` would answer a scraper with; "" where it is not used.

    Its route is not served in this role, so it is asked here.
    """
    for route in host.routes():
        if getattr(route, "path", "") == "/metrics":
            request = Request({"type": "http", "method": "GET", "path": "/metrics", "headers": [], "query_string": b""})
            response = await route.endpoint(request)  # type: ignore[attr-defined] # of a Route
            return bytes(response.body).decode()
    return ""
