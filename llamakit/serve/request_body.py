"""Reading the JSON of a request: not more than the limit, not slower, and nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from llamakit.serve.api_errors import ApiError, bad
from llamakit.serve.server_settings import Limits

DEEPEST = 64
"""How many lists and objects may lie within one another."""


async def read_json(request: Request, limits: Limits) -> Any:
    """Read the body of a request.

    Raises:
        ApiError: 413 it is too long, 408 it does not arrive, 415 it does not say that it is JSON,
            400 it is not.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # a web page of a stranger's may send any other type without being asked what it may
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
        raise ApiError(400, "the connection ended within the request") from None
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
    """Return what JSON says.

    Raises:
        ApiError: it is not JSON, or one that no request needs.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_number
        )
    except UnicodeDecodeError as error:
        raise bad(f"the body is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except RecursionError:
        raise bad("the body's lists and objects lie too deep within one another") from None
    except ValueError as error:
        raise bad(f"the body is not JSON: {error}") from error
    if _depth(value) > DEEPEST:
        raise bad(f"the body's lists and objects lie more than {DEEPEST} deep within one another")
    _check_texts(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _number(text: str) -> float:
    """Read a number; JSON knows one kind of them, so 2.0 is the whole number 2."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _depth(value: object) -> int:
    """Say how deep lists and objects lie within one another."""
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


def _check_texts(value: object) -> None:
    """Refuse halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise bad("a text in the body holds half a surrogate pair, such as \\ud800") from None
