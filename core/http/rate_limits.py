"""How often one address may ask: the pace of its requests."""

import asyncio
import time

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import RefusedError
from core.session.addresses import client_address, neighbourhood
from core.session.refusal import refuse
from core.session.token_bucket import Clock

BURST_S = 4.0
"""As many requests may come at once as an address may make in so many seconds: a page asks for all its files."""
LONGEST_DELAY_S = 10.0
"""A request that would have to wait for longer is refused."""
MOST_ADDRESSES = 10_000


class RequestPace:
    """Spreads the requests of each address over time: beyond a burst, each waits its turn.

    The clients of one address cannot keep the event loop busy by asking again and again, which would delay the frames
    of all calls. An IPv6 network of 64 bits is one address.
    """

    def __init__(self, per_s: float, clock: Clock = time.monotonic) -> None:
        self._step_s = 1 / per_s
        self._clock = clock
        self._turns: dict[str, float] = {}
        """When each address's next request would come at an even pace; the latest asked last."""

    def delay_s(self, address: str) -> float | None:
        """How long to wait before a request of this address is served; None when that would be too long."""
        place, now = neighbourhood(address), self._clock()
        turn = max(self._turns.pop(place, now), now)
        delay = max(turn - now - BURST_S, 0.0)
        self._turns[place] = turn if delay > LONGEST_DELAY_S else turn + self._step_s
        for idle in list(self._turns):
            if self._turns[idle] > now and len(self._turns) <= MOST_ADDRESSES:
                break
            del self._turns[idle]
        return None if delay > LONGEST_DELAY_S else delay


class PacedRequests:
    """ASGI middleware: requests and upgrades of one address beyond `server.requests_per_s` wait, or are refused."""

    def __init__(self, app: ASGIApp, per_s: float) -> None:
        """`per_s`: 0 is any number."""
        self._app = app
        self._pace = RequestPace(per_s) if per_s else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pace and scope["type"] in ("http", "websocket"):
            delay = self._pace.delay_s(client_address(HTTPConnection(scope)))
            if delay is None:
                error = RefusedError(
                    429, "Too many requests came from your address. Ask less often.", headers={"retry-after": "10"}
                )
                await refuse(scope, receive, send, error)
                return
            if delay:
                await asyncio.sleep(delay)
        await self._app(scope, receive, send)
