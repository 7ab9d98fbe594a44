"""A proxy that notes the requests which a client sends, for the fixtures in tests/data/clients."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@contextmanager
def proxy(target: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Pass requests on to a server; yield the proxy's URL and the requests so far."""
    noted: list[dict[str, Any]] = []
    address = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            noted.append({"path": self.path, "body": json.loads(body)})
            self._pass_on(body)

        def _pass_on(self, body: bytes) -> None:
            connection = http.client.HTTPConnection(address, timeout=300)
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            connection.close()

        def log_message(self, *_: object) -> None:
            pass  # the server has a log

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", noted
        finally:
            server.shutdown()
            thread.join()
