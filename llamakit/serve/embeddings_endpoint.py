"""``POST /v1/embeddings``: one vector a string, in OpenAI's format."""

from __future__ import annotations

import base64
import struct
from collections.abc import Hashable, Sequence
from typing import Any

from llamakit.serve.admission import Admission
from llamakit.serve.completion_request import CompletionRequest


async def embed(
    admission: Admission, asked: CompletionRequest, client: Hashable
) -> list[Sequence[float]]:
    """Compute the vector of each choice's prompt."""
    vectors: list[Sequence[float]] = [()] * len(asked.choices)
    completion = admission.submit(asked, client)
    try:
        async for chunk in completion:
            (vectors[chunk.index],) = chunk.observed
    finally:
        admission.release(completion)
    return vectors


def as_openai(
    vectors: Sequence[Sequence[float]], model: str, tokens: int, encoding: str
) -> dict[str, Any]:
    """Return vectors as OpenAI's API does.

    Args:
        tokens: how many the prompts have.
        encoding: ``float`` or ``base64``.
    """
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, encoding)}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _encoded(vector: Sequence[float], encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return list(vector)
