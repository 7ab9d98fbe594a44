"""Readers of folders that other programs wrote: one file of each is mutated at a time."""

from __future__ import annotations

import json
import logging
import pickle
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from fuzz_kit import Reader
from safetensors.numpy import save

from llamakit.checkpoint.capabilities import (
    deep_checks,
    oddities,
    quantization,
    raw_regions,
    read_quantized,
    stored_as,
)
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.hf_checkpoint import open_huggingface
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.layout import axis_of, expected_shapes
from llamakit.checkpoint.meta_checkpoint import open_meta
from llamakit.checkpoint.model_support import check_loadable
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.pickle_records import Record, read_records
from llamakit.checkpoint.pth_writer import PthLayout
from llamakit.checkpoint.quantized_checkpoint import open_quantized, stored_specs
from llamakit.checkpoint.rounding import kinds_of
from llamakit.checkpoint.saved_tensors import SavedTensors
from llamakit.checkpoint.trainer_folders import open_trainer_folder
from llamakit.protocols import Checkpoint

PARAMS = {"dim": 32, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 8}
PARAMS |= {"multiple_of": 32, "norm_eps": 1e-5}
NUMBERS = ModelParams(32, 1, 4, 2, 8, 96)
SHAPES = expected_shapes(NUMBERS)
CONFIG = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 8}
CONFIG |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
CONFIG |= {"rms_norm_eps": 1e-5, "tie_word_embeddings": False}
WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 16}
CONFIG["quantization_config"] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": WEIGHTS}},
}
FAIRSEQ2 = {
    "tok_embeddings.weight": "decoder_frontend.embed.weight",
    "norm.weight": "decoder.layer_norm.weight",
    "output.weight": "final_proj.weight",
    **{
        f"layers.0.{ours}.weight": f"decoder.layers.0.{theirs}.weight"
        for ours, theirs in (
            *(("attention.wq", "self_attn.q_proj"), ("attention.wk", "self_attn.k_proj")),
            *(("attention.wv", "self_attn.v_proj"), ("attention.wo", "self_attn.output_proj")),
            *(("feed_forward.w1", "ffn.gate_proj"), ("feed_forward.w2", "ffn.output_proj")),
            *(("feed_forward.w3", "ffn.inner_proj"), ("ffn_norm", "ffn_layer_norm")),
            ("attention_norm", "self_attn_layer_norm"),
        )
    },
}


def ones(shape: Sequence[int], dtype: str = "float16") -> np.ndarray:
    return np.ones(shape, dtype)


def mistrals() -> bytes:
    return save({name: ones(shape) for name, shape in SHAPES.items()})


def fairseq2s(rank: int) -> dict[str, np.ndarray]:
    """Return what one of two tensor-parallel ranks holds."""
    halves = {}
    for name, shape in SHAPES.items():
        axis = axis_of(name, 0)
        whole = ones(shape)
        halves[FAIRSEQ2[name]] = whole if axis is None else np.split(whole, 2, axis)[rank]
    return halves


def packed() -> bytes:
    """Return weights in compressed-tensors' layout, in 4 bits."""
    tensors = {}
    for name, (rows, *columns) in SHAPES.items():
        theirs = to_huggingface(name) or ""
        if "proj" not in theirs:
            tensors[theirs] = ones((rows, *columns))
            continue
        module = theirs.removesuffix(".weight")
        tensors[f"{module}.weight_packed"] = ones((rows, columns[0] // 8), "int32")
        tensors[f"{module}.weight_scale"] = ones((rows, columns[0] // 16))
        tensors[f"{module}.weight_shape"] = np.array([rows, columns[0]], "int64")
    return save(tensors)


def rounded() -> dict[str, np.ndarray]:
    """Return weights as ``llamakit quantize`` stores them, in 8 bits."""
    kinds = kinds_of(NUMBERS, "int8")
    tensors = {name: ones(shape) for name, shape in SHAPES.items() if name not in kinds}
    for name, kind in kinds.items():
        rows, columns = SHAPES[name]
        tensors |= {
            it.name: ones(it.shape, it.dtype) for it in stored_specs(name, kind, (rows, columns))
        }
    return tensors


MARKER = {"version": 1, "quantize": "int8", "embedding_axis": 1, "family": "llama 1/2"}
MARKER |= {"tied_embeddings": False, "weight_map": dict.fromkeys(rounded(), "a.safetensors")}


def read_whole(checkpoint: Checkpoint | None) -> None:
    """Do what ``verify --deep`` and then conversions and engines do with a checkpoint."""
    if checkpoint is None:
        return
    list(deep_checks(checkpoint))
    oddities(checkpoint)
    stored_as(checkpoint)
    check_loadable(checkpoint, 1)
    for name, parameter in checkpoint.parameters.items():
        axis = parameter.axis or 0
        read_checked(checkpoint, name)
        read_checked(checkpoint, name, axis=axis, start=1, stop=3)
        raw_regions(checkpoint, parameter)
        if quantization(checkpoint, name):
            read_quantized(checkpoint, parameter)


def opened(
    opener: Callable[[Path], Checkpoint | None], others: Mapping[str, bytes], place: str = ""
) -> Callable[[bytes, Path], None]:
    """Return what opens a folder of the mutated file and of these others."""

    def read(data: bytes, path: Path) -> None:
        logging.disable()
        for name, content in others.items():
            file = path.parent / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.write_bytes(content)
        if place:
            (path.parent / place).write_bytes(data)
        read_whole(opener(path.parent))

    return read


def read_record(data: bytes, _: Path) -> None:
    """Read a pickle of records, and look at what the index of a DCP folder is read from."""
    match read_records(data, "x", NAMES):
        case Record(name=str(), arguments=tuple(), state=dict(state)):
            assert all(isinstance(key, str | Record) for key in state)


NAMES = ("pathlib.PurePosixPath", "collections.OrderedDict", "torch.float32", "a.B")
RECORDS = (
    pickle.dumps({"a": (1, [None, True, 2.5]), "b": OrderedDict(c=PurePosixPath("x"))}, 2),
    b"\x80\2ca\nB\n)\x81}(X\1\0\0\0actorch\nfloat32\nX\1\0\0\0bca\nB\n(K\1J\1\0\0\0tRub.",
)
PARAMS_JSON = {"params.json": json.dumps(PARAMS).encode()}
CONFIG_JSON = {"config.json": json.dumps(CONFIG).encode()}
RANKS = {f"pp_00/tp_{rank:02d}/sdp_00.safetensors": save(fairseq2s(rank)) for rank in (0, 1)}


def tensor_pth() -> bytes:
    """Return one tensor as torch.save writes it by itself."""
    layout = PthLayout("archive", [TensorSpec("a", "float32", (2, 3))], is_dict=False)
    values = bytes(24)
    head = layout.head + layout.before(0) + values
    return head + layout.after(0, zlib.crc32(values)) + layout.tail([zlib.crc32(values)])


def read_saved(data: bytes, path: Path) -> None:
    file = SavedTensors.open(path)
    file.view(file.locate("a", 0, len(data))).tobytes()


READERS = (
    Reader(
        "records",
        read_record,
        RECORDS,
        [b"}\x94" * 125_000 + b".", b"(" * 250_000 + b".", b"}" + b")\x81" * 9 + b"."],
        cases=200,
    ),
    Reader(
        "saved tensor",
        read_saved,
        [tensor_pth(), save({"a": ones((2, 3))})],
        cases=100,
    ),
    Reader(
        "rank of fairseq2",
        opened(open_trainer_folder, PARAMS_JSON | RANKS, "pp_00/tp_01/sdp_00.safetensors"),
        [RANKS["pp_00/tp_01/sdp_00.safetensors"]],
        cases=20,
    ),
    Reader(
        "first rank of fairseq2",
        opened(open_trainer_folder, PARAMS_JSON | RANKS, "pp_00/tp_00/sdp_00.safetensors"),
        [RANKS["pp_00/tp_00/sdp_00.safetensors"]],
        cases=20,
    ),
    Reader(
        "fairseq2",
        opened(open_trainer_folder, PARAMS_JSON),
        [save({FAIRSEQ2[name]: ones(shape) for name, shape in SHAPES.items()})],
        file="a.safetensors",
        cases=20,
    ),
    Reader(
        "Mistral",
        opened(open_meta, PARAMS_JSON),
        [save({name: ones(shape) for name, shape in SHAPES.items()})],
        file="consolidated.safetensors",
        cases=20,
    ),
    Reader(
        "quantization.json",
        opened(open_quantized, PARAMS_JSON | {"a.safetensors": save(rounded())}),
        [json.dumps(MARKER).encode()],
        [json.dumps(MARKER | {"family": []}).encode()],
        file="quantization.json",
        cases=20,
    ),
    Reader(
        "rounded weights",
        opened(open_quantized, PARAMS_JSON | {"quantization.json": json.dumps(MARKER).encode()}),
        [save(rounded())],
        file="a.safetensors",
        cases=20,
    ),
    Reader(
        "quantization_config",
        opened(open_huggingface, {"model.safetensors": packed()}),
        [json.dumps(CONFIG).encode()],
        [json.dumps(CONFIG).replace('"num_bits": 4', '"num_bits": 4.0').encode()],
        file="config.json",
        cases=20,
    ),
    Reader(
        "compressed weights",
        opened(open_huggingface, CONFIG_JSON),
        [packed()],
        file="model.safetensors",
        cases=20,
    ),
)
