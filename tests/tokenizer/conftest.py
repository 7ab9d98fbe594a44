"""Rank files: our own small one, and Meta's where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamakit.tokenizer.rank_file import read_ranks
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.special_tokens import LLAMA_3_1

ROOT = Path(__file__).parents[2]
META = ROOT.parent / "shared" / "reference-cases-llama3" / "meta-tokenizer" / "tokenizer.model"


@pytest.fixture(scope="session")
def rank_file() -> Path:
    """Our own small rank file."""
    return ROOT / "tests" / "data" / "llama3" / "tokenizer.model"


@pytest.fixture(scope="session")
def small(rank_file: Path) -> RankTokenizer:
    """The tokenizer of that file, as Llama 3.1's."""
    return RankTokenizer(rank_file, read_ranks(rank_file), LLAMA_3_1)


@pytest.fixture(scope="session")
def meta() -> RankTokenizer:
    """Meta's tokenizer of Llama 3."""
    if not META.is_file():
        pytest.skip("Meta's tokenizer is not there: it has a license of its own")
    return RankTokenizer(META, read_ranks(META), LLAMA_3_1)
