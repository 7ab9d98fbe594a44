"""Files under browsers' names, and in other tools' formats, are called what they are."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from lazy_torch import torch

from llamakit import Llama
from llamakit.api import open_checkpoint, verify
from llamakit.errors import CheckpointError, LlamakitError, NotACheckpointError, TokenizerError

SHARD = "consolidated.00.pth"


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        (SHARD, f"{SHARD}.crdownload", "Chrome or Edge has not finished"),
        (SHARD, f"{SHARD}.part", "Firefox has not finished"),
        (SHARD, "consolidated.00.Ab3_x9Qz.pth.part", "Firefox has not finished"),
        (SHARD, f"{SHARD}.download", "Safari has not finished"),
        (SHARD, f"{SHARD}.opdownload", "Opera has not finished"),
        (SHARD, f"{SHARD}.aria2", "aria2 has not finished"),
        (SHARD, "consolidated.00 (1).pth", f"rename it to {SHARD}"),
        (SHARD, "consolidated.00(2).pth", f"rename it to {SHARD}"),
        (SHARD, "consolidated.00 - Copy.pth", f"rename it to {SHARD}"),
        (SHARD, "consolidated.00 copy 2.pth", f"rename it to {SHARD}"),
        (SHARD, "Consolidated.00.PTH", f"rename it to {SHARD}"),
        (SHARD, f"{SHARD}.zip", f"rename it to {SHARD}"),
        ("params.json", "params.json.txt", "rename it to params.json"),
        ("params.json", "params (1).json", "rename it to params.json"),
        ("params.json", "params (1).json.txt", "rename it to params.json"),
        ("params.json", "Params.json", "rename it to params.json"),
    ],
)
def test_what_is_missing_is_there_under_a_browsers_name(
    meta: Path, name: str, other: str, said: str
) -> None:
    (meta / name).rename(meta / other)

    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(meta)

    assert f"{other} is there: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("other", ["tokenizer (1).model", "tokenizer.model.txt"])
def test_so_is_a_tokenizer(meta: Path, other: str) -> None:
    (meta / "tokenizer.model").rename(meta / other)

    with pytest.raises(TokenizerError, match=r"is there: rename it to tokenizer\.model"):
        Llama.open(meta)


def test_verify_names_the_download_that_is_not_finished(meta: Path) -> None:
    (meta / "checklist.chk").write_text(f"{'0' * 32}  {SHARD}\n")
    (meta / SHARD).rename(meta / f"{SHARD}.crdownload")

    (report,) = verify(meta).folders

    note = next(file.note for file in report.files if file.name == SHARD)
    assert "Chrome or Edge has not finished" in note


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return data.getvalue()


def numpy_array() -> bytes:
    data = io.BytesIO()
    np.save(data, np.zeros(2))
    return data.getvalue()


SAFETENSORS = (2).to_bytes(8, "little") + b'{"'
FORMATS = {
    "GGUF": (b"GGUF\3\0\0\0", "a GGUF of llama.cpp"),
    "GGML": (b"tjgg\1\0\0\0", "a file of llama.cpp from before GGUF"),
    "tar": (tar(), "a tar archive: unpack it with tar"),
    "gzip": (gzip.compress(b"x"), "compressed with gzip: unpack it"),
    "numpy": (numpy_array(), "an array of numpy"),
    "a pickle": (pickle.dumps({"a": 1}), "a pickle without torch's zip"),
    "zeros": (bytes(4096), "zeros only"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "HTML": (b"<!DOCTYPE html><title>Sign in</title>", 'an HTML page ("Sign in")'),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", [SHARD, "consolidated.00.safetensors"])
def test_other_formats_are_called_what_they_are(meta: Path, kind: str, name: str) -> None:
    content, said = FORMATS[kind]
    (meta / SHARD).unlink()
    (meta / name).write_bytes(content)

    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(meta)

    assert said in str(caught.value)


def test_a_safetensors_under_a_pths_name_and_the_other_way_round(meta: Path, hf: Path) -> None:
    pth, safetensors = (meta / SHARD).read_bytes(), (hf / "model.safetensors").read_bytes()
    (meta / SHARD).write_bytes(safetensors)
    (hf / "model.safetensors").write_bytes(pth)

    with pytest.raises(CheckpointError, match=r"give it the ending \.safetensors"):
        open_checkpoint(meta)
    with pytest.raises(CheckpointError, match=r"a zip, such as torch\.save writes"):
        open_checkpoint(hf)


def test_a_legacy_file_says_how_it_is_converted(meta: Path) -> None:
    torch.save({"a": torch.zeros(2)}, meta / SHARD, _use_new_zipfile_serialization=False)

    with pytest.raises(CheckpointError, match=r"torch's old format.*torch\.save\(torch\.load"):
        open_checkpoint(meta)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 8}, "Hugging Face's"),
        ({"n_embd": 64, "n_layer": 3, "n_head": 8, "block_size": 64}, "nanoGPT"),
        (
            {"n_embd": 64, "n_layer": 3, "n_head": 8, "n_query_groups": 2, "padded_vocab_size": 9},
            "lit-gpt",
        ),
        ({"embed_dim": 64, "num_layers": 3, "num_heads": 8, "num_kv_heads": 2}, "torchtune"),
        ({"n_vocab": 576, "n_embd": 64, "n_layer": 3, "n_head": 8, "n_head_kv": 2}, "llama.cpp"),
        (
            {"llama.embedding_length": 64, "llama.block_count": 3},
            "llama.cpp",
        ),
        ({"dim": 64, "n_layer": 3, "n_head": 8, "n_local_heads": 2}, "gpt-fast"),
    ],
)
def test_the_keys_of_other_tools_are_named_with_metas(
    meta: Path, params: dict[str, int], said: str
) -> None:
    (meta / "params.json").write_text(json.dumps(params))

    with pytest.raises(LlamakitError) as caught:
        open_checkpoint(meta)

    assert f"has the keys of {said}" in str(caught.value)
    assert "to 'n_layers'" in str(caught.value)


def test_an_adapter_says_that_it_is_merged_into_its_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")

    with pytest.raises(NotACheckpointError, match=r"an adapter of PEFT.*merge_and_unload"):
        open_checkpoint(tmp_path)


def test_a_distributed_checkpoint_says_how_it_is_joined(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(b"\x80\x04.")
    (tmp_path / "__0_0.distcp").write_bytes(b"x")

    with pytest.raises(NotACheckpointError, match=r"DCP.*pip install packages/llamakit-dcp"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGUF\3\0\0\0", "is no checkpoint: it is a GGUF of llama.cpp"),
        (b"<html><title>404</title>", 'is an HTML page ("404")'),
        (b"PK\3\4", "a file of weights, and a checkpoint is a folder.* llamakit import"),
        (SAFETENSORS, "a file of weights, and a checkpoint is a folder.* llamakit import"),
    ],
)
def test_a_file_in_the_place_of_a_folder_is_called_what_it_is(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(NotACheckpointError, match=said.replace("(", "\\(").replace(")", "\\)")):
        open_checkpoint(path)
