"""The files of the chat page at ``/``, read once when the server starts."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
}


class Page:
    """The page's files by their path, in memory: a request's path never reaches the disk."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.files = {
            f"/{file.relative_to(folder).as_posix()}": (file.read_bytes(), KINDS[file.suffix])
            for file in sorted(folder.rglob("*"))
            if file.suffix in KINDS
        }
        self.files["/"] = self.files.pop("/index.html")

    def __contains__(self, path: object) -> bool:
        return path in self.files

    async def answer(self, request: Request) -> Response:
        """Respond with a file, or with 304 if the browser has it."""
        data, kind = self.files[request.url.path]
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {**HEADERS, "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=kind)
