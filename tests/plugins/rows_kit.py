"""Rows and logits for tests of samplers and processors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from llamakit.llama.sampler_choice import choose_sampling
from llamakit.plugin_manager.toolkit import load_toolkit
from llamakit.protocols import LogitsProcessor, Sampler, Tokenizer

TOOLKIT = load_toolkit(disabled="all")
TOKENIZER: Tokenizer = TOOLKIT.load_tokenizer(
    Path(__file__).parents[1] / "data" / "reference-cases" / "tokenizer.model"
)
GONE = -torch.inf


@dataclass
class FakeRow:
    """What a sampler sees of a sequence."""

    generator: torch.Generator
    tokens: list[int] = field(default_factory=lambda: [1])
    prompt_length: int = 1
    stop_tokens: frozenset[int] = frozenset({2})
    state: dict[Any, Any] = field(default_factory=dict)


def rows(count: int, seed: int = 0) -> list[FakeRow]:
    return [FakeRow(torch.Generator().manual_seed(seed + number)) for number in range(count)]


def row(
    tokens: Sequence[int] = (1,), prompt_length: int = 1, *, seed: int = 0, stop: Sequence[int] = ()
) -> FakeRow:
    generator = torch.Generator().manual_seed(seed)
    return FakeRow(generator, list(tokens), prompt_length, frozenset(stop))


def processor(choice: str) -> LogitsProcessor:
    """Build a processor as users write it: ``NAME`` or ``NAME:k=v,k=v``."""
    sampling = choose_sampling(
        sampler="greedy", processors=[choice], toolkit=TOOLKIT, tokenizer=TOKENIZER
    )
    return sampling.processors[0]


def sampler(name: str, *options: str) -> Sampler:
    sampling = choose_sampling(
        sampler=name, sampler_options=options, toolkit=TOOLKIT, tokenizer=TOKENIZER
    )
    return sampling.sampler


@st.composite
def logits(draw: st.DrawFn, min_ids: int = 1, max_ids: int = 40) -> torch.Tensor:
    """Logits ``(B, V)``: some with many ties, some with tokens that are gone, at least one left."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 4))
    ids = draw(st.integers(min_ids, max_ids))
    spread = draw(st.sampled_from([0.1, 1.0, 4.0, 30.0]))
    made = torch.randn(count, ids, generator=generator) * spread
    if step := draw(st.sampled_from([0.0, 0.25, 1.0, 5.0])):
        made = (made / step).round() * step
    share = draw(st.sampled_from([0.0, 0.0, 0.3, 0.9]))
    gone = torch.rand(count, ids, generator=generator) < share
    gone[torch.arange(count), torch.randint(ids, (count,), generator=generator)] = False
    return made.masked_fill(gone, GONE)


def histories(count: int, ids: int) -> st.SearchStrategy[list[list[int]]]:
    """For each of ``count`` rows the tokens so far, all of one length, with many repetitions."""
    return st.integers(1, 30).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(0, min(ids, 6) - 1), min_size=length, max_size=length),
            min_size=count,
            max_size=count,
        )
    )


class ByteTokenizer:
    """A tokenizer with a token for each byte."""

    path, vocab_size, bos_id, eos_id = "bytes", 258, 256, 257

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(it for it in tokens if it < 256).decode(errors="replace")

    def token_bytes(self) -> list[bytes]:
        return [*(bytes([it]) for it in range(256)), b"", b""]
