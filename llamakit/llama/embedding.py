"""Embeddings: one vector of each string, made of the model's last hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llamakit.errors import PromptError, PromptTooLongError, UsageError
from llamakit.llama.prompt_checks import check_prompts
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.plugin_manager.factories import Choice

if TYPE_CHECKING:
    from llamakit.llama.llama import Llama
    from llamakit.runtime.requests import Request

OBSERVER = "embedding"
"""The observer that pools the hidden states."""
POOLINGS = ("mean", "last")


def embed(llama: Llama, texts: Sequence[str], *, pooling: str = "mean") -> list[list[float]]:
    """Return a vector of unit length for each text: what the model makes of it.

    Args:
        pooling: ``mean`` of the last hidden states of all tokens, or that of the ``last`` token.
    Returns:
        For each text ``dim`` numbers.

    Raises:
        UsageError: another pooling.
        PromptTooLongError: a string does not fit into the context.
        PromptError: one of them is no string, or has tokens that the model lacks.
    """
    return list(embeddings(llama, texts, pooling))


def embeddings(llama: Llama, texts: Sequence[str], pooling: str) -> Iterator[list[float]]:
    """Yield the vectors of ``embed`` in the order of the texts, as they are ready."""
    check_prompts(texts)
    requests = [
        request(llama, llama.tokenizer.encode(text, bos=True), pooling, number)
        for number, text in enumerate(texts, start=1)
    ]
    ready: dict[int, list[float]] = {}
    yielded = 0
    for event in llama.run(requests):
        (ready[event.index],) = event.observed
        while yielded in ready:
            yield list(ready.pop(yielded))
            yielded += 1


def request(llama: Llama, tokens: Sequence[int], pooling: str, number: int = 1) -> Request:
    """Return the request for the vector of some tokens. Raises as ``embed``.

    Args:
        number: which text it is, from 1.
    """
    from llamakit.runtime.requests import Request

    if pooling not in POOLINGS:
        raise UsageError(f"the pooling is {pooling!r}; it has to be {' or '.join(POOLINGS)}")
    context, vocabulary = llama.max_seq_len, llama.checkpoint.params.vocab_size
    if len(tokens) > context:
        raise PromptTooLongError(
            f"text {number} has {len(tokens)} tokens and the context holds {context}: shorten it"
        )
    if not tokens or max(tokens) >= vocabulary:
        raise PromptError(
            f"text {number} has {'a token that the model lacks' if tokens else 'no tokens'}"
        )
    greedy = choose_sampling(temperature=0, toolkit=llama.toolkit, tokenizer=llama.tokenizer)
    observers = llama.observers([Choice(OBSERVER, {"pooling": pooling})])
    return Request(tokens, len(tokens), greedy, 0, prompt_only=True, observers=observers)
