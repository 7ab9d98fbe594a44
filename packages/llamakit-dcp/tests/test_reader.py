"""What torch's own writer saved, read: from real ranks, and in the ways that trainers save."""

import json
import logging
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from llamakit_dcp.metadata import TensorEntry, read_metadata
from llamakit_dcp.metadata_writer import metadata_bytes
from llamakit_dcp.reader import open_dcp
from tiny_model import PARAMS, huggingface_weights, weights
from torch.distributed.checkpoint.filesystem import SerializationFormat

import llamakit
from llamakit.errors import (
    DamagedFileError,
    MissingShardError,
    ParametersError,
    ParamsError,
    UnsafePickleError,
)


def assert_holds(checkpoint, expected):
    assert set(checkpoint.parameters) == set(expected)
    for name, tensor in expected.items():
        read = llamakit.to_torch(checkpoint.read(name))
        assert read.dtype == tensor.dtype
        assert read.equal(tensor), name


@pytest.mark.parametrize("name", ["fsdp-tp", "hf-fsdp"])
def test_what_four_ranks_of_a_trainer_saved_is_the_model(recorded, name):
    checkpoint = open_dcp(recorded(name))

    assert_holds(checkpoint, weights())
    assert any("12 tensors beside the model are left out" in it for it in checkpoint.oddities())


@pytest.mark.parametrize("name", ["fsdp-tp", "hf-fsdp"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_slice_across_chunks_is_the_slice_of_the_whole(recorded, name, axis):
    checkpoint = open_dcp(recorded(name))

    for parameter in ("layers.0.attention.wq.weight", "layers.0.feed_forward.w2.weight"):
        for start, stop in ((0, 3), (5, 11), (7, 16), (4, 4)):
            part = checkpoint.read(parameter, axis=axis, start=start, stop=stop)

            whole = weights()[parameter].numpy()
            np.testing.assert_array_equal(part, whole.take(range(start, stop), axis))


@pytest.mark.parametrize("name", ["fsdp-tp", "hf-fsdp"])
def test_it_is_converted_to_metas_format_and_verified(recorded, name, tmp_path):
    llamakit.reshard(open_dcp(recorded(name)), tmp_path / "meta", 2)

    assert_holds(llamakit.open_checkpoint(tmp_path / "meta"), weights())
    assert llamakit.verify(tmp_path / "meta").good


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"model": tensors},
        lambda tensors: {"state": {"model": tensors, "epoch": 3}},
        lambda tensors: {"model": tensors, "ema": tensors},
        lambda tensors: {f"_orig_mod.{name}": it for name, it in tensors.items()},
        lambda tensors: tensors | {"freqs_cis": torch.ones(4, 2, dtype=torch.complex64)},
    ],
    ids=["plain", "model", "nested", "with an average", "compiled", "with a table"],
)
@pytest.mark.parametrize("style", [weights, huggingface_weights])
def test_prefixes_and_tables_are_taken_off(save, style, wrap):
    folder = save(wrap(style(torch.bfloat16)))

    assert_holds(open_dcp(folder), weights(torch.bfloat16))


@pytest.mark.parametrize(
    "options",
    [
        {"single_file_per_rank": False},
        {"thread_count": 3},
        {"serialization_format": SerializationFormat.SAFETENSORS},
    ],
    ids=["a file a tensor", "three files", "safetensors"],
)
def test_each_way_that_torch_writes_files_is_read(save, options):
    folder = save({"model": weights(), "step": 3}, **options)

    assert_holds(open_dcp(folder), weights())


def test_a_view_of_a_larger_tensor_is_read_by_its_strides(save):
    expected = weights()
    expected["layers.0.attention.wo.weight"] = expected["layers.0.attention.wo.weight"].T

    assert_holds(open_dcp(save(expected)), expected)


def test_the_optimizer_is_left_out_with_a_line(save, caplog):
    states = {f"state.{name}.exp_avg": torch.ones(2) for name in weights()}
    folder = save({"model": weights(), "optimizer": states, "train": {"step": 1}})

    with caplog.at_level(logging.WARNING, "llamakit"):
        checkpoint = open_dcp(folder)

    assert_holds(checkpoint, weights())
    assert "12 tensors beside the model are left out, such as optimizer.state." in caplog.text


def test_the_numbers_may_be_in_the_folder_above(save):
    folder = save(weights(), params=None)
    with pytest.raises(ParamsError, match=r"neither params\.json nor config\.json"):
        open_dcp(folder)

    (folder.parent / "params.json").write_text(json.dumps(PARAMS), "utf-8")

    assert_holds(open_dcp(folder), weights())


@pytest.mark.parametrize("name", ["fsdp-tp", "hf-fsdp"])
def test_heads_that_ranks_have_cut_are_turned_as_a_whole(recorded, name, tmp_path):
    llamakit.export(open_dcp(recorded(name)), tmp_path / "hf")

    assert_holds(llamakit.open_checkpoint(tmp_path / "hf"), weights())


def test_a_folder_of_another_format_is_not_opened(tmp_path):
    assert open_dcp(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it | {"layers.0.attention.wq.bias": torch.ones(16)}, "that no Llama has"),
        (lambda it: it | {"layers.0.attention.q_norm.weight": torch.ones(4)}, "that no Llama has"),
        (lambda it: {"a": it, "b": it}, "holds 2 models, with the prefixes 'a.' and 'b.'"),
        (lambda _: {"x.weight": torch.ones(2)}, "holds no tensor of a Llama"),
    ],
)
def test_what_is_no_single_llama_is_refused(save, change, message):
    folder = save(change(weights()))

    with pytest.raises(ParametersError, match=message):
        open_dcp(folder)


def test_a_file_that_is_missing_is_named(recorded, tmp_path):
    folder = shutil.copytree(recorded("fsdp-tp"), tmp_path / "copy")
    (folder / "__2_0.distcp").unlink()

    with pytest.raises(MissingShardError, match=r"lacks __2_0\.distcp of the 4 files"):
        open_dcp(folder)


def test_chunks_that_share_bytes_are_refused(save):
    folder = save(weights())
    index = read_metadata(folder / ".metadata")
    norm = index.tensors["norm.weight"].chunks[0]
    both = tuple(replace(norm, offsets=(at,), shape=(8,), offset=norm.offset + at) for at in (0, 8))
    tensors = index.tensors | {"norm.weight": TensorEntry((16,), "float32", both)}
    names = {name: (name,) for name in tensors}
    (folder / ".metadata").write_bytes(metadata_bytes(tensors, names))

    message = rf"two chunks are at byte {norm.offset + 8} of __0_0"
    with pytest.raises(DamagedFileError, match=message):
        open_dcp(folder)


def test_a_save_that_was_interrupted_is_explained(recorded, tmp_path):
    folder = shutil.copytree(recorded("fsdp-tp"), tmp_path / "copy")
    (folder / ".metadata").unlink()

    with pytest.raises(MissingShardError, match=r"has 4 files \.distcp but no \.metadata"):
        open_dcp(folder)


def _read_all(folder):
    checkpoint = open_dcp(folder)
    for name in checkpoint.parameters:
        checkpoint.read(name)


class _Runs:
    def __init__(self, program, argument):
        self.made_of = program, (argument,)

    def __reduce__(self):
        return self.made_of


@pytest.mark.parametrize("place", ["index", "chunk"])
def test_a_program_in_a_pickle_is_refused_and_not_run(save, tmp_path, place):
    folder = save(weights())
    program = pickle.dumps(_Runs(os.system, f"touch {tmp_path / 'run'}"))
    if place == "index":
        (folder / ".metadata").write_bytes(program)
    else:
        torch.save(_Runs(os.system, f"touch {tmp_path / 'run'}"), folder / "evil.pt")
        file = folder / "__0_0.distcp"
        evil = (folder / "evil.pt").read_bytes()
        file.write_bytes((evil + bytes(file.stat().st_size))[: file.stat().st_size])

    with pytest.raises((UnsafePickleError, DamagedFileError)) as refusal:
        _read_all(folder)

    assert not (tmp_path / "run").exists()
    if place == "index":
        assert "asks for posix.system" in str(refusal.value)
