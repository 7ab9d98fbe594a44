"""Reading the body of a request: in turn, in time, and large ones in another process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable

from starlette.requests import Request

from llamakit.serve.api_errors import ApiError
from llamakit.serve.body_check import (
    ENCODINGS,
    BodyLimits,
    CheckedBody,
    checked_body,
    too_large,
)
from llamakit.serve.body_process import BodyProcess
from llamakit.serve.fair_gate import FairGate
from llamakit.serve.memory_return import MemoryReturn
from llamakit.serve.server_settings import ServeSettings

SMALL = 4 << 10
"""Bytes of a body that is parsed on the event loop, which takes a few milliseconds at worst."""
LARGE_AT_ONCE, LARGE_OF_ONE_CLIENT = 8, 4
"""Large bodies that are received at the same time; the others stay in the network."""


class BodyReader:
    """Reads the bodies of requests. For one event loop.

    Args:
        context: tokens of a sequence.
    """

    def __init__(self, settings: ServeSettings, context: int, memory: MemoryReturn) -> None:
        limits = self._limits = settings.limits
        unknown = settings.unknown_fields.value
        self._allowed = BodyLimits(limits.body, limits.choices, context, unknown)
        self._process = BodyProcess(self._allowed)
        self._places = FairGate(LARGE_AT_ONCE, LARGE_OF_ONE_CLIENT)
        self._turn = FairGate(1)
        self._memory = memory

    async def read(self, request: Request) -> CheckedBody:
        """Read, parse and check the body of a request.

        Raises:
            ApiError: 413 it is too long, 408 it does not arrive, 415 it does not say that it is
                JSON or how it is encoded, 400 it is not what it should be.
            ClientDisconnect: the client has gone before all of it was there.
        """
        encoding = _encoding(request)
        announced = _announced(request)
        if announced is not None and announced > self._limits.body:
            raise too_large(self._limits.body)
        path, client = request.scope["path"], request.scope["llamakit.client"]
        if announced is not None and announced <= SMALL and not encoding:
            return checked_body(await self._arrived(request), "", path, self._allowed)
        try:
            return await self._read_large(request, encoding, path, client)
        finally:
            self._memory.later()

    async def close(self) -> None:
        """End the process for large bodies."""
        self._memory.close()
        await self._process.close()

    async def _read_large(
        self, request: Request, encoding: str, path: str, client: Hashable
    ) -> CheckedBody:
        async with self._places.place(client):
            data = await self._arrived(request)
            if len(data) <= SMALL and not encoding:
                return checked_body(data, "", path, self._allowed)
            async with self._turn.place(client):
                return await self._process.read(data, encoding, path)

    async def _arrived(self, request: Request) -> bytes:
        try:
            return await asyncio.wait_for(
                _receive(request, self._limits.body), self._limits.arrival
            )
        except asyncio.TimeoutError:
            raise ApiError(
                408,
                f"the request was not there within {self._limits.arrival:g} s",
                headers={"Connection": "close"},
            ) from None


def _encoding(request: Request) -> str:
    """Return the Content-Encoding of a request that says that it is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # a foreign web page may send other types without a CORS preflight
        raise ApiError(415, "expected the header Content-Type: application/json")
    encoding = request.headers.get("content-encoding", "").strip().lower().removeprefix("x-")
    if encoding in ("", "identity"):
        return ""
    if encoding not in ENCODINGS:
        raise ApiError(
            415,
            f"the body's Content-Encoding is {encoding[:40]!r}; expected {' or '.join(ENCODINGS)}, "
            "or none",
            headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        )
    return encoding


def _announced(request: Request) -> int | None:
    announced = request.headers.get("content-length", "")
    return int(announced) if re.fullmatch("[0-9]{1,18}", announced) else None


async def _receive(request: Request, limit: int) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise too_large(limit)
    return bytes(data)
