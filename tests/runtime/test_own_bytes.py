"""Each rank reads its own slices and nothing else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from llamakit import open_checkpoint
from llamakit.checkpoint.shard_plan import slice_for_rank
from llamakit.runtime.loader import load


@pytest.mark.parametrize(
    ("case", "ranks"),
    [("llama3-gqa-mp1", 4), ("llama31-mp8", 2), ("llama31-mp8", 16), ("llama4-moe-mp2", 4)],
)
def test_a_rank_of_llama_3_and_4_reads_its_slices_only(
    case: str, ranks: int, reference_cases_llama3: Path
) -> None:
    for rank in {0, ranks - 1}:
        checkpoint = open_checkpoint(reference_cases_llama3 / case)

        load(checkpoint, rank=rank, size=ranks, dtype=torch.float32, device=torch.device("cpu"))

        expected = 0
        for parameter in checkpoint.parameters.values():
            part = slice_for_rank(parameter, checkpoint.params, rank, ranks)
            rest = math.prod(parameter.shape) // parameter.shape[part.axis]
            expected += 2 * rest * (part.stop - part.start)  # bytes of bfloat16
        assert checkpoint.nbytes_read == expected
