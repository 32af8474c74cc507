"""Host names and addresses: which of them are addresses, and which of them only this machine can reach."""

import ipaddress


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that this is, without an IPv6 zone, which the client chooses; None for anything else."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or ipaddress.IPv6Address(int(found))
    return found


def is_address(host: str) -> bool:
    """Whether this is an IP address rather than a name."""
    return parse_address(host) is not None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service that listens on `host`."""
    found = parse_address(host)
    return found.is_loopback if found else host.lower() == "localhost"
