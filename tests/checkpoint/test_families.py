"""Which Llama a checkpoint is: from everything that is there, never from one number."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from safetensors.numpy import save_file

from llamakit.api import diff, export, import_checkpoint, inspect, reshard
from llamakit.checkpoint.families import CODE_LLAMA, LLAMA_2, LLAMA_3, LLAMA_4
from llamakit.checkpoint.family_detection import detect_family
from llamakit.checkpoint.hf_checkpoint import open_huggingface
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.meta_checkpoint import open_meta
from llamakit.checkpoint.model_support import check_loadable
from llamakit.checkpoint.params import ModelParams, read_params
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.errors import ParamsError, UnsupportedModelError, UsageError
from llamakit.llama.loading import check_length

SMALL = ModelParams(dim=16, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=1280, hidden_dim=48)
RANKS = b"IQ== 0\nIg== 1\n"
SENTENCEPIECE = b"\n\x0e\n\x05<unk>\x15"
BYTE_LEVEL = b'{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"byte_fallback": false}}'
BYTE_FALLBACK = b'{"pre_tokenizer": null, "model": {"byte_fallback": true}}'


@pytest.mark.parametrize(
    ("numbers", "files", "family"),
    [
        ({}, {}, LLAMA_2),
        ({"vocab_size": 32000, "rope_theta": 500000.0}, {}, LLAMA_2),
        ({"rope_theta": 500000.0}, {"tokenizer.model": SENTENCEPIECE}, LLAMA_2),
        ({"rope_theta": 500000.0}, {"tokenizer.json": BYTE_FALLBACK}, LLAMA_2),
        ({"rope_theta": 1e6}, {}, CODE_LLAMA),
        ({"rope_theta": 500000.0}, {}, LLAMA_3),
        ({"use_scaled_rope": True}, {}, LLAMA_3),
        ({}, {"tokenizer.model": RANKS}, LLAMA_3),
        ({}, {"tokenizer.json": BYTE_LEVEL}, LLAMA_3),
        ({"rope_theta": 1e6}, {"tokenizer.model": RANKS}, LLAMA_3),
        ({"vocab_size": 128256}, {}, LLAMA_3),
        ({"vocab_size": 128320, "rope_theta": 500000.0}, {"../tokenizer.model": SENTENCEPIECE},
         LLAMA_3),
        ({"extra": {"moe_args": {}}}, {}, LLAMA_4),
    ],
)  # fmt: skip
def test_the_family_is_decided_from_all_evidence(numbers, files, family, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)

    assert detect_family(replace(SMALL, **numbers), folder) is family


def test_an_embedding_that_is_split_on_columns_speaks_against_llama_3():
    params = replace(SMALL, rope_theta=500000.0)

    assert detect_family(params, axis=1) is LLAMA_2
    assert detect_family(params, axis=0) is LLAMA_3


@pytest.mark.parametrize(
    ("params", "context"),
    [
        (SMALL, 4096),
        (replace(SMALL, rope_theta=1e6), 16384),
        (replace(SMALL, family="llama 3"), 8192),
        (replace(SMALL, family="llama 3", use_scaled_rope=True), 131072),
        (replace(SMALL, family="llama 3", max_seq_len=512), 512),
    ],
)
def test_the_context_is_that_of_the_family(params, context):
    assert params.context == context


def test_a_finetune_of_llama_2_keeps_its_embedding_axis(tmp_path, params, weights, write_meta):
    params = params | {"rope_theta": 500000.0, "vocab_size": 24}
    (tmp_path / "tokenizer.model").write_bytes(SENTENCEPIECE)

    one = open_meta(write_meta(tmp_path / "one", params, weights))
    two = open_meta(write_meta(tmp_path / "two", params, weights, 2, embedding_axis=1))

    for checkpoint in (one, two):
        assert (checkpoint.generation, checkpoint.embedding_axis) == ("llama 1/2", 1)


@pytest.mark.parametrize("folder", ["llama3-gqa-mp1", "llama31-mp8"])
def test_the_reference_cases_are_llama_3(reference_cases_llama3, folder):
    checkpoint = open_meta(reference_cases_llama3 / folder)

    assert (checkpoint.generation, checkpoint.embedding_axis) == ("llama 3", 0)


def test_params_below_a_key_model_are_read(tmp_path, params, weights, write_meta):
    del params["vocab_size"]  # as fairseq2 writes it
    folder = write_meta(tmp_path, params, weights)
    (folder / "params.json").write_text(json.dumps({"model": params}))

    checkpoint = open_meta(folder)

    assert (checkpoint.params.dim, checkpoint.params.vocab_size) == (16, 24)
    assert read_params(folder / "params.json") == params


# RoPE scaling ------------------------------------------------------------------------------------


@pytest.fixture
def write_folder(tmp_path, weights):
    """Write a Hugging Face folder with some RoPE scaling."""

    def write(scaling):
        config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2}
        config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
        config |= {"vocab_size": 24, "rope_scaling": scaling, "max_position_embeddings": 512}
        (tmp_path / "config.json").write_text(json.dumps(config))
        tensors = {to_huggingface(name): array for name, array in weights.items()}
        save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path

    return write


@pytest.mark.parametrize("kind", ["yarn", "longrope"])
def test_a_scaling_that_is_not_computed_is_named(write_folder, kind):
    folder = write_folder({"rope_type": kind, "factor": 4.0})

    with pytest.raises(UnsupportedModelError, match=f"RoPE scaling of type {kind} is not"):
        check_loadable(open_huggingface(folder), 1)
    report = inspect(folder)
    assert report.good
    assert any(f"RoPE scaling of type {kind} is not supported" in it for it in report.oddities)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "llama3"])
def test_a_scaling_without_a_factor_is_refused(write_folder, kind):
    with pytest.raises(ParamsError, match=f"type {kind} has no 'factor'"):
        check_loadable(open_huggingface(write_folder({"type": kind})), 1)


def test_two_factors_are_a_difference(reference_cases_llama3, tmp_path):
    source = reference_cases_llama3 / "llama31-mp8"
    reshard(source, tmp_path / "other", 1)
    params = json.loads((source / "params.json").read_text()) | {"rope_scaling_factor": 32.0}
    (tmp_path / "other" / "params.json").write_text(json.dumps(params))
    export(tmp_path / "other", tmp_path / "hf")
    import_checkpoint(tmp_path / "hf", tmp_path / "back")

    assert list(diff(source, tmp_path / "other").numbers) == ["rope_scaling"]
    assert diff(tmp_path / "other", tmp_path / "hf").same
    assert diff(tmp_path / "other", tmp_path / "back").same


def test_dynamic_scaling_is_refused_beyond_the_context(write_folder):
    checkpoint = open_huggingface(write_folder({"type": "dynamic", "factor": 2.0}))

    check_loadable(checkpoint, 1)
    check_length(checkpoint, 512)
    with pytest.raises(UsageError, match=r"max_seq_len is 513.*context of 512 tokens"):
        check_length(checkpoint, 513)


def test_a_factor_of_the_user_or_the_file_holds(tmp_path):
    params = replace(SMALL, use_scaled_rope=True, family="llama 3")

    assert scaling_of(params, tmp_path).factor == 8.0
    assert scaling_of(replace(params, rope_factor=32.0), tmp_path).factor == 32.0
    assert scaling_of(replace(params, rope_factor=32.0), tmp_path, factor=16.0).factor == 16.0
    with pytest.raises(UnsupportedModelError, match="RoPE of this model is not scaled"):
        scaling_of(SMALL, tmp_path, factor=8.0)
