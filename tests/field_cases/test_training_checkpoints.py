"""Training checkpoints say what is in them, and their weights are imported; nothing is run."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lazy_torch import torch

from llamakit.api import diff, import_checkpoint, open_checkpoint, open_for_import, verify
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.tensor_names import _TORCHTUNE
from llamakit.errors import (
    LlamakitError,
    MissingShardError,
    ParametersError,
    ParamsError,
    UnsafePickleError,
)

SHARD = "consolidated.00.pth"
OPTIMIZER = {"state": {0: {"step": 1.0}}, "param_groups": [{"lr": 3e-4, "params": [0, 1]}]}


@pytest.fixture
def weights(reference_cases: Path) -> dict[str, object]:
    return torch.load(reference_cases / "gqa-mp1" / SHARD)


@pytest.fixture
def whole(reference_cases: Path) -> Path:
    return reference_cases / "gqa-mp1"


def beside(kind: str) -> dict[str, object]:
    """Return what is beside the weights in a file."""
    return {
        "an optimizer": {"optimizer": OPTIMIZER, "iter_num": 5},
        "a Namespace": {"args": argparse.Namespace(lr=1.0)},
        "a numpy number": {"best_val_loss": np.float64(1.5)},
        "a numpy array": {"losses": np.zeros(3)},
        "a whole module": {"head": torch.nn.Linear(2, 2)},
        "a set and a path": {"seen": {1, 2}, "path": Path("/x")},
        "a dtype": {"dtype": torch.bfloat16, "device": torch.device("cpu")},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("an optimizer", "'optimizer' (a dict of 2), 'iter_num' (an int)"),
        ("a Namespace", "'args' (an argparse.Namespace)"),
        ("a numpy number", "'best_val_loss' (a numpy number)"),
        ("a numpy array", "'losses' (a numpy array)"),
        ("a whole module", "'head' (a torch.nn.modules.linear.Linear)"),
        ("a set and a path", "'path' (a pathlib."),
        ("a dtype", "'dtype' (a torch dtype)"),
    ],
)
def test_case_10_says_what_is_beside_the_weights_and_imports_them(
    meta: Path, weights: dict[str, object], whole: Path, tmp_path: Path, kind: str, named: str
) -> None:
    torch.save({"model": weights, **beside(kind)}, meta / SHARD)

    with pytest.raises((ParametersError, UnsafePickleError)) as caught:
        open_checkpoint(meta)
    import_checkpoint(meta, tmp_path / "out", key="model")

    assert named in str(caught.value)
    assert "a training checkpoint: import its weights with llamakit import --key model" in str(
        caught.value
    )
    assert "download" not in str(caught.value)
    assert diff(whole, tmp_path / "out").same


def test_case_10_a_whole_module_says_how_to_save_its_weights(meta: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), meta / SHARD)

    with pytest.raises(UnsafePickleError, match=r"a whole module.*state_dict"):
        open_checkpoint(meta)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (lambda: torch.zeros(3, dtype=torch.complex32), "of the dtype torch.complex32"),
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.zeros(3, device="meta"), "on the meta device"),
    ],
)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_case_10_tensors_that_torch_has_and_llamakit_has_not_are_named(
    meta: Path, tensor: object, said: str
) -> None:
    torch.save({"a": tensor()}, meta / SHARD)  # type: ignore[operator]

    with pytest.raises(LlamakitError, match=f"holds a tensor that is {said}"):
        open_checkpoint(meta)


def test_case_10_a_key_that_is_not_there_lists_those_that_are(
    meta: Path, weights: dict[str, object]
) -> None:
    torch.save({"app": {"net": weights}, "step": 3}, meta / SHARD)

    with pytest.raises(ParametersError, match=r"nothing under 'model'.*are under: app\.net\."):
        open_for_import(meta, key="model")


def test_case_10_a_hostile_pickle_beside_the_weights_runs_nothing(
    meta: Path, weights: dict[str, object], tmp_path: Path
) -> None:
    class Hostile:
        def __reduce__(self) -> object:
            return Path.touch, (tmp_path / "it-ran",)

    torch.save({"model": weights, "extra": Hostile()}, meta / SHARD)

    import_checkpoint(meta, tmp_path / "out", key="model")

    assert not (tmp_path / "it-ran").exists()


def test_case_10_a_program_beside_the_weights_is_warned_of(
    meta: Path, weights: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Hostile:
        def __reduce__(self) -> object:
            return exec, (f"open({str(tmp_path / 'it-ran')!r}, 'w')",)

    torch.save({"model": weights, "extra": Hostile()}, meta / SHARD)

    import_checkpoint(meta, tmp_path / "out", key="model")

    assert ".exec beside the weights; nothing was run" in caplog.text
    assert not (tmp_path / "it-ran").exists()


def test_case_10_a_key_is_quoted_in_the_command_that_is_advised(
    meta: Path, weights: dict[str, object]
) -> None:
    torch.save({"x; touch it-ran": weights, "step": 3}, meta / SHARD)

    with pytest.raises(ParametersError, match="--key 'x; touch it-ran' SRC DST"):
        open_checkpoint(meta)


@pytest.mark.parametrize("key", [None, "model"])
def test_case_10_a_file_without_tensors_says_so(meta: Path, tmp_path: Path, key: str) -> None:
    file = tmp_path / "run.pt"
    torch.save({key: {}} if key else {}, file)

    with pytest.raises(ParametersError, match=r"run\.pt holds no tensor"):
        open_for_import(file, key=key)


def test_case_10_a_folder_without_weights_is_not_said_to_have_a_config(tmp_path: Path) -> None:
    with pytest.raises(MissingShardError, match="has no weights; expected"):
        open_for_import(tmp_path, key="model")


def test_case_10_a_key_as_deep_as_nobody_saves_is_not_found(
    meta: Path, weights: dict[str, object]
) -> None:
    itself: dict[str, object] = {"w": weights}
    itself["a"] = itself
    torch.save(itself, meta / SHARD)

    with pytest.raises(ParametersError, match=r"nothing under 'a\.a\."):
        open_for_import(meta, key=".".join("a" * 2000))


def test_case_10_a_number_too_long_to_print_is_none_of_a_models(
    weights: dict[str, object], tmp_path: Path
) -> None:
    numbers = {"dim": 10**5000, "n_layers": 3, "n_heads": 8}
    file = tmp_path / "ckpt.pt"
    torch.save({"model": weights, "model_args": numbers}, file)

    with pytest.raises(ParamsError, match="neither params"):
        open_for_import(file, key="model")


def test_case_10_one_file_with_its_numbers_in_it_is_imported(
    weights: dict[str, object], whole: Path, tmp_path: Path
) -> None:
    numbers = json.loads((whole / "params.json").read_text()) | {"dropout": 0.0}
    names = {f"_orig_mod.{name}": it for name, it in weights.items()}
    file = tmp_path / "ckpt.pt"
    torch.save({"model": names, "optimizer": OPTIMIZER, "model_args": numbers}, file)

    import_checkpoint(file, tmp_path / "out", key="model", strip_prefix=True)

    assert diff(whole, tmp_path / "out").same


def torchtune_name(name: str) -> str:
    """Return torchtune's name of a parameter of Meta's."""
    if name == "norm.weight":
        return "norm.scale"
    for theirs, ours in _TORCHTUNE.items():
        name = name.replace(ours, theirs)
    return name


def permuted(name: str, tensor, heads: int = 8, kv_heads: int = 2):
    """Put the rows of a query or key projection in Hugging Face's order."""
    if not name.endswith(("wq.weight", "wk.weight")):
        return tensor
    count = heads if "wq" in name else kv_heads
    rows, dim = tensor.shape
    halves = tensor.view(count, rows // count // 2, 2, dim).transpose(1, 2)
    return halves.reshape(rows, dim).contiguous()


def save_hf(folder: Path, weights, files: list[str], index: str | None) -> None:
    """Save Hugging Face's names into pickles, in turn."""
    theirs = {name: to_huggingface(name) for name in weights}
    tensors = {theirs[name]: permuted(name, it) for name, it in weights.items() if theirs[name]}
    names = sorted(tensors)
    parts = {file: names[number :: len(files)] for number, file in enumerate(files)}
    for file, part in parts.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    if index:
        places = {name: file for file, part in parts.items() for name in part}
        (folder / index).write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(
    ("files", "index"),
    [
        (["pytorch_model.bin"], None),
        (
            ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
            "pytorch_model.bin.index.json",
        ),
        (["hf_model_0001_0.pt", "hf_model_0002_0.pt"], None),
        (["ft-model-00001-of-00002.bin", "ft-model-00002-of-00002.bin"], None),
    ],
    ids=["one .bin", "an index", "torchtune's .pt", "torchtune's .bin"],
)
def test_folders_of_pickles_are_read_as_they_are(
    hf: Path, exported: Path, weights, files: list[str], index: str | None
) -> None:
    (hf / "model.safetensors").unlink()
    save_hf(hf, weights, files, index)
    torch.save(OPTIMIZER, hf / "recipe_state.pt")
    torch.save(argparse.Namespace(), hf / "training_args.bin")

    assert diff(exported, hf).same


def test_a_pytorch_model_bin_is_verified(hf: Path, weights) -> None:
    (hf / "model.safetensors").unlink()
    save_hf(hf, weights, ["pytorch_model.bin"], None)

    assert verify(hf, deep=True).good
    damaged = bytearray((hf / "pytorch_model.bin").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (hf / "pytorch_model.bin").write_bytes(damaged)
    assert not verify(hf, deep=True).good


@pytest.mark.parametrize("numbers", ["params.json", "config.json"])
def test_a_file_with_torchtunes_names_is_imported(
    weights, whole: Path, exported: Path, tmp_path: Path, numbers: str
) -> None:
    source = tmp_path / "epoch_0"
    source.mkdir()
    shutil.copy((whole if numbers == "params.json" else exported) / numbers, source)
    torch.save({torchtune_name(name): it for name, it in weights.items()}, source / "model_0.pt")

    import_checkpoint(source, tmp_path / "out")

    assert diff(whole, tmp_path / "out").same


def test_a_file_without_numbers_says_how_to_write_them(weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "model.pt")

    with pytest.raises(LlamakitError, match=r"neither params\.json nor config\.json next to it"):
        open_for_import(tmp_path / "model.pt")


def test_a_part_of_several_files_that_is_missing_is_said(hf: Path, weights) -> None:
    (hf / "model.safetensors").unlink()
    save_hf(hf, weights, ["ft-model-00001-of-00003.bin", "ft-model-00002-of-00003.bin"], None)

    with pytest.raises(LlamakitError, match=r"has 2 files of weights.*expected 3"):
        open_checkpoint(hf)
