"""``POST /v1/moderations``: a Llama Guard's verdict on strings, in OpenAI's format."""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from typing import Any

from llamakit.errors import UnsupportedModelError
from llamakit.llama.moderation import Moderation, up_to_unsafe, verdict
from llamakit.protocols import Tokenizer
from llamakit.serve.admission import Admission
from llamakit.serve.api_errors import bad
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.request_parser import RequestParser

THRESHOLD = 0.5
"""The score from which on a text is flagged, if the request names no other."""


async def moderate(
    admission: Admission,
    parser: RequestParser,
    tokenizer: Tokenizer,
    asked: CompletionRequest,
    client: Hashable,
) -> list[Moderation]:
    """Ask the model, then score "unsafe" where each answer's first word is.

    Raises:
        ApiError: the model is no Llama Guard, or cannot answer.
    """
    prompts = [list(choice.tokens) for choice in asked.choices]
    answers, _ = await _collect(admission, asked, client)
    begun = [
        up_to_unsafe(tokenizer, prompt, answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    _, scores = await _collect(admission, parser.scored(begun), client)
    try:
        return [
            verdict(tokenizer, answer, score) for answer, score in zip(answers, scores, strict=True)
        ]
    except UnsupportedModelError as error:
        raise bad(str(error)) from error


async def _collect(
    admission: Admission, request: CompletionRequest, client: Hashable
) -> tuple[list[list[int]], list[list[float]]]:
    """Return the tokens of each choice's answer, and the log-probabilities of its prompt."""
    tokens: list[list[int]] = [[] for _ in request.choices]
    logprobs: list[list[float]] = [[] for _ in request.choices]
    completion = admission.submit(request, client)
    try:
        async for chunk in completion:
            logprobs[chunk.index] += chunk.prompt_logprobs or ()
            if chunk.token is not None:
                tokens[chunk.index].append(chunk.token)
    finally:
        admission.release(completion)
    return tokens, logprobs


def as_openai(verdicts: list[Moderation], model: str, threshold: float | None) -> dict[str, Any]:
    """Return verdicts as OpenAI's API does; the categories are those that the model named.

    Args:
        threshold: None is ``THRESHOLD``.
    """
    threshold = THRESHOLD if threshold is None else threshold
    return {
        "id": f"modr-{secrets.token_hex(12)}",
        "model": model,
        "results": [
            {
                "flagged": it.score >= threshold,
                "score": it.score,
                "categories": dict.fromkeys(it.categories, True),
                "category_scores": dict.fromkeys(it.categories, it.score),
                "text": it.text,
            }
            for it in verdicts
        ],
    }
