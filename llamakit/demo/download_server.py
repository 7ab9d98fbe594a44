"""A small HTTP server of the bundled demo model on loopback, to demonstrate a download."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder while the block runs.

    Yields:
        A link to them, such as ``http://127.0.0.1:43211/*``.
    """
    files = {f"/{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = files.get(self.path)
            if path is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            data = path.read_bytes()
            wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted else 0
            stop = int(wanted[2]) + 1 if wanted and wanted[2] else len(data)
            part = data[start:stop]
            self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", f'"{len(data)}-{path.stat().st_mtime_ns}"')
            if wanted:
                last = start + len(part) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(data)}")
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *args: object) -> None:
            """Log nothing: the download itself reports what happens."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/*"
        finally:
            server.shutdown()
            thread.join()
