"""What ``llamakit quantize`` stores is what ``--quantize`` computes with, on any ranks."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from lazy_torch import torch
from safetensors.numpy import load_file, save_file

from llamakit.api import export, inspect, open_checkpoint, plan_quantize, quantize, reshard, verify
from llamakit.checkpoint.model_support import check_loadable
from llamakit.checkpoint.quantized_checkpoint import open_quantized
from llamakit.checkpoint.rounding import round_int4, round_int8
from llamakit.errors import (
    DamagedFileError,
    LlamakitError,
    ParametersError,
    UnsupportedModelError,
    UsageError,
)
from llamakit.plugins.formats import quantized as plugin
from llamakit.testing import check_checkpoint_form

BITS = ("int8", "int4")
WQ = "layers.0.attention.wq.weight"


@pytest.fixture(scope="session")
def case(reference_cases: Path) -> Path:
    return reference_cases / "gqa-mp1"


@pytest.fixture(scope="session")
def stored(case: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder in 8 bits and one in 4, made once."""
    root = tmp_path_factory.mktemp("stored")
    for bits in BITS:
        quantize(case, root / bits, bits)
    return {bits: root / bits for bits in BITS}


@pytest.fixture
def copy(stored: dict[str, Path], tmp_path: Path) -> Path:
    """The folder in 8 bits, to be changed."""
    folder = shutil.copytree(stored["int8"], tmp_path / "copy")
    (folder / "checklist.chk").unlink()
    return folder


def change(folder: Path, tensor: str, edit: Callable[[Any], Any]) -> None:
    """Replace a tensor by what ``edit`` returns; None leaves it out."""
    places = json.loads((folder / "quantization.json").read_text())["weight_map"]
    file = folder / places[tensor]
    tensors = load_file(file)
    edited = edit(tensors.pop(tensor))
    save_file(tensors | ({} if edited is None else {tensor: edited}), file, {"format": "pt"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_numpy_rounds_to_the_same_bits_as_the_kernels(dtype: str) -> None:
    from llamakit.runtime.kernels.rounded import to_int4, to_int8

    generator = torch.Generator().manual_seed(1)
    weight = (
        torch.randn(300, 96, generator=generator) * torch.rand(300, 1, generator=generator) ** 9
    )
    weight[7] = 0
    weight[8, 3:] *= 1e-20
    held = weight.to(getattr(torch, dtype))
    bits = held.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if dtype == "bfloat16" else None
    array = held.numpy() if bits is None else bits

    in_8, in_4 = round_int8(array), round_int4(array)

    values, scale = to_int8(held)
    assert (in_8.values == values.numpy()).all()
    assert in_8.scales.tobytes() == scale.numpy().tobytes()
    values, scales = to_int4(held)
    assert (in_4.values == (values[:, ::2] | values[:, 1::2] << 4).numpy()).all()
    expected = scales.transpose(0, 1).contiguous().view(torch.int16).numpy()
    assert in_4.scales.tobytes() == expected.tobytes()


def kernels(folder: Path, rank: int, size: int, bits: str | None) -> list[Any]:
    """Load the slice of a rank, and return what each of its kernels makes of the same input."""
    from llamakit.runtime.kernels.choice import Packer
    from llamakit.runtime.kernels.kernel import Kernel
    from llamakit.runtime.loader import load

    device, dtype = torch.device("cpu"), torch.bfloat16
    packer = Packer(device, dtype, bits)
    checkpoint = open_checkpoint(folder)
    model = load(checkpoint, rank=rank, size=size, dtype=dtype, device=device, packer=packer)
    return [
        module(torch.linspace(-1, 1, width, dtype=dtype))
        for name, module in model.named_modules()
        if isinstance(module, Kernel) and (width := _inputs(name, checkpoint.params, size))
    ]


def _inputs(name: str, params: Any, size: int) -> int:
    part = [part for part in name.split(".") if part not in ("inner",)][-1]
    return {"w2": params.hidden_dim // size, "wo": params.dim // size}.get(part, params.dim)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("name", "size"), [("gqa-mp1", 1), ("gqa-mp1", 4), ("llama3-gqa-mp1", 2)])
def test_every_rank_computes_as_with_quantize_bit_for_bit(
    reference_cases: Path,
    reference_cases_llama3: Path,
    tmp_path: Path,
    name: str,
    size: int,
    bits: str,
) -> None:
    cases = {folder.name: folder for folder in reference_cases.iterdir()}
    cases |= {folder.name: folder for folder in reference_cases_llama3.iterdir()}
    quantize(cases[name], tmp_path / "out", bits)

    found = kernels(tmp_path / "out", size - 1, size, None)
    expected = kernels(cases[name], size - 1, size, bits)
    assert len(found) == len(expected) > 4
    assert all(map(torch.equal, found, expected))


def test_ranks_round_columns_by_the_scales_of_whole_rows(case: Path) -> None:
    from llamakit.checkpoint.shard_plan import slice_for_rank
    from llamakit.runtime.stored_weights import round_slice

    checkpoint = open_checkpoint(case)
    parameter = checkpoint.parameters["layers.0.feed_forward.w2.weight"]
    where = slice_for_rank(parameter, checkpoint.params, 1, 4)

    rounded = round_slice(checkpoint, parameter, where)

    whole = round_int8(checkpoint.read(parameter.name))
    assert (rounded.values.numpy() == whole.values[:, where.start : where.stop]).all()
    assert (rounded.scales.numpy() == whole.scales).all()


@pytest.mark.parametrize("bits", BITS)
def test_a_folder_is_what_its_plan_says_and_verifies(
    stored: dict[str, Path], case: Path, tmp_path: Path, bits: str
) -> None:
    plan = plan_quantize(case, tmp_path / "out", bits)

    sizes = {file.name: file.stat().st_size for file in stored[bits].iterdir()}
    assert plan.files == sizes
    (report,) = verify(stored[bits], deep=True).folders
    assert report.good
    assert "the scales of 22 weights are positive numbers" in report.checked
    inspection = inspect(stored[bits])
    assert inspection.good
    assert inspection.dtypes[bits] == {"int8": 22, "int4": 21}[bits]
    assert inspection.memory[0].weights < inspect(case).memory[0].weights


@pytest.mark.parametrize("bits", BITS)
def test_the_format_keeps_the_contract_of_checkpoints(stored: dict[str, Path], bits: str) -> None:
    check_checkpoint_form(plugin.open_checkpoint, stored[bits])


@pytest.mark.parametrize("bits", BITS)
def test_conversions_multiply_out_with_a_warning_and_change_no_value(
    stored: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, bits: str
) -> None:
    with caplog.at_level(logging.WARNING):
        reshard(stored[bits], tmp_path / "meta", 2)
        export(tmp_path / "meta", tmp_path / "hf")

    source = open_checkpoint(stored[bits])
    assert "their values are written multiplied out" in caplog.text
    assert f" {bits}" in caplog.text
    for folder in ("meta", "hf"):
        made = open_checkpoint(tmp_path / folder)
        for name in source.parameters:
            assert made.read(name).tobytes() == source.read(name).tobytes()
    config = json.loads((tmp_path / "hf" / "config.json").read_text("utf-8"))
    assert config["dtype"] == "float32"  # what loads it rounds nothing


def test_tied_embeddings_stay_and_their_output_layer_is_rounded(tmp_path: Path, case: Path) -> None:
    export(case, tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))

    quantize(tmp_path / "hf", tmp_path / "out", "int8")

    checkpoint = open_quantized(tmp_path / "out")
    assert checkpoint is not None
    assert checkpoint.params.tied_embeddings
    assert "output.weight" not in checkpoint.parameters
    for size in (1, 2):
        found = kernels(tmp_path / "out", 0, size, None)
        assert all(map(torch.equal, found, kernels(tmp_path / "hf", 0, size, "int8")))
    assert not inspect(tmp_path / "out").faults


def test_a_stored_quantization_is_the_default_and_no_other_is_taken(
    stored: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(stored["int8"])

    check_loadable(checkpoint, 1, quantize="int8")

    with pytest.raises(UsageError, match="are stored in int8"):
        check_loadable(checkpoint, 1, quantize="int4")
    with pytest.raises(UnsupportedModelError, match="what is rounded is not rounded again"):
        quantize(checkpoint, tmp_path / "again", "int8")


def test_what_cannot_be_rounded_is_refused_and_leaves_nothing(
    case: Path, reference_cases_llama3: Path, tmp_path: Path
) -> None:
    export(case, tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = np.nan
    save_file(tensors, tmp_path / "hf" / "model.safetensors", {"format": "pt"})

    for bits in BITS:
        with pytest.raises(
            UnsupportedModelError, match=r"layers\.1\.feed_forward\.w3\.weight has NaN"
        ):
            quantize(tmp_path / "hf", tmp_path / "out", bits)
    with pytest.raises(UnsupportedModelError, match="Llama 4"):
        quantize(reference_cases_llama3 / "llama4-moe-mp2", tmp_path / "out", "int8")
    with pytest.raises(UsageError, match="bits is 'int3'; expected int8 or int4"):
        quantize(case, tmp_path / "out", "int3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize(
    ("tensor", "edit", "error", "said"),
    [
        (f"{WQ}_scale", lambda _: None, LlamakitError, f"no {WQ}_scale"),
        (f"{WQ}_scale", lambda t: t[:-1].copy(), ParametersError, "float32 (63,); expected"),
        (f"{WQ}_scale", lambda t: t.astype("float64"), ParametersError, "float64 (64,)"),
        (WQ, lambda t: t[:, :-1].copy(), ParametersError, "int8 (64, 63); expected"),
        (WQ, lambda t: t.astype("float32"), ParametersError, "float32 (64, 64)"),
        ("norm.weight", lambda t: t[:-1].copy(), ParametersError, "norm.weight is"),
    ],
)
def test_tensors_that_are_missing_or_do_not_fit_are_named(
    copy: Path, tensor: str, edit: Callable[[Any], Any], error: type[Exception], said: str
) -> None:
    change(copy, tensor, edit)

    with pytest.raises(error) as caught:
        open_checkpoint(copy)

    assert said in str(caught.value)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_no_rounding_gives_are_refused(copy: Path, scale: float) -> None:
    def edit(scales: Any) -> Any:
        scales[9] = scale
        return scales

    change(copy, f"{WQ}_scale", edit)

    with pytest.raises(DamagedFileError, match=f"{WQ}_scale: a scale of row 9 is zero, negative"):
        open_checkpoint(copy).read(WQ)
    (report,) = verify(copy, deep=True).folders
    assert any("row 9" in fault for fault in report.faults)


@pytest.mark.parametrize(
    "values",
    [
        {"version": 2},
        {"quantize": "int3"},
        {"embedding_axis": 2},
        {"family": "llama 9"},
        {"family": {}},
    ],
)
def test_a_marker_of_another_llamakit_is_refused(copy: Path, values: dict[str, object]) -> None:
    marker = json.loads((copy / "quantization.json").read_text())
    (copy / "quantization.json").write_text(json.dumps(marker | values))

    with pytest.raises(LlamakitError, match=r"quantization\.json is not of version 1"):
        open_checkpoint(copy)


def test_the_command_plans_and_writes(
    run_llamakit: Callable[..., Any], case: Path, stored: dict[str, Path], tmp_path: Path
) -> None:
    planned = run_llamakit("quantize", case, "out", "--bits", "int4", "--plan", "--json")
    assert not (tmp_path / "out").exists()
    written = run_llamakit("quantize", case, "out", "--bits", "int4", "--json")

    assert json.loads(planned.stdout)["nbytes"] == json.loads(written.stdout)["nbytes"]
    files = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert files == {file.name: file.read_bytes() for file in stored["int4"].iterdir()}
