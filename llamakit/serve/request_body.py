"""Reading the JSON body of a request, within limits of size, time and nesting."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from llamakit.serve.api_errors import ApiError, bad
from llamakit.serve.server_settings import Limits

DEEPEST = 64
"""How deep lists and objects may be nested."""


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
    if announced.isdecimal() and int(announced) > limit:
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
    """Parse the JSON of a body.

    Raises:
        ApiError: it is not JSON, nested too deep or not valid Unicode.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_number
        )
    except UnicodeDecodeError as error:
        raise bad(f"the body is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except RecursionError:
        raise bad("the body's lists and objects are nested too deep") from None
    except ValueError as error:
        raise bad(f"the body is not JSON: {error}") from error
    if _depth(value) > DEEPEST:
        raise bad(f"the body's lists and objects are nested more than {DEEPEST} deep")
    _check_unicode(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _number(text: str) -> float:
    """Parse a number; JSON has one kind of number, so 2.0 is the integer 2."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _depth(value: object) -> int:
    """Return how deep lists and objects are nested."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        depth += 1
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = inner
    return depth


def _check_unicode(value: object) -> None:
    """Refuse lone surrogates, which JSON can encode and UTF-8 cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise bad("a string in the body has a lone surrogate, such as \\ud800") from None
