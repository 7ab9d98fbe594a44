"""Folders in compressed-tensors' layout: what others write is read, or refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from lazy_torch import torch
from safetensors.numpy import load_file, save_file

from llamakit.api import export, import_checkpoint, inspect, open_checkpoint, verify
from llamakit.checkpoint.capabilities import quantization
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.model_support import check_loadable
from llamakit.errors import LlamakitError, UnsupportedModelError
from llamakit.plugins.formats import huggingface
from llamakit.testing import check_checkpoint_form

VERDICT = json.loads(
    (Path(__file__).parents[1] / "data" / "compressed-tensors" / "verdict.json").read_text()
)
"""What compressed-tensors and transformers said: see ``benchmarks/compressed_tensors.py``."""
TOKENS = (1, 300, 301, 302, 303)
GATE = "model.layers.0.mlp.gate_proj"
QUERY = "model.layers.1.self_attn.q_proj"


def nothing(_values: dict[str, Any]) -> None:
    """Change nothing."""


@pytest.fixture(scope="session")
def plain(reference_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "hf"
    export(reference_cases / "gqa-mp1", folder)
    return folder


@pytest.fixture
def write(plain: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the plain folder as another tool would: integers and scales by numpy alone."""

    def written(
        bits: int = 8,
        group: int | None = None,
        packed: bool = False,
        change: Callable[[dict[str, Any]], object] = nothing,
        config: Callable[[dict[str, Any]], object] = nothing,
    ) -> Path:
        folder = tmp_path / "others"
        folder.mkdir()
        tensors = load_file(plain / "model.safetensors")
        for name in [name for name in tensors if name.endswith("proj.weight")]:
            tensors |= compressed(name, tensors.pop(name), bits, group, packed)
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        values = json.loads((plain / "config.json").read_text())
        values["quantization_config"] = settings(bits, group, packed)
        config(values["quantization_config"])
        (folder / "config.json").write_text(json.dumps(values))
        return folder

    return written


def settings(bits: int, group: int | None, packed: bool) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "dynamic": False}
    weights |= {"strategy": "group" if group else "channel", "group_size": group}
    weights |= {"actorder": None, "observer": "minmax", "observer_kwargs": {}}
    scheme = {"targets": ["re:.*proj"], "weights": weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized" if packed else "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": ["lm_head"],
    }


def compressed(
    name: str, weight: np.ndarray[Any, Any], bits: int, group: int | None, packed: bool
) -> dict[str, np.ndarray[Any, Any]]:
    rows = weight.astype("float32").reshape(len(weight), -1, group or weight.shape[1])
    scale = (np.abs(rows).max(-1) / (2 ** (bits - 1) - 1)).astype(ml_dtypes.bfloat16)
    integers = np.rint(rows / scale.astype("float32")[..., None])
    integers = integers.clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype("int8")
    integers = integers.reshape(weight.shape)
    if not packed:
        return {name: integers, f"{name}_scale": scale}
    shape = np.array(weight.shape, "int64")
    return {
        f"{name}_packed": pack(integers, bits),
        f"{name}_scale": scale,
        f"{name}_shape": shape,
    }


def pack(integers: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    raised = (integers.astype("int64") + 2 ** (bits - 1)).reshape(len(integers), -1, 32 // bits)
    shifted = raised << np.arange(0, 32, bits)
    return shifted.sum(-1).astype("uint32").view("int32")


def test_the_packing_of_these_tests_is_that_of_compressed_tensors() -> None:
    recorded = VERDICT["int4"]

    assert pack(np.array(recorded["integers"], "int8"), 4).tolist() == recorded["packed"]


@pytest.mark.parametrize(
    ("bits", "group", "packed"),
    [
        (8, None, False),
        (8, 32, False),
        (8, None, True),
        (8, 16, True),
        (4, 32, True),
        (4, None, True),
    ],
)
def test_weights_of_others_are_multiplied_out(
    write: Callable[..., Path], plain: Path, bits: int, group: int | None, packed: bool
) -> None:
    folder = write(bits, group, packed)
    checkpoint, before = open_checkpoint(folder), open_checkpoint(plain)

    check_checkpoint_form(huggingface.open_checkpoint, folder)
    for name, parameter in checkpoint.parameters.items():
        read = read_checked(checkpoint, name).astype("float32")
        kept = before.read(name).astype("float32")
        # Half a step, and bfloat16's rounding of the scale and of the product.
        error = np.abs(kept).max() * (0.5 / (2 ** (bits - 1) - 1) + 2**-7)
        assert np.abs(read - kept).max() <= (error if parameter.dtype == "bfloat16" else 0), name


def test_a_whole_number_with_a_point_is_one(write: Callable[..., Path]) -> None:
    name, folder = "layers.1.attention.wq.weight", write(8, None, True)
    expected = open_checkpoint(folder).read(name)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_bits": 8', '"num_bits": 8.0'))

    read = open_checkpoint(folder).read(name)

    assert "8.0" in config.read_text()
    assert (read == expected).all()


def test_the_values_are_those_of_compressed_tensors(write: Callable[..., Path]) -> None:
    recorded = VERDICT["int4"]
    name = f"{GATE}.weight"

    def store(tensors: dict[str, Any]) -> None:
        tensors[f"{name}_packed"][:4] = np.array(recorded["packed"], "int32")
        tensors[f"{name}_scale"][:4] = np.array(recorded["scale"]).astype(ml_dtypes.bfloat16)

    checkpoint = open_checkpoint(write(4, 32, True, store))

    read = checkpoint.read("layers.0.feed_forward.w1.weight", stop=4)
    assert read.astype("float32").tolist() == recorded["multiplied_out"]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "name", ["layers.1.attention.wq.weight", "layers.0.feed_forward.w2.weight"]
)
def test_slices_are_those_of_the_whole(write: Callable[..., Path], name: str, axis: int) -> None:
    checkpoint = open_checkpoint(write(4, 32, True))

    part = checkpoint.read(name, axis=axis, start=8, stop=24)

    whole = np.take(checkpoint.read(name), range(8, 24), axis)
    assert part.tobytes() == np.ascontiguousarray(whole).tobytes()


def test_a_folder_of_4_bits_runs_and_is_imported_with_a_warning(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(4, 32, True)

    import_checkpoint(folder, tmp_path / "meta", 2)

    imported, source = open_checkpoint(tmp_path / "meta"), open_checkpoint(folder)
    assert "21 in 4 bits, groups of 32" in caplog.text
    assert "written multiplied out" in caplog.text
    for name in source.parameters:
        assert imported.read(name).tobytes() == source.read(name).tobytes()


@pytest.mark.parametrize(
    ("bits", "group", "packed", "change", "said"),
    [
        (
            8,
            None,
            False,
            lambda t: t.pop(f"{GATE}.weight_scale"),
            f"{GATE}.weight_scale is missing",
        ),
        (4, 32, True, lambda t: t.pop(f"{GATE}.weight_shape"), f"{GATE}.weight_shape is missing"),
        (
            4,
            32,
            True,
            lambda t: t.update({f"{GATE}.weight_scale": t[f"{GATE}.weight_scale"][:-1].copy()}),
            f"{GATE}.weight_packed is int32 (192, 8) with scales (191, 2)",
        ),
        (4, 40, True, None, "groups of 40, which does not divide 192 columns"),
        (
            4,
            32,
            True,
            lambda t: t.update({f"{GATE}.weight_shape": np.array([192, 63])}),
            f"{GATE}.weight_shape is not (192, 64)",
        ),
        (
            8,
            None,
            False,
            lambda t: t.update({f"{GATE}.weight_zero_point": np.zeros((192, 1), "int8")}),
            f"{GATE}.weight_zero_point too",
        ),
        (
            8,
            None,
            False,
            lambda t: t.update({f"{GATE}.weight_g_idx": np.zeros(64, "int32")}),
            f"{GATE}.weight_g_idx too",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_inspect_shows_them(
    write: Callable[..., Path],
    bits: int,
    group: int | None,
    packed: bool,
    change: Callable[[dict[str, Any]], object] | None,
    said: str,
) -> None:
    fits = group if change else 32  # 40 is only said, since no tensor can be of it
    folder = write(bits, fits, packed, change or nothing, lambda c: say(c, group))

    with pytest.raises(UnsupportedModelError) as caught:
        check_loadable(open_checkpoint(folder), 1)

    assert said in str(caught.value)
    assert any(said in odd for odd in inspect(folder).oddities)


def say(config: dict[str, Any], group: int | None) -> None:
    config["config_groups"]["group_0"]["weights"]["group_size"] = group


def change_weights(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["config_groups"]["group_0"]["weights"].update(values)


def change_group(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["config_groups"]["group_0"].update(values)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (lambda c: c.update(quant_method="gptq"), "set (to 'gptq')"),
        (lambda c: c.update(quant_method=None), "'quantization_config' is set"),
        (lambda c: c.update(format="float-quantized"), "the format 'float-quantized'"),
        (lambda c: c.update(format="marlin-24"), "the format 'marlin-24'"),
        (lambda c: c.update(kv_cache_scheme={"num_bits": 8}), "a quantized KV cache"),
        (lambda c: c.update(transform_config={"a": 1}), "weights that were rotated"),
        (lambda c: c.update(sparsity_config={"format": "sparse-bitmask"}), "'sparse-bitmask'"),
        (lambda c: c.update(config_groups=[]), "config_groups are absent"),
        (lambda c: c.update(ignore=[GATE]), f"{GATE} is stored quantized, and config.json lists"),
        (change_weights(symmetric=False), "weights of symmetric False"),
        (change_weights(num_bits=3), "weights of num_bits 3"),
        (change_weights(type="float"), "weights of type 'float'"),
        (change_weights(strategy="block"), "weights of strategy 'block'"),
        (change_weights(actorder="group"), "weights of actorder 'group'"),
        (change_weights(strategy="group", group_size=0), "a group_size of 0"),
        (change_group(weights=None), "no description of weights"),
        (change_group(output_activations={"num_bits": 8}), "rounded outputs"),
        (
            change_group(input_activations={"type": "int", "num_bits": 8, "dynamic": False}),
            "input_activations of symmetric None",
        ),
    ],
)
def test_other_schemes_are_refused_by_name_and_shown_by_inspect(
    write: Callable[..., Path],
    tmp_path: Path,
    config: Callable[[dict[str, Any]], object],
    said: str,
) -> None:
    folder = write(config=config)

    for attempt in (
        lambda: check_loadable(open_checkpoint(folder), 1),
        lambda: export(folder, tmp_path / "out", "safetensors"),
        lambda: import_checkpoint(folder, tmp_path / "out"),
    ):
        with pytest.raises(UnsupportedModelError) as caught:
            attempt()
        assert said in str(caught.value)
    assert any(said in odd for odd in inspect(folder).oddities)
    assert not verify(folder, deep=True).good


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf"), -1.0, 2.0**121])
@pytest.mark.parametrize("group", [None, 32])
def test_scales_that_are_none_are_refused_when_they_are_read(
    write: Callable[..., Path], scale: float, group: int | None
) -> None:
    folder = write(8, group, change=lambda t: t[f"{QUERY}.weight_scale"].__setitem__((3, 0), scale))

    with pytest.raises(LlamakitError, match=rf"scale has the scale {re.escape(f'{scale:g}')}"):
        open_checkpoint(folder).read("layers.1.attention.wq.weight")
    assert not verify(folder, deep=True).good


def test_a_number_of_bits_may_be_written_with_a_point(write: Callable[..., Path]) -> None:
    folder = write(4, 32, True)
    expected = open_checkpoint(folder).read("layers.1.attention.wq.weight")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"num_bits": 4', '"num_bits": 4.0'))

    read = open_checkpoint(folder).read("layers.1.attention.wq.weight")

    assert read.tobytes() == expected.tobytes()


def test_activations_are_not_rounded_where_the_config_may_mean_it_of_others(
    write: Callable[..., Path],
) -> None:
    rounds = {"type": "int", "num_bits": 8, "symmetric": True, "dynamic": True}

    def add_group(config: dict[str, Any]) -> None:
        groups = config["config_groups"]
        activations = {"input_activations": rounds | {"strategy": "token"}}
        config["config_groups"] = {"first": groups["group_0"] | activations, **groups}

    assert quantization(open_checkpoint(write(config=add_group))) is None


def test_a_scale_of_zero_is_well_where_all_integers_are(write: Callable[..., Path]) -> None:
    def clear(tensors: dict[str, Any]) -> None:
        tensors[f"{QUERY}.weight"][3] = 0
        tensors[f"{QUERY}.weight_scale"][3] = 0

    checkpoint = open_checkpoint(write(change=clear))

    assert np.isfinite(checkpoint.read("layers.1.attention.wq.weight").astype("float32")).all()


def test_a_stored_output_layer_of_a_tied_model_is_used(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    def store(tensors: dict[str, Any]) -> None:
        tensors |= compressed("lm_head.weight", tensors.pop("lm_head.weight"), 8, None, False)

    folder = write(change=store, config=lambda c: c.update(ignore=[]))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))

    checkpoint = open_checkpoint(folder)

    assert not checkpoint.params.tied_embeddings
    assert checkpoint.parameters["output.weight"].dtype == "bfloat16"
    assert "lm_head.weight is used" in caplog.text


def logits(folder: Path, quantize: str | None = None) -> Any:
    from llamakit.llama.loading import LoadSpec, load_slice
    from llamakit.runtime.group import Group
    from llamakit.runtime.model import Batch

    model = load_slice(LoadSpec(str(folder), "float32", "cpu", quantize), Group()).model
    return model(Batch((TOKENS,), (0,)), model.new_cache(1, 8))[0]


@pytest.mark.parametrize(("scheme", "tolerance"), [("int8", 5e-2), ("int8-weight-only", 1e-4)])
def test_an_export_in_8_bits_is_what_transformers_computes_with(
    reference_cases: Path, tmp_path: Path, scheme: str, tolerance: float
) -> None:
    export(reference_cases / "gqa-mp1", tmp_path / "hf", quantize=scheme)

    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["quantization_config"] == VERDICT[scheme]["config"]
    recorded = torch.tensor(VERDICT[scheme]["logits"])
    found = logits(tmp_path / "hf")[: len(recorded)]
    assert (found - recorded).norm() / recorded.norm() < tolerance


def test_the_integers_of_an_export_are_those_of_quantize(
    reference_cases: Path, tmp_path: Path
) -> None:
    case = reference_cases / "gqa-mp1"
    export(case, tmp_path / "hf", quantize="int8-weight-only", max_shard_size="10KB")

    assert torch.equal(logits(tmp_path / "hf", "int8"), logits(case, "int8"))


def test_what_is_stored_in_8_bits_is_not_rounded_again(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match="what is rounded is not rounded again"):
        export(write(), tmp_path / "out", quantize="int8")
