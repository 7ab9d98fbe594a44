"""Weights that are no plain numbers are refused by name wherever something computes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lazy_torch import torch
from safetensors.numpy import load_file, save_file

from llamakit import Llama
from llamakit.api import export, import_checkpoint, inspect, verify
from llamakit.checkpoint.plain_weights import describe_quantized
from llamakit.errors import UnsupportedModelError

MATRIX = "layers.0.feed_forward.w1.weight"
HF_MATRIX = "model.layers.0.mlp.gate_proj.weight"


def change_meta(folder: Path, dtype: str, **more: object) -> Path:
    """Store one matrix as another dtype, and tensors more."""
    file = folder / "consolidated.00.pth"
    tensors = torch.load(file)
    tensors[MATRIX] = (tensors[MATRIX].float() * 10).to(getattr(torch, dtype))
    torch.save(tensors | more, file)
    return folder


def change_hf(folder: Path, dtype: str, **more: object) -> Path:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[HF_MATRIX] = (tensors[HF_MATRIX].astype("float32") * 10).astype(dtype)
    save_file(tensors | more, file, {"format": "pt"})
    return folder


def assert_refused(folder: Path, *said: str) -> None:
    """Check that nothing computes with a checkpoint, and that each says why."""
    attempts = {
        "generate": lambda: Llama.open(folder),
        "export": lambda: export(folder, folder.parent / "out", "safetensors"),
        "import": lambda: import_checkpoint(folder, folder.parent / "out"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(UnsupportedModelError) as caught:
            attempt()
        assert all(words in str(caught.value) for words in said), name
    assert not (folder.parent / "out").exists()


@pytest.mark.parametrize(
    ("dtype", "seems"),
    [
        ("uint8", "8-bit integers, or 4-bit ones in pairs, without the scales"),
        ("int8", "8-bit integers"),
        ("int16", "the bits of bfloat16"),
        ("int32", "4-bit integers packed into larger ones"),
        ("int64", "indices"),
        ("bool", "a mask"),
        ("complex64", "complex numbers"),
        ("float8_e4m3fn", "float8 without the scales"),
        ("float8_e4m3fnuz", "float8 without the scales"),
        ("float8_e5m2", "float8 without the scales"),
        ("float8_e5m2fnuz", "float8 without the scales"),
        ("float8_e8m0fnu", "float8 without the scales"),
    ],
)
def test_case_06_one_matrix_of_metas_format_is_no_plain_number(
    meta: Path, dtype: str, seems: str
) -> None:
    change_meta(meta, dtype)

    assert_refused(meta, f"{MATRIX} is {dtype}: it seems to be", seems)
    assert any(f"{MATRIX} is {dtype}" in odd for odd in inspect(meta).oddities)
    assert inspect(meta).good
    (report,) = verify(meta, deep=True).folders
    assert any(f"{MATRIX} is {dtype}" in fault for fault in report.faults)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_case_06_one_matrix_of_hugging_faces_format_is_no_plain_number(
    hf: Path, dtype: str
) -> None:
    change_hf(hf, dtype)

    assert_refused(hf, f"{MATRIX} is {dtype}: it seems to be 8-bit integers")
    assert any(f"{MATRIX} is {dtype}" in odd for odd in inspect(hf).oddities)
    (report,) = verify(hf, deep=True).folders
    assert any(f"{MATRIX} is {dtype}" in fault for fault in report.faults)


def test_case_06_scales_beside_metas_integers_name_the_tool(meta: Path) -> None:
    change_meta(meta, "int8", **{MATRIX.replace("weight", "scales"): torch.ones(192)})

    assert_refused(meta, f"{MATRIX} is int8: layers.0.feed_forward.w1.scales is stored too")


@pytest.mark.parametrize(
    ("suffix", "tool"),
    [
        ("qweight", "GPTQ or AWQ"),
        ("weight_scale", "llm-compressor"),
        ("weight.absmax", "bitsandbytes with 4 bits"),
        ("SCB", "bitsandbytes with 8 bits"),
    ],
)
def test_case_06_scales_in_a_hugging_face_folder_name_the_tool(
    hf: Path, suffix: str, tool: str
) -> None:
    name = HF_MATRIX.replace("weight", suffix)
    change_hf(hf, "int8", **{name: np.ones(4, "float32")})

    assert_refused(hf, f"{name} is stored too, as {tool}")
    assert any(f"{name} is stored too" in odd for odd in inspect(hf).oddities)
    assert inspect(hf).good


def test_a_table_of_rotations_may_be_of_any_dtype() -> None:
    assert describe_quantized({"rope.freqs": "complex64", "norm.weight": "float32"}) == ""


@pytest.mark.parametrize("name", ["layers.0.sa_norm.scale", "norm.scale", "norm.weight"])
def test_the_scale_of_a_norm_is_no_sign_of_quantization(name: str) -> None:
    assert describe_quantized({name: "float32"}) == ""
