"""A link is found in whatever somebody pastes, and comes out byte for byte."""

from __future__ import annotations

import base64
import html
import quopri
import socketserver
import textwrap
import threading
from urllib.parse import quote

import pytest
from download_kit import KEY, SIGNATURE, signed_query
from hypothesis import example, given
from hypothesis import strategies as st

from llamakit.download.http_client import HttpClient
from llamakit.download.link import MAX_NBYTES, read_link
from llamakit.errors import DownloadError, LinkError

HOST = "download.llamameta.net"
QUERY = signed_query()
LINK = f"https://{HOST}/*?{QUERY}"
POLICY = QUERY.partition("&")[0].partition("=")[2]
BARE = LINK.removeprefix("https://")
FILE = "llama-2-7b/params.json"
MEANT = f"https://{HOST}/{FILE}?{QUERY}"

QUOTED = [f"{a}{LINK}{b}" for a, b in ["''", '""', "``", "<>", "()", "[]", "“”", "‘’", "«»", "„“"]]
IN_A_MESSAGE = textwrap.fill(LINK, 60, break_on_hyphens=False)
V2_LETTERS = {"%": "-", "/": "_", "-": "-2D", "_": "-5F"}


def cut(part, at=40, end="\n"):
    """Break a link in the middle of a part of its query."""
    middle = LINK.index(f"{part}=") + len(part) + 1 + at
    return LINK[:middle] + end + LINK[middle:]


def encoded(text=LINK):
    return quote(text, safe="")


def proofpoint(text=LINK):
    letters = quote(text.replace("_", "\0"), safe="/-~\0")
    return "".join({**V2_LETTERS, "\0": "-5F"}.get(letter, letter) for letter in letters)


def listed(letters):
    return base64.urlsafe_b64encode(letters.encode()).decode().rstrip("=")


MANGLED = {
    "as it is": LINK,
    "white space around it": f"\n\t {LINK} \r\n",
    "HTML's ampersands": html.escape(LINK),
    "HTML's ampersands twice": html.escape(html.escape(LINK)),
    "numbered ampersands": LINK.replace("&", "&#38;"),
    "hexadecimal ampersands": LINK.replace("&", "&#x26;"),
    **{f"in {quoted[0]} and {quoted[-1]}": quoted for quoted in QUOTED},
    "only an opening quote": f"'{LINK}",
    "cut in Policy": cut("Policy"),
    "cut in Signature": cut("Signature"),
    "cut in Key-Pair-Id": cut("Key-Pair-Id", at=5),
    "cut before the last letter": f"{LINK[:-1]}\n{LINK[-1]}",
    "cut before =": LINK.replace("Signature=", "Signature\n="),
    "cut behind =": LINK.replace("Key-Pair-Id=", "Key-Pair-Id=\r\n"),
    "cut before &": LINK.replace("&", "\n&"),
    "cut behind ?": LINK.replace("?", "?\n"),
    "cut before *": LINK.replace("*", " *"),
    "cut with CRLF": cut("Signature", end="\r\n"),
    "cut with CR": cut("Signature", end="\r"),
    "cut with a space": cut("Signature", end=" "),
    "cut in many lines": IN_A_MESSAGE,
    "cut in many lines, in angles": f"<{IN_A_MESSAGE}>",
    "cut in the id, in angles": f"<{cut('Key-Pair-Id', at=5)}>",
    "cut and quoted": textwrap.indent(IN_A_MESSAGE, "> "),
    "cut and quoted twice": textwrap.indent(IN_A_MESSAGE, ">> ") + "\n>> Bye",
    "cut and indented": textwrap.indent(IN_A_MESSAGE, "    "),
    "words before and behind": f"Your link is {LINK} and it ends in 24 hours.",
    "a greeting below": f"{LINK}\n\nThe Meta AI Team",
    "a letter and words below": f"{LINK} I have it",
    "another address before it": f"See https://ai.meta.com/llama and use {LINK} now",
    "another address behind it": f"{LINK}\nhttps://ai.meta.com/llama",
    "a full stop": f"{LINK}.",
    "a comma and a word": f"{LINK}, please",
    "a bracket": f"(see {LINK})",
    "an ellipsis": f"{LINK}…",
    "a semicolon": f"{LINK};",
    "bold in Markdown": f"**{LINK}**",
    "italic in Markdown": f"_{LINK}_",
    "a link in Markdown": f"[the link]({LINK})",
    "a link in Markdown with a short text": f"[https://{HOST}/*]({LINK})",
    "in Slack": f"<{LINK}|{HOST}>",
    "an anchor": f'<p>Go <a href="{html.escape(LINK)}">here</a>.</p>',
    "an anchor around itself": f"<a href='{LINK}'>{LINK}</a>",
    "an encoded asterisk": LINK.replace("*", "%2A"),
    "an encoded asterisk in small letters": LINK.replace("*", "%2a"),
    "a doubly encoded asterisk": LINK.replace("*", "%252A"),
    "encoded": encoded(),
    "encoded twice": encoded(encoded()),
    "encoded and cut": textwrap.fill(encoded(), 60, break_on_hyphens=False),
    "quoted-printable": quopri.encodestring(LINK.encode()).decode(),
    "quoted-printable with CRLF": quopri.encodestring(LINK.encode()).decode().replace("\n", "\r\n"),
    "no https://": BARE,
    "no https:// and words": f"it is {BARE} ok",
    "no https:// and quotes": f"'{BARE}'",
    "a shell's backslashes": LINK.replace("?", "\\?").replace("&", "\\&").replace("=", "\\="),
    "a shell's long lines": cut("Signature", end="\\\n"),
    "invisible letters": f"\ufeff{LINK[:30]}\u200b{LINK[30:200]}\u00ad{LINK[200:]}\u2060",
    "spaces that do not break": f"\u00a0{LINK}\u00a0now",
    "a variable": f"export LLAMAKIT_URL='{LINK}'",
    "a command": f"llamakit download --url-file <(echo '{LINK}')",
    "Outlook": "https://nam02.safelinks.protection.outlook.com/?url="
    f"{encoded()}&data=05%7C01%7Cjane%40example.org%7C1&sdata=abc%3D&reserved=0",
    "Outlook, in many lines": textwrap.fill(
        f"https://nam02.safelinks.protection.outlook.com/?url={encoded()}&data=05%7C01&reserved=0",
        70,
        break_on_hyphens=False,
    ),
    "Google": f"https://www.google.com/url?q={encoded()}&sa=D&source=editors&ust=1690000000",
    "Gmail": "https://www.google.com/url?q="
    f"https://{HOST}/*?{encoded(QUERY)}&source=gmail&ust=1690000000000&usg=AOvVaw",
    "Google with an address as it is": f"https://www.google.com/url?q={LINK}&source=gmail&ust=169",
    "Facebook": f"https://l.facebook.com/l.php?u={encoded()}&h=AT0abc&s=1",
    "urldefense v2": f"https://urldefense.proofpoint.com/v2/url?u={proofpoint()}&d=DwMFaQ&c=5VD0",
    "urldefense v3": f"https://urldefense.com/v3/__{LINK}__;Kg!!Bt8RZUm9aw!4T$",
    "urldefense v3 with a list of letters": "https://urldefense.com/v3/__"
    f"{LINK.replace('~', '*')}__;{listed('*' + '~' * QUERY.count('~'))}!!Bt8RZUm9aw!4T$",
    "urldefense v3, in many lines": textwrap.fill(
        f"https://urldefense.com/v3/__{LINK}__;Kg!!Bt8RZUm9aw!4T$ bye", 70, break_on_hyphens=False
    ),
    "Outlook around Google": "https://nam02.safelinks.protection.outlook.com/?url="
    f"{encoded(f'https://www.google.com/url?q={encoded()}&sa=D')}&data=05",
}


@pytest.mark.parametrize("text", MANGLED.values(), ids=MANGLED)
def test_what_mail_clients_redirectors_and_shells_do_is_undone(text):
    link = read_link(text)

    assert link.url(FILE) == MEANT
    assert link.host == HOST


@given(st.integers(20, 900), st.sampled_from(["\n", "\r\n", "\n> ", "\r\n    "]), st.booleans())
@example(width=len(LINK) - 1, end="\n", escape=False)
def test_a_link_is_whole_again_however_it_was_wrapped(width, end, escape):
    text = html.escape(LINK) if escape else LINK

    wrapped = end.join(text[at : at + width] for at in range(0, len(text), width))

    assert read_link(wrapped).url(FILE) == MEANT


WORDS = st.lists(st.from_regex(r"[A-Za-z]{2,12}[.,:;!?)\]]?", fullmatch=True), max_size=6)


@given(WORDS, WORDS, st.sampled_from([" ", "\n", "\r\n\r\n", " \t"]), st.booleans())
def test_words_around_a_link_make_no_difference(before, behind, space, escape):
    text = space.join([*before, html.escape(LINK) if escape else LINK, *behind])

    assert read_link(text).url(FILE) == MEANT


@given(st.text(st.sampled_from("AB3DEK0z~-_"), min_size=4, max_size=60))
@example("3D~b")
def test_every_signature_comes_out_byte_for_byte(letters):
    query = signed_query(signature=letters.ljust(-(-len(letters) // 4) * 4, "_"))

    assert read_link(f"https://{HOST}/*?{query}").url(FILE) == f"https://{HOST}/{FILE}?{query}"


@given(st.text() | st.text(st.sampled_from("htps:/[]?&=%2A*. \n>_'Policy")))
@example("https://[a b")
@example("https://a:99999999/*")
@example("https%3A%2F%2Fhost%2F%0D%0Ax")
@example("http://h/*?Policy=e30_&Signature=a&Key-Pair-Id=K")
def test_any_string_is_a_link_or_gets_a_sentence(text):
    try:
        link = read_link(text)
    except LinkError as error:
        assert str(error)  # noqa: PT017 - either is right
    else:
        address = link.url(FILE)
        assert address.isascii()
        assert address.isprintable()
        assert " " not in address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:8000/*", f"http://127.0.0.1:8000/{FILE}"),
        ("http://127.0.0.1:8000", f"http://127.0.0.1:8000/{FILE}"),
        ("'https://mirror.example.org/llama/' is nice", f"https://mirror.example.org/llama/{FILE}"),
        ("mirror.example.org/llama.", f"https://mirror.example.org/llama/{FILE}"),
        ("https://example.org/*/raw?token=abc", f"https://example.org/{FILE}/raw?token=abc"),
        ("https://example.org/a?token=abc#top", f"https://example.org/a/{FILE}?token=abc#top"),
        (f"https://example.org/v1/*/x?{QUERY}", f"https://example.org/v1/{FILE}/x?{QUERY}"),
        (f"https://example.org/llama?{QUERY}&a=1", f"https://example.org/llama/{FILE}?{QUERY}&a=1"),
    ],
)
def test_a_base_address_with_or_without_an_asterisk_is_a_link_too(text, address):
    assert read_link(text).url(FILE) == address


def test_a_path_is_quoted_where_it_has_to_be():
    assert read_link("http://h/*?x=1").url("a b/ü.chk") == "http://h/a%20b/%C3%BC.chk?x=1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no link"),
        ("llama-2-7b", "there is no link"),
        (LINK.partition("&")[0], "no Signature and no Key-Pair-Id"),
        (LINK.rpartition("&")[0], "no Key-Pair-Id"),
        (LINK.rpartition("&")[0] + " and words behind it", "no Key-Pair-Id"),
        (f"https://{HOST}/*?{QUERY.partition('&')[2]}", "no Policy"),
        ("x" * (MAX_NBYTES + 1), "64 KiB"),
        ("https://[half/*", "malformed"),
        ("https://host:port/*", "malformed"),
        ("https:///*", "malformed"),
        (LINK.replace(POLICY, POLICY[:50] + POLICY[54:]), "cannot be decoded"),
    ],
)
def test_a_link_that_is_none_gets_a_sentence_that_says_what_to_do(text, said):
    with pytest.raises(LinkError, match=said) as caught:
        read_link(text)

    assert POLICY[:20] not in str(caught.value)
    assert SIGNATURE[:20] not in str(caught.value)


def test_a_link_shows_itself_without_what_is_secret():
    link = read_link(LINK)

    shown = f"{link!r} {link} {vars(link).keys()}"

    assert HOST in shown
    assert not [secret for secret in (SIGNATURE, POLICY, KEY) if secret in shown]


def test_what_is_secret_is_taken_out_of_a_text():
    text = read_link(LINK).redactor().redacted(f"GET {MEANT} failed: {SIGNATURE}")

    assert text == f"GET https://{HOST}/{FILE}?[secret] failed: [secret]"


@pytest.mark.parametrize("text", ["htp://127.0.0.1:8000/*", "ftp://mirror.example.org/llama/*"])
def test_another_scheme_is_refused(text):
    scheme = text.partition(":")[0]

    with pytest.raises(LinkError, match=f"begins with https:// or http://, not {scheme}://"):
        read_link(text)


def test_a_server_without_tls_is_distinguished_from_a_network_that_fails():
    with socketserver.TCPServer(("127.0.0.1", 0), _SaysHttp) as plain:
        thread = threading.Thread(target=plain.handle_request)
        thread.start()
        link = read_link(f"127.0.0.1:{plain.server_address[1]}/*")
        server = HttpClient(link, timeout=10, connections=1)

        with pytest.raises(DownloadError, match="answers without TLS: is the link http://"):
            server.probe(FILE)

        server.close()
        thread.join()


class _SaysHttp(socketserver.StreamRequestHandler):
    def handle(self):
        self.request.recv(1000)
        self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
