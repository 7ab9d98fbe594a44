"""Single requests to the test server, with what Python brings along."""

from __future__ import annotations

import http.client
import socket

from server import DEFAULT_QUERY

SHARD = "llama-2-7b/consolidated.00.pth"
NBYTES = 300_000


def connect(server):
    return http.client.HTTPConnection(server.base.removeprefix("http://"), timeout=180)


def ask(connection, path=SHARD, span=None, query=DEFAULT_QUERY, method="GET", **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if span:
        fields["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    connection.request(method, f"/{path}?{query}", headers=fields)
    return connection.getresponse()


def get(server, path=SHARD, span=None, query=DEFAULT_QUERY, method="GET", **headers):
    """One request on a connection of its own; return the response and its body."""
    connection = connect(server)
    try:
        response = ask(connection, path, span, query, method, **headers)
        return response, response.read()
    finally:
        connection.close()


def raw(server, span, nbytes):
    """Read so many bytes of a body from the socket; return them with the head, and the end."""
    got = b""
    host, _, port = server.base.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=180) as connection:
        lines = f"Host: x\r\nRange: bytes={span[0]}-{span[1] - 1}"
        connection.sendall(f"GET /{SHARD}?{DEFAULT_QUERY} HTTP/1.1\r\n{lines}\r\n\r\n".encode())
        try:
            while len(body_of(got)) < nbytes and (more := connection.recv(1 << 16)):
                got += more
        except ConnectionResetError:
            return got, "reset"
    return got, "end"


def body_of(data):
    return data.partition(b"\r\n\r\n")[2]
