"""What tests of the engine share: an executor that counts, and ways to ask and collect."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from llamakit.api import Llama, choose_sampling
from llamakit.runtime.executor import Executor
from llamakit.runtime.group import Group
from llamakit.runtime.model import Batch
from llamakit.runtime.scheduler import Event, Request, Scheduler


class Counting(Executor):
    """An executor that writes down every batch."""

    def __init__(self, llama: Llama) -> None:
        super().__init__(llama._executor.model, Group())
        self.batches: list[Batch] = []

    def forward(self, cache: int, batch: Batch) -> torch.Tensor:
        self.batches.append(batch)
        return super().forward(cache, batch)

    @property
    def rows(self) -> list[int]:
        """How many rows each batch had."""
        return [len(batch.tokens) for batch in self.batches]

    @property
    def computed(self) -> int:
        """How many tokens were computed, padding apart."""
        return sum(
            sum(batch.lengths or [len(row) for row in batch.tokens]) for batch in self.batches
        )


def counting(llama: Llama) -> Counting:
    """Have a model count from now on what it computes."""
    executor = Counting(llama)
    llama.forget()
    llama._executor = executor
    llama._prefix_cache._executor = executor
    return executor


def random_tokens(count: int, seed: int = 0) -> list[int]:
    """Return a prompt of so many tokens."""
    chance = random.Random(seed)
    return [1, *(chance.randrange(300, 500) for _ in range(count - 1))]


def request(
    tokens: Sequence[int], new: int, *, seed: int = 1, temperature: float = 0.0, **settings: Any
) -> Request:
    sampling = settings.pop("sampling", None) or choose_sampling(temperature=temperature)
    settings = {"logprobs": True, **settings}
    return Request(tokens, len(tokens) + new, sampling, seed, **settings)


def collect(events: Iterable[Event], count: int) -> tuple[list[list[int]], list[list[float]]]:
    """Return the tokens and the log-probabilities of each request."""
    tokens: list[list[int]] = [[] for _ in range(count)]
    logprobs: list[list[float]] = [[] for _ in range(count)]
    for event in events:
        if event.token is not None:
            tokens[event.index].append(event.token)
            logprobs[event.index].append(event.logprob or 0.0)
    return tokens, logprobs


def answers(
    executor: Executor,
    requests: Sequence[Request],
    *,
    slots: int = 4,
    length: int = 512,
    **settings: Any,
) -> tuple[list[list[int]], list[list[float]]]:
    """Run requests in an engine of their own."""
    generator = Scheduler(executor, slots, 512, **settings)
    found = collect(generator.run(requests), len(requests))
    generator.close()
    return found
