"""Prefixes that training tools put before names are named, and taken off by ``--strip-prefix``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lazy_torch import torch

from llamakit.api import diff, import_checkpoint, open_checkpoint, open_for_import
from llamakit.errors import ParametersError

SHARD = "consolidated.00.pth"


def rename(folder: Path, change, file: str = SHARD) -> Path:
    """Save the tensors of a file by other names."""
    tensors = torch.load(folder / file)
    torch.save({change(name): tensor for name, tensor in tensors.items()}, folder / file)
    return folder


def within_layers(name: str) -> str:
    """Wrap each layer and all of the model, as FSDP does."""
    head, dot, rest = name.partition("layers.")
    number, _, part = rest.partition(".")
    inside = f"layers.{number}._fsdp_wrapped_module.{part}" if dot else ""
    return f"_fsdp_wrapped_module.{head}{inside}"


WAYS = {
    "_orig_mod": lambda name: f"_orig_mod.{name}",
    "module": lambda name: f"module.{name}",
    "model": lambda name: f"model.{name}",
    "_fsdp_wrapped_module": within_layers,
    "module._orig_mod": lambda name: f"module._orig_mod.{name}",
    "model._orig_mod.model": lambda name: f"model._orig_mod.model.{name}",
    "_checkpoint_wrapped_module": lambda name: name.replace(
        "feed_forward", "_checkpoint_wrapped_module.feed_forward"
    ),
    "student": lambda name: f"student.{name}",
}


@pytest.mark.parametrize("way", WAYS)
def test_case_11_a_prefix_is_named_and_taken_off(
    meta: Path, reference_cases: Path, tmp_path: Path, way: str
) -> None:
    rename(meta, WAYS[way])

    with pytest.raises(ParametersError) as caught:
        open_checkpoint(meta)
    import_checkpoint(meta, tmp_path / "out", strip_prefix=True)

    assert f"the prefix '{way}." in str(caught.value)
    assert "llamakit import --strip-prefix SRC DST" in str(caught.value)
    assert diff(reference_cases / "gqa-mp1", tmp_path / "out").same


@pytest.mark.parametrize("way", ["module", "_fsdp_wrapped_module", "model"])
def test_case_11_so_is_one_before_hugging_faces_names(
    hf: Path, exported: Path, tmp_path: Path, way: str
) -> None:
    from safetensors.torch import load_file

    tensors = load_file(hf / "model.safetensors")
    (hf / "model.safetensors").unlink()
    torch.save({WAYS[way](name): it for name, it in tensors.items()}, hf / "pytorch_model.bin")

    with pytest.raises(ParametersError, match=f"the prefix '{way}"):
        open_checkpoint(hf)
    import_checkpoint(hf, tmp_path / "out", strip_prefix=True)

    assert diff(exported, tmp_path / "out").same


@pytest.mark.parametrize("words", [("--strip-prefix",), ("--strip-prefix", "teacher.")])
def test_case_11_the_command_takes_it_with_a_prefix_and_without(
    meta: Path, reference_cases: Path, tmp_path: Path, run_llamakit, words: tuple[str, ...]
) -> None:
    rename(meta, lambda name: f"teacher.{name}")

    done = run_llamakit("import", *words, meta, tmp_path / "out")

    assert done.returncode == 0, done.stderr
    assert diff(reference_cases / "gqa-mp1", tmp_path / "out").same


def test_case_11_two_models_in_one_file_are_not_mixed(meta: Path, tmp_path: Path) -> None:
    tensors = torch.load(meta / SHARD)
    both = {f"{who}.{name}": it for who in ("student", "teacher") for name, it in tensors.items()}
    torch.save(both, meta / SHARD)

    with pytest.raises(ParametersError, match=r"student.* and teacher.* would have one name"):
        import_checkpoint(meta, tmp_path / "out", strip_prefix=True)


def test_case_11_a_prefix_that_no_key_has_is_refused(meta: Path, tmp_path: Path) -> None:
    with pytest.raises(ParametersError, match=r"no key begins with 'net\.'; they are such as"):
        import_checkpoint(meta, tmp_path / "out", strip_prefix="net.")


def test_case_11_an_open_vocabulary_is_that_of_the_stripped_output(meta: Path) -> None:
    assert json.loads((meta / "params.json").read_text())["vocab_size"] == -1
    rename(meta, WAYS["_orig_mod"])

    assert open_for_import(meta, strip_prefix=True).params.vocab_size == 576
