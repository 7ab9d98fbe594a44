"""Undoes what redirectors and mail filters make of an address, and says how complete a link is."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

START = re.compile(r"https?(?::|%3A|%253A)(?:/|%2F|%252F){2}", re.IGNORECASE)
SIGNING = ("Policy", "Signature", "Key-Pair-Id")
_TO_THE_ID = r"([^?]+\?.*[?&]Key-Pair-Id=[A-Za-z0-9]+)"
_PARAMETERS_AFTER_THE_ID = re.compile(_TO_THE_ID + "&(?!.*(?:Policy|Expires|Signature)=).*")
_PROOFPOINT = re.compile(r"urldefense\.(?:proofpoint\.)?com/v[12]/url\?u=([^&]+)")


def innermost(address: str) -> str:
    """Undo redirectors, and percent-encoding of the whole address."""
    address = with_ampersands(address)
    while inner := START.search(address, len("https://")):
        address = _inner(address, inner)
    if match := _PROOFPOINT.search(address):
        address = unquote(match[1].replace("-", "%").replace("_", "/"))
    for _ in range(2):
        is_plain = address.lower().startswith(("http://", "https://"))
        if not is_plain or nkeys(unquote(address)) > nkeys(address):
            address = unquote(address)
    return address


def _inner(address: str, inner: re.Match[str]) -> str:
    """Return the address inside a redirector's address.

    If percent-encoded, it ends where the redirector's next parameter begins; urldefense.com puts
    two underscores before and after it.
    """
    text = address[inner.start() :]
    head = text.partition("&")[0]
    if "%" in inner[0] or nkeys(unquote(head)) > nkeys(head):
        return unquote(head)
    if address[: inner.start()].endswith("__"):
        return _stars_replaced(*text.partition("__;")[::2])
    return _PARAMETERS_AFTER_THE_ID.sub(r"\1", text)


def _stars_replaced(address: str, suffix: str) -> str:
    """Put back the characters that urldefense.com replaces by asterisks and lists at the end."""
    try:
        listed = base64.urlsafe_b64decode(suffix.partition("!")[0] + "==").decode()
    except ValueError:
        return address
    if len(listed) != address.count("*"):
        return address
    letters = iter(listed)
    return re.sub(r"\*", lambda _: next(letters), address)


def nkeys(address: str) -> int:
    """Count the parts of a signature that an address has."""
    return len(signing_keys(address.partition("?")[2]))


def signing_keys(query: str) -> set[str]:
    """Return which parts of a signature a query has."""
    pairs = (part.partition("=") for part in query.split("&"))
    keys = {"Policy" if key == "Expires" else key for key, _, value in pairs if value}
    return keys & set(SIGNING)


def with_ampersands(text: str) -> str:
    """Undo HTML's way to write an ampersand, also several times over."""
    while "&amp;" in text:
        text = text.replace("&amp;", "&")
    return re.sub(r"&#0*38;|&#[xX]0*26;", "&", text)
