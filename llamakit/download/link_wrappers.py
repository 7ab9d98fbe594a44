"""Undoes what redirectors and mail filters make of an address, and says how complete a link is."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

START = re.compile(r"https?(?::|%3A|%253A)(?:/|%2F|%252F){2}", re.IGNORECASE)
SIGNING = ("Policy", "Signature", "Key-Pair-Id")
_SIGNED = (*SIGNING, "Expires")
_HTML_NUMBER = re.compile(r"&#(?:[xX]0{0,8}([0-9A-Fa-f]{1,4})|0{0,8}([0-9]{1,4}));")
_PERCENT = re.compile(r"%(?:25)*([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
TO_THE_ID = r"([^?]+\?.*[?&]Key-Pair-Id=[A-Za-z0-9]+)"
_PARAMETERS_AFTER_THE_ID = re.compile(TO_THE_ID + "&(?!.*(?:Policy|Expires|Signature)=).*")
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
    """Undo HTML's way to write characters, that of an ampersand also several times over."""
    while "&amp;" in text:
        text = text.replace("&amp;", "&")
    for name, character in (("quot", '"'), ("lt", "<"), ("gt", ">")):
        text = text.replace(f"&{name};", character)
    return _HTML_NUMBER.sub(lambda match: _ascii(match[0], *match.groups()), text)


def without_escapes(text: str) -> str:
    """Write plainly what needs no percent-encoding: letters, digits and ``-._~``.

    Mail programs write CloudFront's ``~`` as ``%7E``, once or several times over. Either is the
    same address (RFC 3986, 2.3), and only the plain one is what was signed.
    """
    return _PERCENT.sub(lambda match: _unreserved(match[0], match[1]), text)


def with_plain_signature(query: str) -> str:
    """Write the parts of a signature plainly, whose values have no character to be encoded."""
    pairs = [part.partition("=") for part in query.split("&")]
    plain = [(key, mark, unquote(it) if key in _SIGNED else it) for key, mark, it in pairs]
    return "&".join("".join(parts) for parts in plain)


def _unreserved(written: str, digits: str) -> str:
    character = chr(int(digits, 16))
    return character if character.isascii() and _UNRESERVED.fullmatch(character) else written


def _ascii(written: str, digits: str | None, decimal: str | None) -> str:
    code = int(digits, 16) if digits else int(decimal or 0)
    return chr(code) if 32 < code < 127 else written
