"""The transport of the standard library below httpx: what it keeps open, and what it reports."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading

import httpx
import pytest

from llamakit.download.standard_transport import StandardTransport, has_proxy


@pytest.fixture
def answering():
    """Serve one answer on every request, or close the connection after some of its bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def start(answer, *, closes=False, tls=None):
        def serve(connection):
            wrapped = tls.wrap_socket if tls else lambda plain, **_: plain
            with contextlib.suppress(OSError), wrapped(connection, server_side=True) as stream:
                while stream.recv(65536):
                    stream.sendall(answer)
                    if closes:
                        return

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted.append(connection)
                threading.Thread(target=serve, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}/file", accepted

    yield start
    listener.close()


def test_a_connection_is_used_again_after_a_body_that_was_read_to_its_end(answering):
    url, accepted = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")

    with httpx.Client(transport=StandardTransport(1), trust_env=False) as client:
        bodies = [client.get(url).content for _ in range(3)]

    assert bodies == [b"abc"] * 3
    assert len(accepted) == 1


def test_a_connection_that_the_server_has_closed_is_replaced(answering):
    url, accepted = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", closes=True)

    with httpx.Client(transport=StandardTransport(1), trust_env=False) as client:
        client.get(url)
        accepted[0].close()
        body = client.get(url).content

    assert body == b"abc"
    assert len(accepted) == 2


def test_a_body_that_ends_too_early_is_an_error(answering):
    url, _ = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", closes=True)

    client = httpx.Client(transport=StandardTransport(1), trust_env=False)
    with client, pytest.raises(httpx.RemoteProtocolError, match="6 bytes before the end"):
        client.get(url)


@pytest.mark.parametrize("times", [1, 2])
def test_responses_that_only_announce_one_are_skipped(answering, times):
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    url, accepted = answering(early * times + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")

    with httpx.Client(transport=StandardTransport(1), trust_env=False) as client:
        responses = [client.get(url) for _ in range(2)]

    assert [(one.status_code, one.content) for one in responses] == [(200, b"abc")] * 2
    assert "Link" not in responses[0].headers
    assert len(accepted) == 1


def test_a_server_that_only_announces_responses_is_an_error(answering):
    url, _ = answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 99)

    client = httpx.Client(transport=StandardTransport(1), trust_env=False)
    with client, pytest.raises(httpx.RemoteProtocolError, match="only announces"):
        client.get(url)


@pytest.fixture
def certificate(tmp_path):
    """Return a file with a certificate of 127.0.0.1, signed by itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    path = tmp_path / "server.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=here"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{path}.key", "-out", path]
    subprocess.run(["openssl", *request.split(), *files], check=True, capture_output=True)
    path.write_text(path.read_text() + (tmp_path / "server.pem.key").read_text())
    return path


@pytest.mark.parametrize("is_trusted", [True, False])
def test_tls_needs_a_certificate_that_is_trusted(answering, certificate, monkeypatch, is_trusted):
    settings = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    settings.load_cert_chain(certificate)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    url, accepted = answering(answer, tls=settings)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    with httpx.Client(transport=StandardTransport(1)) as client:
        if is_trusted:
            assert [client.get(url).content for _ in range(2)] == [b"abc"] * 2
            assert len(accepted) == 1
        else:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                client.get(url)


def test_no_server_is_an_error_of_connecting():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    client = httpx.Client(transport=StandardTransport(1), trust_env=False)
    with client, pytest.raises(httpx.ConnectError, match="refused"):
        client.get(f"http://127.0.0.1:{port}/")


def test_a_proxy_of_the_environment_is_seen(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    before = has_proxy()
    monkeypatch.setenv("https_proxy", "http://10.0.0.9:3128")

    assert (before, has_proxy()) == (False, True)


@pytest.mark.parametrize(
    ("headers", "extensions", "expected"),
    [
        ({"Authorization": "Bearer secret\nx"}, {}, httpx.LocalProtocolError),
        ({}, {"target": b"/weights?Signature=secret x"}, httpx.InvalidURL),
    ],
    ids=["header", "link"],
)
def test_an_error_does_not_repeat_a_secret(answering, headers, extensions, expected):
    url, _ = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    client = httpx.Client(transport=StandardTransport(1), trust_env=False)
    with client, pytest.raises(expected, match="characters that HTTP does not allow") as caught:
        client.get(url, headers=headers, extensions=extensions)

    assert "secret" not in str(caught.value)
