"""What a server says of a link: no part of a secret stays, however it is written."""

from __future__ import annotations

import base64
import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.download.exposure import exposure
from llamakit.download.link import read_link
from llamakit.download.redaction import MARK, SHORTEST, Redactor

SIGNATURE = (
    base64.b64encode(bytes(range(7, 250, 3))).decode().translate(str.maketrans("+=/", "-_~"))
)
POLICY = base64.b64encode(b'{"Statement":[]}   and more of it').decode()
KEY = "K15QRJLYKIFSLZ"
QUERY = f"Expires=1922222222&Signature={SIGNATURE}&Key-Pair-Id={KEY}&token=sesame-open-9"
LINK = f"https://user:pass-word@mirror.example.org/a1b2c3d4-e5f6-a7b8-c9d0/llama/*?{QUERY}"
SECRETS = (SIGNATURE, KEY, "1922222222", "sesame-open-9", "pass-word", "a1b2c3d4-e5f6-a7b8-c9d0")

WRITTEN = {
    "as it is": lambda it: it,
    "percent-encoded": lambda it: "".join(f"%{ord(c):02x}" for c in it),
    "percent-encoded twice": lambda it: quote("".join(f"%{ord(c):02X}" for c in it)),
    "quoted": lambda it: quote(it, safe=""),
    "in small letters": str.lower,
    "as base64": lambda it: it.translate(str.maketrans("-_~", "+=/")),
    "as JSON": lambda it: "".join(f"\\u{ord(c):04x}" for c in it),
    "as Python": lambda it: "".join(f"\\x{ord(c):02x}" for c in it),
    "as HTML": lambda it: "".join(f"&#{ord(c)};" for c in it),
    "as hexadecimal HTML": lambda it: "".join(f"&#x{ord(c):x};" for c in it),
}


@pytest.fixture(scope="module")
def redactor() -> Redactor:
    return read_link(LINK).redactor()


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("way", WRITTEN)
def test_a_secret_is_found_however_it_is_written(redactor: Redactor, secret: str, way: str) -> None:
    text = redactor.redacted(f"HTTP 403 (said: {WRITTEN[way](secret)}.)")

    assert text == f"HTTP 403 (said: {MARK}.)"


@given(st.integers(0, len(SIGNATURE)), st.integers(0, len(SIGNATURE)))
def test_any_part_of_a_signature_is_found(start: int, stop: int) -> None:
    part = SIGNATURE[start:stop]

    text = read_link(LINK).redactor().redacted(f"<title>{part}</title>")

    assert text == f"<title>{part if len(part) < SHORTEST else MARK}</title>"


@pytest.mark.parametrize(
    "text",
    [
        "The server said: 404 Not Found (nginx/1.25.3)",
        "LLAMA 2 COMMUNITY LICENSE AGREEMENT, mirror.example.org/llama",
        "100 % of \\users & more &amp; so on",
        "",
    ],
)
def test_other_text_stays(redactor: Redactor, text: str) -> None:
    assert redactor.redacted(text) == text


def test_the_query_of_any_address_is_taken_out(redactor: Redactor) -> None:
    text = redactor.redacted("Location: https://cdn.example.org/x?X-Amz-Signature=abc&d=1 for GET")

    assert text == f"Location: https://cdn.example.org/x?{MARK} for GET"


def test_an_etag_that_echoes_the_link_stays_one_and_holds_nothing_of_it(redactor: Redactor) -> None:
    one = redactor.headers({"ETag": f'"{SIGNATURE}"', "Content-Length": "1"})
    other = redactor.headers({"ETag": f'"{SIGNATURE[1:]}"'})

    assert one["ETag"].startswith(MARK)
    assert one["ETag"] != other["ETag"]
    assert one["Content-Length"] == "1"


@pytest.mark.parametrize("way", WRITTEN)
def test_a_file_that_repeats_the_link_is_known(redactor: Redactor, way: str) -> None:
    page = "x" * 1001 + WRITTEN[way](SIGNATURE[5:60]) + "\0" * 99

    assert redactor.is_in(page.encode())
    assert not redactor.is_in(b"mirror.example.org/llama/*?Signature=" + bytes(range(256)) * 9)


@pytest.mark.parametrize(
    ("link", "proxies", "warning"),
    [
        ("https://mirror.example.org/*", {"https_proxy": "http://10.0.0.9:3128"}, None),
        ("http://127.0.0.1:8000/*", {}, None),
        ("http://localhost/*", {}, None),
        ("http://mirror.example.org/*", {}, "every network on the way to mirror.example.org"),
        (
            "http://mirror.example.org/*",
            {"http_proxy": "http://user:pass-word@10.0.0.9:3128"},
            "the proxy 10.0.0.9 (http_proxy) and every network on the way",
        ),
        ("http://127.0.0.1:8000/*", {"all_proxy": "10.0.0.9:3128"}, "the proxy 10.0.0.9"),
        ("http://127.0.0.1/*", {"http_proxy": "10.0.0.9:1", "no_proxy": "127.0.0.1"}, None),
    ],
)
def test_a_link_that_others_can_read_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, link: str, proxies: dict[str, str], warning: str | None
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv(name, proxies.get(name, ""))

    said = exposure(read_link(link))

    assert said is None if warning is None else said is not None and warning in said
    assert said is None or "pass-word" not in said


def test_the_filter_takes_secrets_out_of_log_records(redactor: Redactor) -> None:
    from llamakit.download.redaction import RedactLogs

    record = logging.LogRecord("httpx", 10, "", 1, "ETag %r", (SIGNATURE[:40],), None)
    RedactLogs(redactor).filter(record)

    assert record.getMessage() == f"ETag '{MARK}'"
