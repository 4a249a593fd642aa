"""Where a request comes from, when proxies stand in front of this process. Pure."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NEIGHBOURS: Final = 64  # one customer of a provider has at least this much of IPv6


def origin(peer: str, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """Return the address that a request's limits are kept under: of IPv6 the /64.

    `forwarded` are the values of all `X-Forwarded-For` headers, in their order. Each proxy appends the address that it
    saw, so the list is believed from its right end, and only as far as `trusted` proxies wrote it: the first address
    from the right that is not one of theirs is the client's. Whatever stands further left, anybody can have sent.
    """
    address = _parsed(peer)
    if address is None:
        return peer
    hops = [hop for value in forwarded for hop in value.split(",")]
    while hops and any(address in network for network in trusted):
        said = _parsed(hops.pop())
        if said is None:  # the proxy that wrote this is the last one that is known
            break
        address = said
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address.packed, _NEIGHBOURS), strict=False))
    return str(address)


def _parsed(text: str) -> Address | None:
    """Return an address, which some proxies write with a port; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
