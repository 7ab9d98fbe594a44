"""A server on loopback that speaks as much of the hub's API as huggingface_hub asks for.

Small files it redirects to a place of its own, large ones (LFS) to another server, as the hub does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from server import Server

COMMIT = "9f3c" * 10
LARGE = (".pth", ".model", ".safetensors")


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub:
    """One repository, while the ``with`` block lasts.

    Args:
        folder: its files.
        token: without which nothing is to be had; None for a public one.
        gated: listed for everybody, and read by nobody.
    """

    def __init__(self, folder, repo="meta-llama/Tiny", *, token=None, gated=False, names=()):
        self.folder, self.repo, self.token, self.gated = folder, repo, token, gated
        self.names = names
        self.requests = []

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self.cdn = self._stack.enter_context(Server(self.folder, query=""))
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.requests.append((self.path, self.headers.get("Authorization")))
                hub.answer(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._stack.close()

    @property
    def resolved(self):
        """The files that were asked for."""
        mark = f"/resolve/{COMMIT}/"
        return [path.partition(mark)[2] for path, _ in self.requests if mark in path]

    def answer(self, handler):
        path = unquote(urlsplit(handler.path).path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(rf"/{self.repo}/resolve/{COMMIT}/(.+)", path)
        cached = re.fullmatch(rf"/api/resolve-cache/models/{self.repo}/{COMMIT}/(.+)", path)
        may_read = self.token in (None, handler.headers.get("Authorization", "")[7:])
        if (api and api[1] != self.repo) or not (api or file or cached) or not may_read:
            send(handler, 401, error="RepoNotFound")
        elif api and api[2] not in (None, "main", "v1", COMMIT):
            send(handler, 404, error="RevisionNotFound")
        elif api:
            send(handler, 200, json.dumps(self.info()).encode())
        elif self.gated:
            send(handler, 403, error="GatedRepo")
        elif file and file[1].endswith(LARGE):
            send(handler, 302, location=f"{self.cdn.base}/{file[1]}")
        elif file:
            place = f"/api/resolve-cache/models/{self.repo}/{COMMIT}/{file[1]}"
            send(handler, 307, location=place)
        else:
            send(handler, 200, (self.folder / cached[1]).read_bytes())

    def info(self):
        names = [
            str(path.relative_to(self.folder))
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        ]
        listed = [self._sibling(name) for name in names]
        listed += [{"rfilename": name, "size": 1, "blobId": "0" * 40} for name in self.names]
        return {"id": self.repo, "sha": COMMIT, "siblings": listed, "gated": self.gated}

    def _sibling(self, name):
        data = (self.folder / name).read_bytes()
        sibling = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
        if name.endswith(LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            sibling["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
        return sibling


def send(handler, status, body=b"", error=None, location=None):
    handler.send_response(status)
    if error:
        handler.send_header("X-Error-Code", error)
    if location:
        handler.send_header("Location", location)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
