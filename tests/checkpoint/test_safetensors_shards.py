"""Meta's shards in .safetensors, as export writes them, open as Meta's format does."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from lazy_torch import needs_torch, torch

import llamakit
from llamakit.errors import MissingShardError


@pytest.fixture
def exported(reference_cases: Path, tmp_path: Path) -> Path:
    llamakit.export(reference_cases / "mha-mp8", tmp_path / "exported", "safetensors")
    return tmp_path / "exported"


def test_they_open_and_hold_the_same_bytes(exported: Path, reference_cases: Path) -> None:
    checkpoint = llamakit.open_checkpoint(exported)

    assert checkpoint.form == "meta"
    assert llamakit.diff(checkpoint, reference_cases / "mha-mp8").same


def test_they_reshard_and_come_back(exported: Path, reference_cases: Path, tmp_path: Path) -> None:
    llamakit.reshard(exported, tmp_path / "two", 2)

    assert llamakit.diff(tmp_path / "two", reference_cases / "mha-mp8").same


def test_a_missing_one_is_named(exported: Path) -> None:
    (exported / "consolidated.03.safetensors").unlink()

    with pytest.raises(MissingShardError, match=r"consolidated\.03\.safetensors"):
        llamakit.open_checkpoint(exported)


@needs_torch
@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_an_array_becomes_a_tensor_of_the_same_values(dtype: type) -> None:
    array = np.array([[1.5, -2.0], [0.0, 3.0]], dtype=dtype)

    tensor = llamakit.to_torch(array)

    assert str(tensor.dtype) == f"torch.{array.dtype.name}"
    assert torch.equal(tensor.float(), torch.tensor([[1.5, -2.0], [0.0, 3.0]]))


@needs_torch
def test_an_array_that_cannot_be_written_to_is_copied() -> None:
    array = np.array([1.5, -2.0], dtype=np.float32)
    array.flags.writeable = False

    tensor = llamakit.to_torch(array)
    tensor += 1

    assert tensor.tolist() == [2.5, -1.0]
    assert array.tolist() == [1.5, -2.0]
