"""What a server's answer means: the bytes asked for, another file, a page, a reason to wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from llamakit.download.part_file import Identity

FOREVER = 10**9
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PAGES = ("text/html", "application/xhtml+xml")


class TransientError(Exception):
    """Something that often passes.

    Args:
        reason: the end of a sentence, without anything secret.
        after: how long the server asks to wait, in seconds.
        patience: how many times in a row it is worth trying.
    """

    def __init__(self, reason: str, *, after: float | None = None, patience: int = FOREVER) -> None:
        super().__init__(reason)
        self.reason, self.after, self.patience = reason, after, patience


class NoRangesError(Exception):
    """The server sends the whole file though a range was asked for."""


class ChangedError(Exception):
    """The server has another file under the name than before."""


class ContentRange(NamedTuple):
    """Which bytes an answer holds: ``start`` to ``stop``, of ``total``, None where not said."""

    start: int
    stop: int
    total: int | None


def content_range(headers: Mapping[str, str]) -> ContentRange:
    """Read which bytes a 206 holds.

    Raises:
        TransientError: it does not say.
    """
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if match is None:
        raise TransientError("the server sent a part without saying which", patience=3)
    start, last, total = match.groups()
    return ContentRange(int(start), int(last) + 1, None if total == "*" else int(total))


def check_range(headers: Mapping[str, str], start: int, identity: Identity) -> None:
    """Check that a 206 holds the bytes from ``start`` on, of the file that is being fetched.

    Raises:
        ChangedError: they are of another file.
        TransientError: they are other bytes.
    """
    found = content_range(headers)
    check_same(headers, identity, found.total)
    if found.start != start:
        raise TransientError(
            f"the server sent bytes from {found.start} on, not from {start}", patience=3
        )


def check_same(headers: Mapping[str, str], identity: Identity, nbytes: int | None) -> None:
    """Check that an answer is of the file that is being fetched.

    Raises:
        ChangedError: its size or its validator is another.
    """
    if nbytes is not None and nbytes != identity.nbytes:
        raise ChangedError(f"its size was {identity.nbytes} bytes and is {nbytes} now")
    found = validator(headers)
    if found and identity.validator and found != identity.validator:
        raise ChangedError("the server has another version of it now (ETag)")


def validator(headers: Mapping[str, str]) -> str:
    """Return what tells versions of a file apart; "" if the server does not say."""
    return headers.get("ETag", "").removeprefix("W/") or headers.get("Last-Modified", "")


def is_page(headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is a page for people."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in _PAGES


def is_compressed(headers: Mapping[str, str]) -> bool:
    """Tell whether an answer's bytes are not the file's."""
    return headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def wanted_wait(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``, in seconds or as a date; None if it is absent or makes no sense."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return None
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
