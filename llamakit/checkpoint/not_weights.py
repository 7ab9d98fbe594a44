"""Recognizes files that are not weights: error pages, Git LFS pointers."""

from __future__ import annotations

import re
from pathlib import Path

from llamakit.files.regular_file import open_regular
from llamakit.printable import printable

HEAD_NBYTES = 4096
"""How much of the start of a file ``describe_not_weights`` needs."""

_PAGE = re.compile(r"<(\?xml|!doctype|!--|html|head|body|error)\b|<!--", re.IGNORECASE)
_LONGEST_WORD = 24
"""A longer one is no word but an address or a key, which may be a secret."""
_TELLING = (
    re.compile(r"<code>(.{1,80}?)</code>", re.IGNORECASE | re.DOTALL),
    re.compile(r"<title[^>]*>(.{1,80}?)</title>", re.IGNORECASE | re.DOTALL),
    re.compile(r"<h1[^>]*>(.{1,80}?)</h1>", re.IGNORECASE | re.DOTALL),
)


def describe_not_weights(head: bytes) -> str | None:
    """Recognize what is often saved under the name of a file that failed to download.

    Args:
        head: the first bytes of the file, ``HEAD_NBYTES`` or all of it.
    Returns:
        The middle of a sentence, such as ``an XML error page ("AccessDenied")``, or None.
    """
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("version https://git-lfs.github.com/"):
        return "a Git LFS pointer, not the file it points to"
    if not _PAGE.match(text):
        return None
    kind = "an XML error page" if _is_xml(text) else "an HTML page"
    said = next((match[1] for pattern in _TELLING if (match := pattern.search(text))), "")
    said = " ".join(word for word in said.split() if len(word) <= _LONGEST_WORD)
    said = printable(said)
    return f'{kind} ("{said}")' if said else kind


def _is_xml(text: str) -> bool:
    return text.lower().startswith(("<?xml", "<error")) and "<html" not in text.lower()


def not_weights(path: Path) -> str | None:
    """Describe a file that is not weights, such as an error page; None for any other file."""
    with open_regular(path) as file:
        head = file.read(HEAD_NBYTES)
    return "an empty file" if not head else describe_not_weights(head)
