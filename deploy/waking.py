"""The page's side of calls: which container takes the next one, and when another is started.

Nothing else starts a GPU: the function with the card has no address of its own. It is called through Modal's API, by
this code, for somebody who is logged in.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from core.errors import PersonaError, RefusedError
from core.events import Identity
from core.plugin.hookspecs import hookimpl
from core.plugin.host import PluginHost
from core.settings.log import get_logger
from deploy import records as recorded
from deploy.choices import Deployment
from deploy.container_metrics import exposition
from deploy.ledger import Ledger
from deploy.prices import gpu_hour
from deploy.records import STALE_S, Known, PageNotes, Records, Report, Start

MOST_FAILURES = 2
"""So many starts in a row may fail before nobody starts another."""
FAILURES_COUNT_S = 3600.0
"""For so long; a deployment ends it at once."""
_log = get_logger("waking")


class Gpus(Protocol):
    """Modal's API, as far as it is used."""

    async def start(self) -> str:
        """Call the function with the card, without waiting; the id of the call."""

    async def outcome(self, call: str) -> str | None:
        """Why this call failed; "" when it has returned, None while it is under way."""

    async def cancel(self, call: str) -> None:
        """End a call that is under way, and its container."""


@dataclass(frozen=True)
class Place:
    """Where the next call goes: an address, or "" while a container starts, which has taken `waited_s` until now."""

    url: str
    waited_s: float = 0.0


class Waking:
    """Finds a container for a call, or starts one. Belongs to one event loop, of the only container with the page."""

    def __init__(
        self,
        deployment: Deployment,
        records: Records,
        ledger: Ledger,
        gpus: Gpus,
        patience_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A start that has taken `patience_s` has failed. `clock` gives seconds since 1970."""
        self._deployment = deployment
        self._records = records
        self._ledger = ledger
        self._gpus = gpus
        self._patience_s = patience_s
        self._clock = clock
        self._turn = asyncio.Lock()

    async def place(self) -> Place:
        """Where the next call goes. Raises RefusedError when no container may be started, saying why."""
        async with self._turn:
            known = await self._look()
            notes, taking = known.page, self._taking_calls(known)
            best = max((report for report in taking if report.room > 0), key=lambda one: one.busy, default=None)
            if best:
                return Place(best.url)
            reporting = {report.call for report in taking}
            under_way = [start for start in notes.starts if start.call not in reporting]
            if not under_way and len(taking) < self._deployment.max_containers:
                self._refuse_while_failing(notes)
                self._refuse_when_spent()
                under_way = [Start(await self._started(), self._clock())]
                await recorded.write_notes(self._records, replace(notes, starts=(*notes.starts, *under_way)))
                _log.info("a container with a GPU is started", call=under_way[0].call)
            if under_way:
                return Place("", self._clock() - under_way[0].at)
            return Place(min(taking, key=lambda one: one.waiting).url)  # which has a queue

    async def _started(self) -> str:
        """The id of a new call of the function with the card. Raises RefusedError when Modal does not take it."""
        try:
            return await self._gpus.start()
        except Exception as error:
            _log.exception("Modal does not start a container")
            why = str(error) or type(error).__name__
            raise RefusedError(503, f"Modal does not start the model just now: {why}. Try again in a minute.") from None

    async def look(self) -> tuple[Report, ...]:
        """The containers that take calls now. Starts none."""
        async with self._turn:
            return self._taking_calls(await self._look())

    async def _look(self) -> Known:
        """What the records say, after seeing how the starts fared that are under way."""
        known = await recorded.read(self._records)
        await self._ledger.sync(known.spent)
        notes, fresh = known.page, self._fresh(known)
        if notes.deployed != self._deployment.deployed:
            notes = PageNotes(self._deployment.deployed)
        failures = tuple(one for one in notes.failures if self._clock() - one[0] < FAILURES_COUNT_S)
        if any(report.ended for report in fresh if report.deployed == notes.deployed):
            failures = ()
        starts = []
        seen = {report.call: report.at for report in fresh}
        for start in notes.starts:
            why = await self._how_it_fares(start, seen.get(start.call))
            if why is None:
                starts.append(replace(start, at=seen.get(start.call, start.at)))
            elif why:
                failures = (*failures, (self._clock(), why))
                _log.error("a container with a GPU failed", call=start.call, reason=why)
        notes = replace(notes, starts=tuple(starts), failures=failures)
        if notes != known.page:
            await recorded.write_notes(self._records, notes)
        for report in known.reports:
            if report not in fresh:
                await self._records.pop(recorded.CONTAINER + report.call)
        return replace(known, reports=fresh, page=notes)

    async def _how_it_fares(self, start: Start, reported: float | None) -> str | None:
        """Why a container failed; "" when it has ended well, None while it starts or takes calls.

        One that stops reporting and has not ended starts again: Modal takes a machine back and repeats the call.
        """
        if reported is not None:
            return None
        why = await self._gpus.outcome(start.call)
        if why is None and self._clock() - start.at > self._patience_s:
            await self._gpus.cancel(start.call)
            return (
                f"It took longer than {self._patience_s / 60:.0f} minutes. Modal may have no {self._deployment.gpu} "
                "to give, or the start hangs; `modal app logs personaplex` says more."
            )
        return why

    def _fresh(self, known: Known) -> tuple[Report, ...]:
        return tuple(report for report in known.reports if self._clock() - report.at < STALE_S)

    def _taking_calls(self, known: Known) -> tuple[Report, ...]:
        return tuple(report for report in known.reports if report.deployed == self._deployment.deployed)

    def _refuse_while_failing(self, notes: PageNotes) -> None:
        if len(notes.failures) >= MOST_FAILURES:
            at, why = notes.failures[-1]
            again = max(round((at + FAILURES_COUNT_S - self._clock()) / 60), 1)
            raise RefusedError(
                503,
                f"The model could not be started, {len(notes.failures)} times in a row, so it is not tried again for "
                f"{again} min. The last time: {why}",
            )

    def _refuse_when_spent(self) -> None:
        bound = self._deployment.gpu_minutes
        if bound and self._ledger.gpu_s() >= 60 * bound:
            raise RefusedError(503, spent_message(bound))


def spent_message(minutes: int) -> str:
    """What callers are told when the day's GPU minutes are used up."""
    return f"The {minutes} minutes of GPU time for today are used up. They begin again at midnight, UTC."


class WakingPlugin:
    """The plugin that serves `POST /calls` in the page's container, and says what the GPUs have cost today."""

    def __init__(self, waking: Waking, ledger: Ledger, deployment: Deployment) -> None:
        self._waking = waking
        self._ledger = ledger
        self._deployment = deployment

    @hookimpl
    def notices(self, identity: Identity | None) -> list[str]:
        """What the GPUs have cost today, for who is logged in."""
        if identity is None:
            return []
        minutes, bound = self._ledger.gpu_s() / 60, self._deployment.gpu_minutes
        dollars = minutes / 60 * gpu_hour(self._deployment.gpu, self._deployment.region)
        return [f"GPU time today: {minutes:.0f}{f' of {bound}' if bound else ''} minutes, about ${dollars:.2f}."]

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        """`POST /calls` and `GET /metrics/calls`, for those who are logged in."""
        return [Route("/calls", self.calls, methods=["POST"]), Route("/metrics/calls", self.metrics)]

    async def metrics(self, _request: Request) -> Response:
        """`GET /metrics/calls`: the metrics of the containers that take calls, as they last reported them."""
        text = exposition(await self._waking.look())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def calls(self, request: Request) -> Response:
        """`POST /calls`: where to call; a container is started if need be.

        200 with `{"url"}` when it takes calls, 202 with `{"waited_s", "usual_s"}` while it starts. Refused to those who
        may call nobody, before anything is started for them.
        """
        host: PluginHost = request.app.state.service.host
        await self._waking.look()  # so that what was used elsewhere counts
        try:
            await host.resolve_persona("", request.state.identity)
        except PersonaError as error:
            raise RefusedError(404, str(error)) from None
        place = await self._waking.place()
        if place.url:
            return JSONResponse({"url": place.url.replace("http", "ws", 1)})
        usual_s = host.config.server.wake_s
        return JSONResponse({"waited_s": round(place.waited_s, 1), "usual_s": usual_s}, status_code=202)
