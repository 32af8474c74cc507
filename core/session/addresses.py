"""Network addresses: the client's, and which of them count as the same caller."""

import ipaddress

from starlette.requests import HTTPConnection

IPV6_PREFIX = 64
"""The prefix length that one subscriber gets; the same person may use every address in it."""


def client_address(connection: HTTPConnection) -> str:
    """The client's IP address; "" when the server does not know it."""
    address = _address(connection.client.host) if connection.client else None
    return str(address) if address else ""


def neighbourhood(address: str) -> str:
    """What counts as the same caller: an IPv4 address, or the /64 network of an IPv6 address."""
    found = _address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((found, IPV6_PREFIX), strict=False))
    return str(found) if found else ""


def is_address(host: str) -> bool:
    """Whether this is an IP address rather than a name."""
    return _address(host) is not None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on `host`."""
    found = _address(host)
    return found.is_loopback if found else host.lower() == "localhost"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or ipaddress.IPv6Address(int(found))  # without its zone, which the client chooses
    return found
