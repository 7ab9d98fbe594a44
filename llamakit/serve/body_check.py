"""What a request body has to be: JSON within limits, of the right form, with few values.

Imports nothing heavy: ``body_worker`` runs it for large bodies. The counts come before anything
that takes time for each value.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.errors import InvalidJSONError
from llamakit.files.json_reader import parse_json
from llamakit.serve import request_schemas
from llamakit.serve.api_errors import ApiError, bad, context_exceeded
from llamakit.serve.responses_schema import RESPONSES
from llamakit.serve.schema_validation import Unknown, check

MOST_VALUES = 20_000
"""Strings, numbers, lists and objects of a body, without the token IDs of prompts. A chat of a
thousand messages has 3,000, and the largest schema that is built some 5,000."""
MOST_TOKENS = 1 << 16
"""Token IDs that ``/detokenize`` decodes in one request."""
BODIES = {**request_schemas.BODIES, "/v1/responses": RESPONSES}
"""The schema of the body that is posted to each path."""
ENCODINGS = ("gzip", "deflate")


@dataclass(frozen=True)
class BodyLimits:
    """Limits of one body.

    Args:
        nbytes: after decompression.
        choices: answers that one request may ask for.
        context: tokens of a sequence.
        unknown: what happens to unknown fields: a value of ``Unknown``.
    """

    nbytes: int
    choices: int
    context: int
    unknown: str = Unknown.REFUSE.value


class CheckedBody(dict[str, Any]):
    """A body that fits the schema of its path.

    Args:
        ignored: the places of its fields that are ignored.
    """

    def __init__(self, body: Mapping[str, Any], ignored: Sequence[str] = ()) -> None:
        super().__init__(body)
        self.ignored = ignored


def checked_body(data: bytes, encoding: str, path: str, limits: BodyLimits) -> CheckedBody:
    """Parse and check a body.

    Args:
        encoding: the Content-Encoding, one of ``ENCODINGS`` or ``""``.
        path: of the route.
    Raises:
        ApiError: 400, it is not what it should be; 413, it is too long when decompressed.
    """
    if encoding:
        data = _decompressed(data, limits.nbytes)
    try:
        body = parse_json(data, "the body", max_nbytes=limits.nbytes, whole_floats=True)
    except InvalidJSONError as error:
        raise bad(str(error)) from None
    if isinstance(body, dict):
        _check_prompt(body.get("prompt"), limits)
        _check_counts(body, path, limits)
    ignored = check(body, BODIES[path], unknown=Unknown(limits.unknown))
    return CheckedBody(body, ignored)


def too_large(limit: int) -> ApiError:
    """Return the error for a body that is too long."""
    return ApiError(
        413,
        f"a request may have {limit} bytes",
        code="request_too_large",
        headers={"Connection": "close"},
    )


def too_many_answers(prompts: int, n: int, most: int) -> ApiError:
    """Return the error for a request for too many answers."""
    return bad(
        f"{prompts} prompts with n={n} are {prompts * n} answers; one request may ask for {most}",
        "n" if n > 1 else "prompt",
    )


def _decompressed(data: bytes, limit: int) -> bytes:
    """Decompress a body, no further than to the limit."""
    engine = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip and zlib, by their headers
    try:
        plain = engine.decompress(data, limit + 1)
    except zlib.error as error:
        raise bad(f"the body cannot be decompressed: {error}") from None
    if len(plain) > limit:
        raise too_large(limit)
    if not engine.eof:
        raise bad("the body cannot be decompressed: its end is missing")
    if engine.unused_data:
        raise bad("the body cannot be decompressed: something follows its end")
    return plain


def _check_prompt(prompt: object, limits: BodyLimits) -> None:
    """Refuse too many prompts, or too many tokens in one, by counting."""
    if not isinstance(prompt, list) or not prompt:
        return
    if isinstance(prompt[0], (int, float)):
        prompts = [prompt]
    elif len(prompt) > limits.choices:
        raise too_many_answers(len(prompt), 1, limits.choices)
    else:
        prompts = [it for it in prompt if isinstance(it, list)]
    longest = max(map(len, prompts), default=0)
    if longest > limits.context:
        raise context_exceeded(limits.context, longest)


def _check_counts(body: Mapping[str, Any], path: str, limits: BodyLimits) -> None:
    """Refuse too many values, so that whatever looks at each of them is quick."""
    given = body.get("input")
    if path in ("/v1/embeddings", "/v1/moderations") and isinstance(given, list) and given:
        texts = [given] if isinstance(given[0], (int, float)) else given
        if len(texts) > limits.choices:
            most = limits.choices
            raise bad(f"input has {len(texts)} texts; one request may have {most}", "input")
        longest = max((len(it) for it in texts if isinstance(it, list)), default=0)
        if longest > limits.context:
            raise context_exceeded(limits.context, longest)
    tokens = body.get("tokens")
    most = max(MOST_TOKENS, limits.context)
    if isinstance(tokens, list) and len(tokens) > most:
        raise bad(f"tokens has {len(tokens)} entries; expected {most} or less", "tokens")
    checked = ("prompt", "input", "tokens") if path == "/v1/embeddings" else ("prompt", "tokens")
    counted = (value for name, value in body.items() if name not in checked)
    values = _count(list(counted))
    if values > MOST_VALUES:
        raise bad(f"the body has {values} values or more; expected {MOST_VALUES} or less")


def _count(values: list[Any]) -> int:
    count = 0
    while values and count <= MOST_VALUES:
        count += len(values)
        inner: list[Any] = []
        for value in values:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        values = inner
    return count
