"""Which device and dtype a name means."""

from __future__ import annotations

import pytest
import torch

from llamakit.errors import UsageError
from llamakit.runtime.device import pick_device, pick_dtype

CPU = torch.device("cpu")


def test_auto_dtype_is_the_checkpoints_or_float32() -> None:
    picked = {name: pick_dtype("auto", name, CPU) for name in ("float32", "bfloat16", "float16")}

    assert picked["float32"] == torch.float32
    assert picked["bfloat16"] in (torch.bfloat16, torch.float32)
    assert picked["float16"] in (torch.float16, torch.float32)


def test_a_dtype_that_is_named_is_taken() -> None:
    assert pick_dtype("float16", "float32", CPU) == torch.float16


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_device_says_so() -> None:
    with pytest.raises(UsageError, match="no CUDA device here; try device cpu"):
        pick_device("cuda")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or mps"):
        pick_device("tpu")
    with pytest.raises(UsageError, match="expected auto"):
        pick_dtype("int3", "float16", CPU)
