"""The file, opened by the reader of the gguf package."""

import tracemalloc

import numpy as np
import pytest
from conftest import Changed, made_of, shapes
from gguf import GGUFReader, dequantize

import llamakit
from llamakit.errors import DamagedFileError

GGUF_NAMES = {
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "attention_norm": "attn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "ffn_norm": "ffn_norm",
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
}


def gguf_name(name):
    if name.startswith("layers."):
        _, index, rest = name.split(".", 2)
        return f"blk.{index}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"
    return f"{GGUF_NAMES[name.removesuffix('.weight')]}.weight"


def tensors_of(file):
    """Return each tensor's type, and its values as float32."""
    return {
        tensor.name: (
            tensor.tensor_type.name,
            np.array(dequantize(tensor.data, tensor.tensor_type)).reshape(tensor.shape[::-1]),
        )
        for tensor in GGUFReader(file).tensors
    }


def bfloat16(values):
    """Round to the nearest bfloat16, ties to even, in a way that is not the exporter's."""
    import torch

    return torch.from_numpy(values).bfloat16().float().numpy()


@pytest.mark.parametrize(
    ("outtype", "rounded"),
    [("f32", np.float32), ("f16", np.float16), ("bf16", bfloat16)],
)
def test_every_tensor_holds_the_values_of_its_parameter(base, export, outtype, rounded):
    tensors = tensors_of(export(base, outtype=outtype))

    assert len(tensors) == len(base.parameters)
    for name, shape in shapes(base.params).items():
        kind, values = tensors[gguf_name(name)]
        source = base.read(name).astype(np.float32)
        is_vector = len(shape) == 1
        assert kind == ("F32" if is_vector else outtype.upper())
        assert values.shape == shape
        np.testing.assert_array_equal(values, source if is_vector else rounded(source))


def test_the_bytes_are_kept_unless_another_type_is_asked_for(base, export):
    file = export(base)

    assert file.name == "llama-demo-f16.gguf"
    tensor = next(it for it in GGUFReader(file).tensors if it.name == "blk.2.attn_k.weight")
    assert tensor.data.tobytes() == base.read("layers.2.attention.wk.weight").tobytes()


def test_q8_0_is_as_near_as_it_can_and_rows_that_do_not_fit_are_named(base, export, caplog):
    tensors = tensors_of(export(base, outtype="q8_0"))

    kind, values = tensors["blk.1.ffn_gate.weight"]
    source = base.read("layers.1.feed_forward.w1.weight").astype(np.float32)
    steps = abs(source.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
    assert kind == "Q8_0"
    # Half a step, and what the step itself loses as a float16.
    assert (abs(values - source).reshape(-1, 32) <= 0.57 * steps).all()
    kind, values = tensors["blk.1.ffn_down.weight"]
    assert kind == "F16"
    np.testing.assert_array_equal(values, base.read("layers.1.feed_forward.w2.weight"))
    assert [record.getMessage() for record in caplog.records] == [
        "layers.0.feed_forward.w2.weight and 3 more: rows of 624 values cannot be split into the "
        "blocks of 32 that q8_0 has; stored as f16"
    ]


def test_the_metadata_says_what_llama_cpp_needs(base, export):
    fields = GGUFReader(export(base)).fields

    said = {name: field.contents() for name, field in fields.items() if "tokens" not in name}
    expected = {
        "general.architecture": "llama",
        "general.name": "llama-demo",
        "general.file_type": 1,
        "llama.vocab_size": base.params.vocab_size,
        "llama.context_length": 512,
        "llama.embedding_length": 256,
        "llama.block_count": 4,
        "llama.feed_forward_length": 624,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 8,
        "llama.rope.dimension_count": 32,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert {name: said.get(name) for name in expected} == expected
    assert said["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)


def test_tied_embeddings_are_stored_once(export):
    checkpoint = made_of(0.5, tied_embeddings=True)

    assert "output.weight" not in tensors_of(export(checkpoint))


def test_memory_does_not_grow_with_the_model(export):
    checkpoint = made_of(0.5, vocab_size=60_000, dim=512, n_layers=1, hidden_dim=512)
    tracemalloc.start()

    file = export(checkpoint, outtype="f16")

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.stat().st_size > 2 * 2 * 60_000 * 512  # two large tensors, 123 MB each as float32
    assert peak < 90e6


def test_progress_counts_every_byte_that_is_read(base, export):
    told = []

    export(base, progress=told.append)

    assert sum(told) == sum(2 * it.numel for it in base.parameters.values())


def test_values_too_large_for_float16_are_reported(export, caplog):
    export(made_of(1e6, n_layers=1), outtype="f16")

    assert (
        "tok_embeddings.weight: 409600 values were too large for float16 and are infinite now; "
        "--option outtype=bf16 or f32 has room for them"
    ) in caplog.messages


def test_nothing_is_left_of_an_export_that_fails(base, tmp_path):
    def damaged(name, **where):
        if name.startswith("layers.3"):
            raise DamagedFileError("the disk has given up")
        return base.read(name, **where)

    with pytest.raises(DamagedFileError):
        llamakit.export(Changed(values=damaged), tmp_path / "made", "gguf")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outtype": "q4_k"}, "outtype is 'q4_k'; it has to be one of f32, f16, bf16, q8_0, q4_0"),
        ({"quality": "high"}, "the gguf export has no option 'quality'"),
    ],
)
def test_options_that_there_are_not_are_usage_errors(base, tmp_path, options, message):
    with pytest.raises(llamakit.LlamakitError, match=message) as caught:
        llamakit.export(base, tmp_path / "made", "gguf", **options)

    assert caught.value.exit_status == 2


def test_a_dtype_without_a_name_in_gguf_asks_for_an_outtype(tmp_path):
    with pytest.raises(llamakit.LlamakitError, match=r"stored as float64.*--option outtype="):
        llamakit.export(made_of(1, "float64"), tmp_path / "made", "gguf")


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        ("layers.1.ffn_norm.weight", None, r"missing: layers\.1\.ffn_norm\.weight"),
        (None, "layers.4.ffn_norm.weight", r"unknown: layers\.4\.ffn_norm\.weight"),
    ],
)
def test_parameters_of_another_model_are_named(base, tmp_path, drop, add, message):
    parameters = {name: it for name, it in base.parameters.items() if name != drop}
    if add:
        parameters[add] = base.parameters["norm.weight"]

    with pytest.raises(llamakit.LlamakitError, match=message):
        llamakit.export(Changed(parameters=parameters), tmp_path / "made", "gguf")


def test_a_disk_that_is_too_small_is_reported_before_anything_is_written(tmp_path):
    with pytest.raises(llamakit.LlamakitError, match=r"GB free, and .* are needed"):
        llamakit.export(made_of(1, hidden_dim=10**15), tmp_path / "made", "gguf")

    assert list(tmp_path.iterdir()) == []
