"""The link: what people paste, and the address that it means.

A signed link is a secret. A ``Link`` shows itself without its query, so that a log, a traceback
or a debugger's view of variables does not give it away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

from llamakit.download.policy import Policy, read_policy
from llamakit.errors import LinkError

HOW_TO_GIVE = (
    "Copy the whole link from Meta's email into a file and pass it with --url-file FILE, or set "
    "LLAMAKIT_URL in single quotes."
)
MAX_NBYTES = 64 << 10
"""No link is anywhere near as long, whatever stands around it."""

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_START = re.compile(r"https?(?::|%3A|%253A)(?:/|%2F|%252F){2}", re.IGNORECASE)
_END = re.compile("[\"'`<>{}|^()\u2018\u2019\u201c\u201d\u00ab\u00bb\u2039\u203a]|\\]")
_IN_ADDRESS = re.compile(r"[\w%*&=?~.+:/;@,!$-]+", re.ASCII)
_WILDCARD = re.compile(r"\*|%2A|%252A", re.IGNORECASE)
_SIGNING = ("Policy", "Signature", "Key-Pair-Id")
_KEY_PAIR_LENGTH = 13
"""The shortest id of a key pair: K and twelve more; a shorter one was broken by a line end."""


@dataclass(frozen=True)
class Link:
    """An address with a place for the path of a file.

    Args:
        host: with its port, if it has one.
        policy: what the signature covers; None if the link has none, such as a mirror's.
    """

    host: str
    policy: Policy | None
    _before: str = field(repr=False)
    _after: str = field(repr=False)

    def url(self, path: str) -> str:
        """Return the address of a file, the query byte for byte as it was. It is a secret.

        Args:
            path: relative, such as ``llama-2-7b/params.json``.
        """
        return f"{self._before}{quote(path)}{self._after}"

    @property
    def is_signed(self) -> bool:
        """Whether it has a query that ends one day."""
        return "?" in self._after

    def redacted(self, text: str) -> str:
        """Return a text without what is secret about the link."""
        query = self._after.partition("?")[2]
        if not query:
            return text
        for secret in (query, *(part.partition("=")[2] for part in query.split("&"))):
            if len(secret) >= 8:
                text = text.replace(secret, "[secret]")
        return text


def read_link(text: str) -> Link:
    """Find the link in what somebody pasted, and undo what mail clients and redirectors did.

    Args:
        text: the link, perhaps in quotes, wrapped over lines, with words behind it, with
            ``&amp;`` for ``&``, percent-encoded, or inside a redirector's own address.

    Raises:
        LinkError: there is none, or a part of it is missing.
    """
    if len(text) > MAX_NBYTES:
        raise LinkError(f"the text is over {MAX_NBYTES >> 10} KiB long, no link. {HOW_TO_GIVE}")
    address = _unwrap(_clean(text))
    parts = _split(address)
    before, after = _around_the_path(address)
    return Link(parts.netloc.rpartition("@")[2], read_policy(parts.query), before, after)


def _clean(text: str) -> str:
    """Undo what mail clients and shells do to characters."""
    text = _INVISIBLE.sub("", text).replace("\u00a0", " ")
    if "=3D" in text:  # quoted-printable, as a message's source has it
        text = re.sub(r"=\r?\n", "", text).replace("=3D", "=")
    text = text.replace("\\\n", "\n").replace("\\", "")  # a shell's escapes
    while "&amp;" in text:
        text = text.replace("&amp;", "&")
    return re.sub(r"&#0*38;|&#[xX]0*26;", "&", text).replace("&quot;", '"')


def _unwrap(text: str) -> str:
    """Return the innermost address in a text, on one line."""
    match = _START.search(text)
    if match is None:
        return _without_scheme(text)
    address = _joined(text[match.start() :])
    while inner := _START.search(address, len("https://")):
        address = _inner(address, inner)
    if not address.lower().startswith(("http://", "https://")):
        address = unquote(address)
    return address.rstrip(".,;:!")


def _inner(address: str, inner: re.Match[str]) -> str:
    """Return the address that a redirector's address carries.

    One that is percent-encoded ends where the redirector's next parameter begins; urldefense.com
    puts two underscores before and behind it.
    """
    text = address[inner.start() :]
    if "%" in inner[0]:
        return unquote(text.partition("&")[0])
    if address[: inner.start()].endswith("__"):
        return text.partition("__;")[0]
    return text


def _without_scheme(text: str) -> str:
    match = re.search(r"(?<![\w.])[\w-]+(\.[\w-]+)+(:\d+)?/\S*", text)
    if match is None:
        raise LinkError(f"there is no link in the text that was given. {HOW_TO_GIVE}")
    return "https://" + _joined(text[match.start() :])


def _joined(text: str) -> str:
    """Return the address that a text begins with, joined where a line end or a space broke it."""
    first, *pieces = text.split()
    address = _up_to_the_end(first)
    while pieces and len(address) >= len(first) and _goes_on(address, pieces[0]):
        first = address + pieces.pop(0)
        address = _up_to_the_end(first)
    return address


def _up_to_the_end(piece: str) -> str:
    """Cut at a quote, a bracket or another character that no address holds."""
    return _END.split(piece, maxsplit=1)[0]


def _goes_on(address: str, piece: str) -> bool:
    """Tell whether a piece behind white space is more of the address, not a word behind it."""
    if not _IN_ADDRESS.fullmatch(piece):
        return False
    query = urlsplit(address).query
    if not _signing_keys(query):
        return piece.startswith(("*", "?", "&", "/")) or "Policy=" in piece
    if _missing(query) or piece.startswith("&"):
        return True
    last, _, value = query.rpartition("&")[2].partition("=")
    if last == "Key-Pair-Id":
        return len(value) < _KEY_PAIR_LENGTH and bool(re.fullmatch("[A-Z0-9]+", piece))
    return len(piece) >= 20


def _signing_keys(query: str) -> set[str]:
    """Return which parts of a signature a query has."""
    pairs = (part.partition("=") for part in query.split("&"))
    keys = {"Policy" if key == "Expires" else key for key, _, value in pairs if value}
    return keys & set(_SIGNING)


def _missing(query: str) -> list[str]:
    """List the parts of a signature that a signed query lacks."""
    keys = _signing_keys(query)
    return [key for key in _SIGNING if keys and key not in keys]


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    if not port_is_good or not parts.hostname or not address.isascii():
        raise LinkError(f"the link's address is malformed. {HOW_TO_GIVE}")
    if missing := _missing(parts.query):
        raise LinkError(
            f"the link is cut: it has no {' and no '.join(missing)}. A shell cuts at & unless "
            f"the link stands in single quotes. {HOW_TO_GIVE}"
        )
    return parts


def _around_the_path(address: str) -> tuple[str, str]:
    """Return what stands before and behind the path of a file."""
    path, mark, query = address.partition("?")
    path = path.partition("#")[0]
    wildcard = _WILDCARD.search(path)
    if wildcard:
        return path[: wildcard.start()], path[wildcard.end() :] + mark + query
    return path.rstrip("/") + "/", mark + query
