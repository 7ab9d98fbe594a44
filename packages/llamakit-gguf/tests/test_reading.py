"""GGUF files as checkpoints: what they hold, and what is refused."""

import shutil

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from gguf_files import DIM, HIDDEN, add_pieces, write_model
from llamakit_gguf import open_checkpoint

import llamakit
from llamakit.testing import check_checkpoint_form

REFUSED = {
    "another architecture": (
        lambda writer: writer.add_string("general.type", "adapter"),
        "GGUF of the architecture adapter of llama",
    ),
    "experts": (lambda writer: writer.add_expert_count(8), "a mixture of 8 experts"),
    "another head": (
        lambda writer: writer.add_key_length(32),
        "'llama.attention.key_length' is 32",
    ),
    "YaRN": (
        lambda writer: writer.add_string("llama.rope.scaling.type", "yarn"),
        "scaled by yarn",
    ),
    "other frequencies": (
        lambda writer: writer.add_tensor("rope_freqs.weight", np.full(32, 3.5, np.float32)),
        "rope_freqs.weight is not that of Llama 3's scaling",
    ),
    "biases": (
        lambda writer: writer.add_tensor("blk.0.attn_q.bias", np.zeros(4, np.float32)),
        "has the bias blk.0.attn_q.bias",
    ),
    "no heads": (
        lambda writer: writer.add_array("llama.attention.head_count_kv", [1, 2]),
        "'attention.head_count_kv' is",
    ),
    "unknown tensors": (
        lambda writer: writer.add_tensor("blk.0.odd.weight", np.zeros(4, np.float32)),
        "has tensors that no Llama has: blk.0.odd.weight",
    ),
}


def matrix(path, name):
    tensor = next(it for it in GGUFReader(path).tensors if it.name == name)
    return dequantize(tensor.data, tensor.tensor_type)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_quantized_values_are_those_that_ggufs_own_reader_makes(tmp_path, kind):
    write_model(tmp_path / "m.gguf", kind)
    expected = matrix(tmp_path / "m.gguf", "blk.0.ffn_down.weight")

    checkpoint = llamakit.open_checkpoint(tmp_path / "m.gguf")

    name = "layers.0.feed_forward.w2.weight"
    assert expected.shape == (DIM, HIDDEN)
    assert checkpoint.read(name).tobytes() == expected.tobytes()
    part = checkpoint.read(name, axis=1, start=100, stop=333)
    assert part.tobytes() == np.ascontiguousarray(expected[:, 100:333]).tobytes()
    assert checkpoint.read(name, start=7, stop=9).tobytes() == expected[7:9].tobytes()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_K"])
def test_the_format_keeps_the_contract_of_checkpoints(tmp_path, kind):
    written = write_model(tmp_path / "m.gguf", kind, change=add_pieces)

    check_checkpoint_form(open_checkpoint, tmp_path / "m.gguf")

    if kind != "Q4_K":
        read = open_checkpoint(tmp_path / "m.gguf").read("layers.0.attention.wk.weight")
        assert read.tobytes() == written["blk.0.attn_k.weight"]


def test_norms_are_read_as_the_matrices_only_if_that_keeps_them(tmp_path):
    write_model(tmp_path / "m.gguf", "BF16")

    parameters = llamakit.open_checkpoint(tmp_path / "m.gguf").parameters

    assert parameters["norm.weight"].dtype == "float32"
    assert parameters["output.weight"].dtype == "bfloat16"


def test_a_model_in_several_files_is_one(tmp_path):
    write_model(tmp_path / "whole.gguf")
    write_model(tmp_path / "m.gguf", split=5)
    parts = sorted(tmp_path.glob("m-*.gguf"))

    checkpoint = llamakit.open_checkpoint(parts[1])

    assert len(parts) == 3
    assert checkpoint.weight_files() == parts
    assert llamakit.diff(checkpoint, tmp_path / "whole.gguf").same
    parts[2].unlink()
    with pytest.raises(llamakit.LlamakitError, match=r"one of 3 files, of which m-00003-of-00003"):
        llamakit.open_checkpoint(parts[0])
    shutil.move(parts[0], tmp_path / "renamed.gguf")
    with pytest.raises(llamakit.LlamakitError, match="found by their names"):
        llamakit.open_checkpoint(tmp_path / "renamed.gguf")


@pytest.mark.parametrize("what", REFUSED)
def test_what_metas_format_has_no_place_for_is_refused_by_name(tmp_path, what):
    change, message = REFUSED[what]
    dropped = ["attention.head_count_kv"] if what == "no heads" else []

    def changed(writer):
        for name in dropped:
            del writer.kv_data[0][f"llama.{name}"]
        change(writer)

    write_model(tmp_path / "m.gguf", change=changed)

    with pytest.raises(llamakit.LlamakitError) as caught:
        llamakit.open_checkpoint(tmp_path / "m.gguf")

    assert message in str(caught.value)


def test_types_that_are_not_read_are_named_with_what_to_do(tmp_path):
    def quantized(writer):
        data = np.zeros((1, 22), np.uint8)
        writer.add_tensor("blk.0.attn_v.weight", data, raw_dtype=GGMLQuantizationType.Q5_0)

    write_model(tmp_path / "m.gguf", change=quantized, drop=["blk.0.attn_v"])

    with pytest.raises(llamakit.LlamakitError, match=r"attn_v\.weight is Q5_0.*llama-quantize"):
        llamakit.open_checkpoint(tmp_path / "m.gguf")


def test_tied_embeddings_have_no_output_layer(tmp_path):
    write_model(tmp_path / "m.gguf", drop=["output"])

    checkpoint = llamakit.open_checkpoint(tmp_path / "m.gguf")

    assert checkpoint.params.tied_embeddings
    assert "output.weight" not in checkpoint.parameters


def test_linear_scaling_is_read(tmp_path):
    def scaled(writer):
        writer.add_string("llama.rope.scaling.type", "linear")
        writer.add_float32("llama.rope.scaling.factor", 4.0)

    write_model(tmp_path / "m.gguf", change=scaled)

    params = llamakit.open_checkpoint(tmp_path / "m.gguf").params
    assert params.rope_scaling == {"rope_type": "linear", "factor": 4.0}


def test_memory_does_not_grow_with_a_quantized_tensor(tmp_path):
    import tracemalloc

    from llamakit_gguf.tensors import Tensor, read_rows

    path = tmp_path / "rows"
    rows = 40_000
    with path.open("wb") as file:
        file.truncate(rows * 1024 // 32 * 34)
    tensor = Tensor("t", path, GGMLQuantizationType.Q8_0, (rows, 1024), 0)
    tracemalloc.start()

    values = read_rows(tensor, 0, rows, slice(0, 32))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values.shape == (rows, 32)
    assert peak < values.nbytes + 40e6  # the whole is 164 MB
