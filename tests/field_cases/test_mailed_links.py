"""A link that was mailed, copied and pasted is sent as its signer meant it."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "download"))
from cloudfront import Signer

from llamakit.download.link import read_link

HOST = "https://download.llamameta.net"
ENDS = 4070908800  # in 2099
FILE = "llama-2-7b/params.json"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def query(signer: Signer) -> str:
    """A query with each of the three letters that are not those of base64, in either value."""
    for number in range(1000):
        query = signer.custom(f"{HOST}/*", ENDS, f"q???>>>{number * 'x'}")
        policy, signature, _ = query.split("&")
        if all({"-", "_", "~"} <= set(it.partition("=")[2]) for it in (policy, signature)):
            return query
    pytest.fail("no such query")


def escaped(text: str, pattern: str, form: str = "%{:02X}") -> str:
    """Write some characters of the values of a query as their codes."""
    pairs = (part.partition("=") for part in text.split("&"))
    values = [
        (key, re.sub(pattern, lambda match: form.format(ord(match[0])), value))
        for key, _, value in pairs
    ]
    return "&".join(f"{key}={value}" for key, value in values)


def quoted_printable(link: str, form: str = "={:02X}") -> str:
    """Write a link as in the source of a mail."""
    text = re.sub(r"[=_~]", lambda match: form.format(ord(match[0])), f"Dear all,\n{link}\nBye")
    lines = []
    for line in text.split("\n"):
        rest = line
        while len(rest) > 76:
            at = 75 - next((back for back in (1, 2) if rest[75 - back] == "="), 0)
            lines.append(rest[:at] + "=")
            rest = rest[at:]
        lines.append(rest)
    return "\n".join(lines)


WAYS = {
    "as it is": lambda query: f"{HOST}/*?{query}",
    "%7E": lambda query: f"{HOST}/*?{escaped(query, '~')}",
    "%7e": lambda query: f"{HOST}/*?{escaped(query, '~', '%{:02x}')}",
    "%7E, %2D and %5F": lambda query: f"{HOST}/*?{escaped(query, '[-_~]')}",
    "%257E": lambda query: f"{HOST}/*?{escaped(query, '~', '%25{:02X}')}",
    "letters": lambda query: f"{HOST}/*?{escaped(query, '[A-Ka-k0-4]')}",
    "everything": lambda query: f"{HOST}/*?{escaped(query, '.', '%{:02x}')}",
    "%2A": lambda query: f"{HOST}/%2A?{escaped(query, '~')}",
    "keys": lambda query: f"{HOST}/*?{query.replace('Key-Pair-Id', 'Key%2DPair%2DId')}",
    "&amp;": lambda query: f'<a href="{HOST}/*?{escaped(query, "~")}">'.replace("&", "&amp;"),
    "&#126;": lambda query: f"{HOST}/*?{escaped(query, '~', '&#{};')}".replace("&K", "&amp;K"),
    "&#x7E;": lambda query: f"{HOST}/*?{escaped(query, '[~_=]', '&#x{:X};')}",
    "quoted-printable": lambda query: quoted_printable(f"{HOST}/*?{query}"),
    "quoted-printable of %7E": lambda query: quoted_printable(f"{HOST}/*?{escaped(query, '~')}"),
    "quoted-printable, CRLF, lower case": lambda query: quoted_printable(
        f"{HOST}/*?{query}", "={:02x}"
    ).replace("\n", "\r\n"),
    "lines": lambda query: "\n".join(textwrap.wrap(f"{HOST}/*?{escaped(query, '~')}", 60)),
    "lines of a reply": lambda query: "> " + "\n> ".join(textwrap.wrap(f"{HOST}/*?{query}", 70)),
    "<>": lambda query: f"Link: <{HOST}/*?{escaped(query, '~')}>.",
    "quotes": lambda query: f"'{HOST}/*?{escaped(query, '~')}'",
    "curly quotes": lambda query: f"\u201c{HOST}/*?{escaped(query, '~')}\u201d, thanks",
    "markdown": lambda query: f"[download]({HOST}/*?{escaped(query, '~')}) **soon**",
    "markdown's escapes": lambda query: f"{HOST}/\\*?{query}".replace("_", "\\_"),
    "bold": lambda query: f"**{HOST}/*?{query}**",
    "a redirector": lambda query: (
        "https://l.example.com/r?u="
        + re.sub(r"[^A-Za-z0-9]", lambda match: f"%{ord(match[0]):02X}", f"{HOST}/*?{query}")
        + "&h=1"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_case_07_the_bytes_are_those_that_the_signer_meant(
    signer: Signer, query: str, way: str
) -> None:
    url = read_link(WAYS[way](query)).url(FILE)

    assert url == f"{HOST}/{FILE}?{query}"
    assert signer.accepts(*url.split("?"))


@pytest.mark.parametrize("pattern", ["~", "[-_~]", "."])
def test_case_07_so_are_those_of_a_canned_policy(signer: Signer, pattern: str) -> None:
    query = signer.canned(f"{HOST}/{FILE}", ENDS)

    link = read_link(f"{HOST}/*?{escaped(query, pattern)}")

    assert signer.accepts(*link.url(FILE).split("?"))
    assert link.policy is not None
    assert link.policy.expires is not None


def test_case_07_a_changed_letter_is_not_accepted(signer: Signer, query: str) -> None:
    """The judge of these tests tells right from wrong."""
    assert not signer.accepts(f"{HOST}/{FILE}", query.replace("~", "%7E", 1))
    assert not signer.accepts(f"{HOST}/{FILE}", query.replace("~", "-", 1))
    assert not signer.accepts("https://example.com/x", query)


def test_case_07_what_is_escaped_is_secret_too(query: str) -> None:
    link = read_link(f"{HOST}/*?{escaped(query, '~')}")

    shown = link.redactor().redacted(f"refused: {escaped(query, '[-_~]')}")

    signature = query.split("&")[1].partition("=")[2]
    assert signature[:8] not in shown
    assert "Signature" not in repr(link)
