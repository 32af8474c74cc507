"""Network addresses: the client's, and which of them count as the same caller."""

import ipaddress

from starlette.requests import HTTPConnection

from core.settings.hosts import parse_address

IPV6_PREFIX = 64
"""The prefix length that one subscriber gets; the same person may use every address in it."""


def client_address(connection: HTTPConnection) -> str:
    """The client's IP address; "" when the server does not know it."""
    address = parse_address(connection.client.host) if connection.client else None
    return str(address) if address else ""


def neighbourhood(address: str) -> str:
    """What counts as the same caller: an IPv4 address, or the /64 network of an IPv6 address."""
    found = parse_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((found, IPV6_PREFIX), strict=False))
    return str(found) if found else ""
