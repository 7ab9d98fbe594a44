"""Who can read a link on its way: it is a secret, and ``http://`` does not encrypt it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from llamakit.download.link import Link


def exposure(link: Link, address: str = "the link", readable: str = "the link") -> str | None:
    """Say who can read the link, or another secret, on its way to the server.

    Args:
        address: what begins with ``http://``.
        readable: the secret that is sent there.
    Returns:
        A sentence; None if the link is encrypted, or stays on this machine.
    """
    if link.is_encrypted:
        return None
    host = urlsplit(f"//{link.host}").hostname or ""
    proxy = _proxy(host)
    if proxy is None and _is_here(host):
        return None
    readers = f"the proxy {proxy} (http_proxy) and every" if proxy else "every"
    return (
        f"{address} begins with http://, which is not encrypted: {readers} network on the way to "
        f"{link.host} can read {readable}, and change what arrives; use https:// if the server "
        "has it"
    )


def _proxy(host: str) -> str | None:
    """Return the host of the proxy that unencrypted requests go through."""
    from urllib.request import getproxies, proxy_bypass  # slow to import, and seldom needed

    proxies = getproxies()
    proxy = proxies.get("http") or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    return urlsplit(proxy if "://" in proxy else f"//{proxy}").hostname


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
