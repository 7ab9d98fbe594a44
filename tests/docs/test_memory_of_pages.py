"""The figures of the pages about the 70B and the 405B are those that the code works out."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import ModelParams
from llamakit.examine.memory_estimate import rank_memory

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
SEVENTY = ModelParams(
    dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, vocab_size=32000, hidden_dim=28672
)
FOUR_HUNDRED = ModelParams(
    dim=16384,
    n_layers=126,
    n_heads=128,
    n_kv_heads=8,
    vocab_size=128256,
    hidden_dim=53248,
    rope_theta=5e5,
    use_scaled_rope=True,
)


def rows_of(page: str, columns: int) -> list[list[str]]:
    """Return the rows of the table of memory: how many ranks, then GB."""
    cells = r" ([\d.]+) GB[^|]*\|" * columns
    return [
        list(row) for row in re.findall(rf"(?m)^\| (\d+) \|{cells}", (PAGES / page).read_text())
    ]


def test_the_memory_of_the_70b_is_what_the_page_says() -> None:
    checkpoint: Any = SimpleNamespace(params=SEVENTY, parameters=expected_parameters(SEVENTY, 1))

    rows = rows_of("70b.md", 3)

    assert [row[0] for row in rows] == ["2", "4", "8"]
    for size, *printed in rows:
        memory = rank_memory(checkpoint, int(size), "bfloat16", 4096, 8)
        parts = [memory.weights / 1e9, memory.kv_cache / 1e9]
        assert [float(it) for it in printed] == [round(it, 1) for it in (*parts, sum(parts) + 1)]


def test_the_memory_of_the_405b_is_what_the_page_says() -> None:
    parameters = expected_parameters(FOUR_HUNDRED, 0)
    checkpoint: Any = SimpleNamespace(params=FOUR_HUNDRED, parameters=parameters)

    rows = rows_of("405b.md", 4)

    assert [row[0] for row in rows] == ["8", "16", "32"]
    for size, weights, many, one, most in rows:
        memory = rank_memory(checkpoint, int(size), "bfloat16", 8192, 8)
        long = rank_memory(checkpoint, int(size), "bfloat16", 131072, 1)
        assert float(weights) == round(memory.weights / 1e9, 1)
        assert float(many) == round(memory.kv_cache / 1e9, 1)
        assert float(one) == round(long.kv_cache / 1e9, 1)
        assert float(most) == round((long.weights + long.kv_cache) / 1e9 + 2, 1)
