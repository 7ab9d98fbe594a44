"""Models that are run by token IDs alone, on any number of ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.llama.loaded_model import LoadedModel
from llamakit.llama.loading import LoadSpec, load_on_ranks
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.plugin_manager.toolkit import default_toolkit


@dataclass
class NoText:
    """A tokenizer for tests that use no text."""

    path: Path
    vocab_size: int
    bos_id: int = 0
    eos_id: int = 0


@contextlib.contextmanager
def loaded(folder: Path, ranks: int = 1, **settings: Any) -> Iterator[LoadedModel]:
    """Load a checkpoint in float32 on that many ranks."""
    toolkit = default_toolkit()
    checkpoint = toolkit.open_checkpoint(folder)
    spec = LoadSpec(str(folder), "float32", "cpu", **settings)
    executor = load_on_ranks(spec, checkpoint, ranks, led=False, progress=None)
    tokenizer: Any = NoText(folder, checkpoint.params.vocab_size)
    sizes = {"max_seq_len": 2048, "max_batch_size": 4}
    model = LoadedModel(executor, checkpoint, tokenizer, seed=1, toolkit=toolkit, **sizes)
    with model:
        yield model


def greedy(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    count: int,
    stop_tokens: Sequence[int] = (),
    **settings: Any,
) -> tuple[list[list[int]], list[list[float]]]:
    """Continue prompts; return the tokens and their log-probabilities."""
    sampling = choose_sampling(
        temperature=0, top_p=None, toolkit=model.toolkit, tokenizer=model.tokenizer
    )
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    events = model.events(
        prompts,
        sampling,
        seeds=[1] * len(prompts),
        max_new_tokens=count,
        stop_tokens=stop_tokens,
        logprobs=True,
        **settings,
    )
    for event in events:
        if event.token is not None and event.logprob is not None:
            tokens[event.index].append(event.token)
            logprobs[event.index].append(event.logprob)
    return tokens, logprobs


def last_logits(model: LoadedModel, tokens: Sequence[int], chunk: int = 512) -> list[float]:
    """Compute the logits that follow some tokens, in chunks."""
    from llamakit.runtime.cache_slots import CacheSlots

    cache = CacheSlots(model._executor, 1, len(tokens))
    for start in range(0, len(tokens), chunk):
        logits, _ = cache.forward(0, [tokens[start : start + chunk]])
    cache.close()
    values: list[float] = logits[0].tolist()
    return values
