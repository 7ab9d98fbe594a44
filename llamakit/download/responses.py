"""Interprets a response: the requested bytes, another file, an HTML page, a reason to wait."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from llamakit.download.part_file import Identity

UNLIMITED = 10**9
_COUNT = re.compile("[0-9]{1,18}")
"""A number of bytes or seconds: what is longer is more than any disk or life has."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_PAGES = ("text/html", "application/xhtml+xml")


class TransientError(Exception):
    """An error that a later request may not have.

    Args:
        reason: a sentence without anything secret.
        after: how long the server asks to wait, in seconds.
        max_attempts: how many times in a row it is worth trying.
    """

    def __init__(
        self, reason: str, *, after: float | None = None, max_attempts: int = UNLIMITED
    ) -> None:
        super().__init__(reason)
        self.reason, self.after, self.max_attempts = reason, after, max_attempts


class NoRangesError(Exception):
    """The server sent the whole file though a range was requested."""


class ChangedError(Exception):
    """The file has changed on the server."""


class RemoteFile(NamedTuple):
    """What a server says about a file before it is fetched."""

    identity: Identity
    accepts_ranges: bool


class Body(NamedTuple):
    """The bytes of a file that a server sends, up to ``stop`` by its own account."""

    chunks: Iterator[bytes]
    stop: int


class ContentRange(NamedTuple):
    """The bytes of a response: ``start`` to ``stop``, of ``total``, None where it is not sent."""

    start: int
    stop: int
    total: int | None


def content_range(headers: Mapping[str, str]) -> ContentRange:
    """Read the Content-Range of a 206.

    Raises:
        TransientError: there is none.
    """
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        raise TransientError("the server sent a 206 without a valid Content-Range", max_attempts=3)
    start, last, total = match.groups()
    return ContentRange(int(start), int(last) + 1, None if total == "*" else int(total))


def content_length(headers: Mapping[str, str]) -> int | None:
    """Read ``Content-Length``, in bytes; None if it is absent or invalid."""
    text = headers.get("Content-Length", "").strip()
    return int(text) if _COUNT.fullmatch(text) else None


def check_range(headers: Mapping[str, str], start: int, identity: Identity) -> int:
    """Check that a 206 has the bytes from ``start`` on of the file that is being fetched.

    Returns:
        The end of the bytes that it has.
    Raises:
        ChangedError: the file has changed.
        TransientError: it has other bytes.
    """
    received = content_range(headers)
    check_same(headers, identity, received.total)
    if received.start != start:
        raise TransientError(
            f"the server sent bytes from {received.start} on; {start} was requested", max_attempts=3
        )
    return received.stop


def check_same(headers: Mapping[str, str], identity: Identity, nbytes: int | None) -> None:
    """Check that a response is of the file that is being fetched.

    Raises:
        ChangedError: its size or its validator differs.
    """
    if nbytes is not None and nbytes != identity.nbytes:
        raise ChangedError(f"its size was {identity.nbytes} bytes and is {nbytes} now")
    current = validator(headers)
    if current and identity.validator and current != identity.validator:
        raise ChangedError("the server has another version of it now (ETag)")


def validator(headers: Mapping[str, str]) -> str:
    """Return the ETag or else the date; "" if the server sends neither."""
    return headers.get("ETag", "").removeprefix("W/") or headers.get("Last-Modified", "")


def is_page(headers: Mapping[str, str]) -> bool:
    """Tell whether a response is an HTML page."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in _PAGES


def is_compressed(headers: Mapping[str, str]) -> bool:
    """Tell whether a response is compressed, so that its bytes are not the file's."""
    return headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``, in seconds or as a date; None if it is absent or invalid."""
    text = headers.get("Retry-After", "").strip()
    if _COUNT.fullmatch(text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
