"""The figures of the page about the 70B are those that the code works out."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import ModelParams
from llamakit.examine.memory_estimate import rank_memory

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "70b.md"
SEVENTY = ModelParams(
    dim=8192, n_layers=80, n_heads=64, n_kv_heads=8, vocab_size=32000, hidden_dim=28672
)
ROW = re.compile(r"^\| (2|4|8) \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d.]+) GB \|", re.MULTILINE)


def test_the_memory_of_the_70b_is_what_the_page_says():
    checkpoint = SimpleNamespace(params=SEVENTY, parameters=expected_parameters(SEVENTY, 1))

    rows = ROW.findall(PAGE.read_text("utf-8"))

    assert [row[0] for row in rows] == ["2", "4", "8"]
    for size, *said in rows:
        memory = rank_memory(checkpoint, int(size), "bfloat16", 4096, 8)
        parts = [memory.weights / 1e9, memory.kv_cache / 1e9]
        assert [float(gb) for gb in said] == [round(gb, 1) for gb in (*parts, sum(parts) + 1)]
