"""The compiled decoding step, captured as on a GPU but run without its code generator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from other_user import OTHER, as_user, sticky

from llamakit.api import open_checkpoint
from llamakit.runtime.compiled_decoder import (
    CACHE_VARIABLE,
    CompiledDecoder,
    install,
    padded,
    use_private_cache,
    visible,
)
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.loader import load
from llamakit.runtime.model import Batch, Transformer

__all__ = ["sticky"]

CPU = torch.device("cpu")


def model_of(cases: Path, quantize: str | None = None) -> Transformer:
    packer = Packer(CPU, torch.float32, quantize, traceable=True)
    checkpoint = open_checkpoint(cases / "gqa-mp1")
    return load(checkpoint, dtype=torch.float32, device=CPU, packer=packer)


def counting_backend() -> Any:
    """Return a fresh counter of captured graphs; importing TorchDynamo takes two seconds."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    return CompileCounterWithBackend("aot_eager")


def decode(model: Transformer, rows: int, slots: int, steps: int) -> torch.Tensor:
    """Prefill rows of different lengths and decode; return all logits, ``(steps, B, V)``."""
    cache = model.new_cache(slots, 600)
    lengths = [250 - 3 * row for row in range(rows)]
    for row, length in enumerate(lengths):
        model(Batch((tuple(range(1, 1 + length)),), (0,), row), cache)
    found = []
    for step in range(steps):
        batch = Batch(tuple((7 + row,) for row in range(rows)), tuple(it + step for it in lengths))
        found.append(model(batch, cache))
    return torch.stack(found)


@pytest.mark.parametrize(("rows", "quantize"), [(1, None), (3, "int8")])
def test_compiled_steps_give_the_same_logits_and_a_conversation_compiles_few_shapes(
    reference_cases: Path, rows: int, quantize: str | None
) -> None:
    model = model_of(reference_cases, quantize)
    plain = decode(model, rows, 3, 12)
    counter = counting_backend()
    model.decoder = CompiledDecoder(model, backend=counter)

    compiled = decode(model, rows, 3, 12)

    assert compiled.sub(plain).abs().max() < 1e-4
    assert counter.frame_count == 2  # 256 positions, then 512


@pytest.mark.parametrize("kv_cache", [None, "int8"])
def test_a_batch_is_padded_and_the_slots_after_it_keep_what_they_hold(
    reference_cases: Path, kv_cache: str | None
) -> None:
    model = model_of(reference_cases)
    model.kv_cache = kv_cache
    plain = decode(model, 3, 8, 2)
    model.decoder = CompiledDecoder(model, backend=counting_backend())
    cache = model.new_cache(8, 64)
    model(Batch(tuple((1, 2 + row, 3) for row in range(4)), (0,) * 4), cache)
    held = [it[:, 3].clone() for it in cache.tensors]

    model(Batch(((5,), (6,), (7,)), (3,) * 3), cache)

    assert all(torch.equal(it[:, 3], was) for it, was in zip(cache.tensors, held, strict=True))
    assert decode(model, 3, 8, 2).sub(plain).abs().max() < 1e-4


def test_batches_of_different_sizes_compile_few_shapes(reference_cases: Path) -> None:
    model = model_of(reference_cases)
    counter = counting_backend()
    model.decoder = CompiledDecoder(model, backend=counter)

    for rows in (1, 2, 3, 4, 5, 6):
        decode(model, rows, 6, 1)

    assert [padded(rows, 6) for rows in (1, 2, 3, 4, 5, 6)] == [1, 2, 4, 4, 6, 6]
    assert counter.frame_count == 4


def test_nothing_is_compiled_before_it_pays(reference_cases: Path) -> None:
    model = model_of(reference_cases)
    counter = counting_backend()
    model.decoder = CompiledDecoder(model, patience=3600, backend=counter)

    decode(model, 1, 1, 3)
    before = counter.frame_count
    model.decoder.spend(3600)
    decode(model, 1, 1, 1)

    assert before == 0
    assert counter.frame_count == 1


def test_without_a_compiler_the_step_is_not_compiled(
    reference_cases: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    model = model_of(reference_cases)

    install(model, wanted=True)

    assert model.decoder is None
    assert "no C++ compiler found" in caplog.text


@pytest.mark.parametrize("planted", [None, "mkdir", "link"])
def test_what_is_compiled_is_kept_where_no_other_user_can_plant_code(
    planted: str | None, sticky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch unpickles what it finds in its cache."""
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(sticky))
    folder = sticky / f"llamakit-torch-{os.geteuid()}"
    if planted == "mkdir":
        as_user(OTHER, lambda: folder.mkdir() or folder.chmod(0o777))
    elif planted == "link":
        as_user(OTHER, lambda: folder.symlink_to("/tmp"))

    use_private_cache()

    used = Path(os.environ.pop(CACHE_VARIABLE))
    assert used.parent == sticky
    assert (used == folder) is (planted is None)
    assert used.lstat().st_uid == os.geteuid()
    assert used.lstat().st_mode & 0o777 == 0o700


def test_the_number_of_positions_looked_at_is_a_power_of_two_within_the_cache() -> None:
    assert [visible(stop, 600) for stop in (1, 256, 257, 512, 513, 600)] == [
        256,
        256,
        512,
        512,
        600,
        600,
    ]
