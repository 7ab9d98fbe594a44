"""Where a redirect leads, and whether a download follows it there."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from llamakit.download.link import Link
from llamakit.download.redaction import Redactor
from llamakit.errors import DownloadError


def redirected(link: Link, redactor: Redactor, path: str, address: str, location: str) -> str:
    """Return the address that a redirect leads to.

    Args:
        redactor: of the link.
        path: of the file that was asked for.
        address: that the redirect is an answer to.
        location: the header of that name.

    Raises:
        DownloadError: it leads to another protocol, or to one without encryption.
    """
    target = httpx.URL(address).join(location)
    scheme, host = map(redactor.redacted, (target.scheme, target.host))
    if target.scheme not in ("http", "https"):
        raise DownloadError(f"{link.host} redirects {path} to {scheme}:, expected http or https")
    if address.startswith("https:") and target.scheme == "http":
        raise DownloadError(
            f"{link.host} redirects {path} to an address without encryption "
            f"({host}); llamakit does not follow that"
        )
    return str(target)


def request_target(address: str) -> bytes:
    """Return path and query unchanged: httpx would encode some characters differently."""
    parts = urlsplit(address)
    return (parts.path + ("?" + parts.query if parts.query else "")).encode("ascii")


def origin(address: str) -> tuple[str, str]:
    """Return scheme and host of an address: the link's headers go to its own only."""
    parts = urlsplit(address)
    return parts.scheme, parts.netloc
