"""The formula of the page about scale, against what was measured and what is certain."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
import scale


@pytest.mark.parametrize("row", scale.MEASURED, ids=lambda row: row.name)
def test_the_formula_bounds_what_was_measured_and_is_near_it(row: scale.Measured) -> None:
    assert 0.6 < row.speed / row.formula < 1.05


def test_the_measured_rows_are_those_of_the_benchmarks_page() -> None:
    page = (Path(scale.__file__).parent / "benchmarks.md").read_text()

    for row in scale.MEASURED:
        assert f"| {row.speed:.4g} (" in page, row.name


def test_a_step_reads_every_weight_of_a_rank_once() -> None:
    device = replace(scale.H100, read=1.0, latency=0.0)
    params = scale.MODELS["8B"]

    whole = scale.step(params, device, 1, 1, 1).weights
    eighth = scale.step(params, device, 8, 1, 1).weights

    assert whole == 2 * (8_030_261_248 - 128256 * 4096)  # bytes; Llama 3 8B's count of parameters
    norms = 2 * (2 * 32 + 1) * 4096
    assert eighth == (whole - norms) / 8 + norms


def test_the_cache_of_a_rank_stops_shrinking_at_the_key_value_heads() -> None:
    params = scale.MODELS["405B"]

    held = [scale.memory_of(params, size, 1, 8192).kv_cache for size in (1, 2, 8, 16, 64)]

    assert [held[0] // it for it in held] == [1, 2, 8, 8, 8]
    assert held[0] == 2 * 126 * 8 * 128 * 2 * 8192


def test_messages_cost_nothing_on_one_rank_and_more_on_a_second_host() -> None:
    steps = [scale.step(scale.MODELS["8B"], scale.H100, size, 1, 8192) for size in (1, 8, 16)]

    assert steps[0].messages == 0
    assert steps[1].messages < steps[2].messages
    assert steps[2].limit == "messages"
