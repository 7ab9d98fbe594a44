"""Parses the signed link that users paste from an email.

A signed link is a secret. The ``repr`` of a ``Link`` has no query, so that a log, a traceback or a
debugger's view of variables does not reveal it.
"""

from __future__ import annotations

import quopri
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import SplitResult, quote, urlsplit

from llamakit.download.link_policy import Policy, read_policy
from llamakit.download.link_wrappers import (
    SIGNING,
    START,
    TO_THE_ID,
    innermost,
    nkeys,
    signing_keys,
    with_ampersands,
    with_plain_signature,
    without_escapes,
)
from llamakit.download.redaction import Redactor
from llamakit.errors import DownloadError, LinkError, LinkExpiredError

INSTRUCTIONS = (
    "Copy the whole link from Meta's email into a file and pass it with --url-file FILE, or set "
    "LLAMAKIT_URL in single quotes."
)
MAX_NBYTES = 64 << 10
"""Links are far shorter, even with the text around them."""

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_QUOTED_PRINTABLE = re.compile(r"(?:Policy|Expires|Key-Pair-Id)=(?:=?\n)?3[Dd]")
_QUOTE_MARKS = re.compile(r"^(?:[ \t]*>)+[ \t]?", re.MULTILINE)
_SCHEME = re.compile(r"(?<![\w+.-])([a-z][a-z0-9+.-]{0,20})://", re.IGNORECASE)
_END = re.compile("[\"'`<>{}|^()\u2018\u2019\u201c\u201d\u00ab\u00bb\u2039\u203a]|\\]")
_PIECE = re.compile(r"(\s*)(\S+)")
_BARE = re.compile(r"(?<![\w.-])[\w-]+(?:\.[\w-]+)+(?::\d+)?/\S")
_IN_ADDRESS = re.compile(r"[\w%*&=?~.+:/;@,!$-]+", re.ASCII)
_WILDCARD = re.compile(r"\*|%2A|%252A", re.IGNORECASE)
_AFTER_THE_ID = re.compile(TO_THE_ID + "[^&A-Za-z0-9].*", re.DOTALL)
_ID_LENGTH, _OLD_ID_LENGTH = 13, 20
"""Length of a key pair's id: K and 12 or 13 characters more, or APKA and 16."""
_KEY_LENGTH, _KEY_CHANGES = 16, 4
"""A part of a path that is so long and so often changes between letters and digits is a key."""
_MAX_ADDRESSES, _MAX_PIECES = 50, 400
"""How many are examined in the pasted text."""


class IncompleteLinkError(LinkError):
    """A link with a missing part."""


@dataclass(frozen=True)
class Link:
    """A signed address, into which the path of a file is inserted.

    Args:
        host: with its port, if it has one.
        policy: what the link is signed for; None if it is not signed, such as a mirror's.
    """

    host: str
    policy: Policy | None
    _before: str = field(repr=False)
    _after: str = field(repr=False)

    def url(self, path: str) -> str:
        """Return the address of a file, with the query unchanged. It is a secret.

        Args:
            path: relative, such as ``llama-2-7b/params.json``.
        """
        return f"{self._before}{quote(path)}{self._after}"

    @property
    def is_signed(self) -> bool:
        """Whether it has a query, and so may expire."""
        return "?" in self._after

    @property
    def is_encrypted(self) -> bool:
        """Whether requests are encrypted on their way."""
        return self._before.lower().startswith("https:")

    @property
    def headers(self) -> Mapping[str, str]:
        """Of a request to this server, and to no other that it redirects to."""
        return {}

    def refusal(self, path: str, code: int) -> DownloadError:
        """Return the error for a status such as 403."""
        if not self.is_signed:
            return DownloadError(f"{self.host} refuses {path} (HTTP {code})")
        return LinkExpiredError(
            f"{self.host} refuses {path} (HTTP {code}): the link has expired (its time, or its "
            "number of requests). What is downloaded is kept: run the same command with a new "
            "link from Meta to resume."
        )

    def redactor(self) -> Redactor:
        """Return what finds its secrets: values of the query, a password, a key in the path."""
        parts = urlsplit(self._before + self._after)
        segments = [segment for segment in parts.path.split("/") if _looks_random(segment)]
        values = (part.partition("=")[2] for part in parts.query.split("&"))
        return Redactor((*values, *segments, parts.netloc.rpartition("@")[0]))


def read_link(text: str) -> Link:
    """Find the link in pasted text, and undo the changes of mail clients and redirectors.

    Args:
        text: the link; it may be in quotes, wrapped over lines, followed by other words, with
            ``&amp;`` for ``&``, percent-encoded, or inside the address of a redirector.

    Raises:
        LinkError: there is none.
        IncompleteLinkError: a part of it is missing.
    """
    if len(text) > MAX_NBYTES:
        raise LinkError(
            f"the text is longer than {MAX_NBYTES >> 10} KiB; expected a link. {INSTRUCTIONS}"
        )
    address = _unwrap(_clean(text))
    parts = _split(address)
    before, after = _around_the_path(address)
    policy = read_policy(with_plain_signature(parts.query))
    return Link(parts.netloc.rpartition("@")[2], policy, before, after)


def _clean(text: str) -> str:
    """Undo the changes that mail clients and shells make to characters."""
    text = _INVISIBLE.sub("", text).replace("\u00a0", " ")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _QUOTED_PRINTABLE.search(text):  # copied from the source of the email
        text = quopri.decodestring(text.encode()).decode("utf-8", "replace")
    text = _QUOTE_MARKS.sub("", text)
    text = text.replace("\\\n", "\n").replace("\\", "")  # a shell's escapes
    return without_escapes(with_ampersands(text))


def _unwrap(text: str) -> str:
    """Return the link without line breaks: the first signed address, else the first."""
    starts = [match.start() for match in islice(START.finditer(text), _MAX_ADDRESSES)]
    if not starts:
        if scheme := _SCHEME.search(text):
            raise LinkError(
                f"a link begins with https:// or http://, not {scheme[1]}://. {INSTRUCTIONS}"
            )
        bare = _BARE.search(text)
        if bare is None:
            raise LinkError(f"there is no link in the text. {INSTRUCTIONS}")
        text, starts = "https://" + text[bare.start() :], [0]
    best = ""
    for start in starts:
        address = _joined(text[start:])
        if not best or nkeys(address) > nkeys(best):
            best = address
        if nkeys(best) == len(SIGNING):
            break
    return _AFTER_THE_ID.sub(r"\1", best).rstrip(".,;:!")


def _joined(text: str) -> str:
    """Return the address at the beginning of a string, joined over line ends and spaces.

    Pieces are added until the address has every part of a signature, and then while a piece
    continues the last part.
    """
    pieces = _pieces(text)
    raw = whole = pieces[0][1]
    rest = 1
    for count, (_, piece) in enumerate(pieces[1:], 2):
        raw += piece
        if nkeys(innermost(raw)) > nkeys(innermost(whole)):
            whole, rest = raw, count
    for space, piece in pieces[rest:]:
        if not _continues(whole, space, piece):
            break
        whole += piece
    return innermost(whole)


def _pieces(text: str) -> list[tuple[str, str]]:
    """Split a possible address at white space; return the white space before each piece too."""
    pieces: list[tuple[str, str]] = []
    for match in islice(_PIECE.finditer(text), _MAX_PIECES):
        space, word = match.groups()
        piece = _END.split(word, maxsplit=1)[0]
        if pieces and (not _IN_ADDRESS.fullmatch(piece) or _is_another(pieces, piece)):
            break
        pieces.append((space, piece))
        if piece != word:
            break
    return pieces


def _is_another(pieces: list[tuple[str, str]], piece: str) -> bool:
    """Tell whether a piece is the beginning of another address."""
    return bool(START.match(piece)) and not pieces[-1][1].endswith(("=", "_"))


def _continues(whole: str, space: str, piece: str) -> bool:
    """Tell whether a piece continues an address that could be complete, or is a word after it."""
    if not nkeys(innermost(whole)):
        return piece.startswith(("*", "?", "&", "/"))
    if piece.startswith("&") or ("/v3/__" in whole and "__;" not in whole):
        return True
    last, _, value = innermost(whole).rpartition("&")[2].partition("=")
    if last == "Signature":
        return len(value) % 4 != 0
    more = re.match("[A-Z0-9]+(?![a-z])", piece)
    if last != "Key-Pair-Id" or not more:
        return False
    length = _OLD_ID_LENGTH if value.startswith("A") else _ID_LENGTH
    return len(value) < length or ("\n" in space and len(value) == length and len(more[0]) == 1)


def _looks_random(segment: str) -> bool:
    """Tell whether a part of a path is a key rather than a name, such as a UUID."""
    changes = re.findall("(?=[A-Za-z][0-9]|[0-9][A-Za-z])", segment)
    return len(segment) >= _KEY_LENGTH and len(changes) >= _KEY_CHANGES


def _missing(query: str) -> list[str]:
    """List the parts of a signature that a signed query lacks."""
    keys = signing_keys(query)
    return [key for key in SIGNING if keys and key not in keys]


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    is_text = address.isascii() and address.isprintable() and " " not in address
    if not port_is_good or not parts.hostname or not is_text:
        raise LinkError(f"the link's address is malformed. {INSTRUCTIONS}")
    if missing := _missing(parts.query):
        raise IncompleteLinkError(
            f"the link is incomplete: it has no {' and no '.join(missing)}. A shell splits it at & "
            f"unless the link is in single quotes. {INSTRUCTIONS}"
        )
    return parts


def _around_the_path(address: str) -> tuple[str, str]:
    """Return the parts of the address before and after the path of a file."""
    path, mark, query = address.partition("?")
    path, query = path.partition("#")[0], with_plain_signature(query)
    wildcard = _WILDCARD.search(path)
    if wildcard:
        return path[: wildcard.start()], path[wildcard.end() :] + mark + query
    return path.rstrip("/") + "/", mark + query
