"""Who a client is: its API key if there are several, else its address."""

from __future__ import annotations

import ipaddress

IPV6_NETWORK_BITS = 64
"""What one site gets at least: whoever has it has 2^64 addresses."""


def client_of_address(address: str) -> str:
    """Return the client that an address stands for: itself, or its network for IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
