"""Reading the JSON body of a request, within limits of size, time and nesting."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from starlette.requests import ClientDisconnect, Request

from llamakit.errors import InvalidJSONError
from llamakit.files.json_reader import parse_json
from llamakit.serve.api_errors import ApiError, bad
from llamakit.serve.server_settings import Limits


async def read_json(request: Request, limits: Limits) -> Any:
    """Read the body of a request.

    Raises:
        ApiError: 413 it is too long, 408 it does not arrive, 415 it does not say that it is JSON,
            400 it is not.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # a foreign web page may send other types without a CORS preflight
        raise ApiError(415, "expected the header Content-Type: application/json")
    try:
        data = await asyncio.wait_for(_read(request, limits.body), limits.arrival)
    except asyncio.TimeoutError:
        raise ApiError(
            408,
            f"the request was not there within {limits.arrival:g} s",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise ApiError(400, "the connection was closed within the request") from None
    return parse(data)


async def _read(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if re.fullmatch("[0-9]{1,18}", announced) and int(announced) > limit:
        raise _too_large(limit)
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise _too_large(limit)
    return bytes(data)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"a request may have {limit} bytes",
        code="request_too_large",
        headers={"Connection": "close"},
    )


def parse(data: bytes) -> Any:
    """Parse the JSON of a body, within the limit that its bytes have met already.

    Raises:
        ApiError: it is not JSON, nested too deep or not valid Unicode.
    """
    try:
        return parse_json(data, "the body", max_nbytes=len(data), whole_floats=True)
    except InvalidJSONError as error:
        raise bad(str(error)) from None
