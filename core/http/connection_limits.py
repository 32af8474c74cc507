"""How many connections the service holds: in all, from one address, and within the descriptors it may have open."""

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

from core.session.addresses import neighbourhood
from core.settings.log import get_logger
from core.settings.sections import ServerConfig

MOST_DESCRIPTORS = 65_536
"""What the soft limit of the process is raised to, where the hard one allows it."""
RESERVED_DESCRIPTORS = 256
"""Descriptors for all that is no connection: listening, the model's files, recordings, threads, devices."""
LOG_EVERY_S = 60.0
"""How often the log says that connections are turned away, however many they are."""
_log = get_logger("connections")


def raise_descriptor_limit() -> int:
    """Raise the process's soft limit of open descriptors as far as it may be. Returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft if soft != resource.RLIM_INFINITY else MOST_DESCRIPTORS


class ConnectionLimits:
    """Counts the open connections, and says which new ones are too many.

    A trusted proxy's connections count in all, but for no address: they carry the requests of many.
    """

    def __init__(self, config: ServerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds from any fixed point."""
        descriptors = raise_descriptor_limit()
        self.most = min(config.max_connections, max(descriptors - RESERVED_DESCRIPTORS, descriptors // 2))
        """How many connections there may be in all."""
        self._most_of_one = config.connections_per_address
        self._every_proxy = "*" in config.trusted_proxies
        self._proxies = [ip_network(proxy) for proxy in config.trusted_proxies if proxy != "*"]
        self._clock = clock
        self._open: dict[object, str] = {}
        """The address that each connection counts for; "" for those that count for none."""
        self._of_address: Counter[str] = Counter()
        self._turned_away = 0
        self._logged = float("-inf")

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, connection: object, peer: str) -> bool:
        """Count a connection, by its other end's address. False when it is one too many, and must be closed."""
        place = "" if self._is_proxy(peer) else neighbourhood(peer)
        self._open[connection] = place
        if place:
            self._of_address[place] += 1
        if len(self._open) > self.most:
            self._turn_away("there are as many as there may be", peer, most=self.most)
            return False
        if place and self._most_of_one and self._of_address[place] > self._most_of_one:
            self._turn_away("their address has as many as it may", peer, most=self._most_of_one)
            return False
        return True

    def closed(self, connection: object) -> None:
        """Count a connection no more."""
        place = self._open.pop(connection, "")
        if place:
            self._of_address[place] -= 1
            if not self._of_address[place]:
                del self._of_address[place]

    def loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The event loop's exception handler: a connection that cannot be accepted is counted, not told each time.

        asyncio tries again a second later. It then accepts and fails as often as the backlog is long.
        """
        if "socket.accept()" in str(context.get("message")):
            self._turn_away(f"the system has no descriptor for them: {context.get('exception')}", "")
        else:
            loop.default_exception_handler(context)

    def _turn_away(self, reason: str, address: str, **values: int) -> None:
        self._turned_away += 1
        now = self._clock()
        if now - self._logged >= LOG_EVERY_S:
            _log.warning("connections turned away", reason=reason, count=self._turned_away, last=address, **values)
            self._logged, self._turned_away = now, 0

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return self._every_proxy or any(address in network for network in self._proxies)
