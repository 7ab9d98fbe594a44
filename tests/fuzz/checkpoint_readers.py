"""Readers of what is in the folder of a checkpoint, with seeds that they read."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fuzz_kit import Reader
from pth_files import write_pth

from llamakit.checkpoint.checklist import read_checklist
from llamakit.checkpoint.family_detection import embedding_axis
from llamakit.checkpoint.hf_checkpoint import open_huggingface
from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.not_weights import describe_not_weights, describe_other_format
from llamakit.checkpoint.params import ModelParams, parse_params, read_params, to_meta_json
from llamakit.checkpoint.pickle_reader import read_pickle
from llamakit.checkpoint.provenance import RecordedFile, Source, Step, format_steps
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.checkpoint.pth_reader import PthFile
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.checkpoint.shard_plan import valid_sizes
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.examine.contents import NonFiniteCounts
from llamakit.examine.history import follow_history

PARAMS = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": -1}
PARAMS |= {"multiple_of": 8, "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 5e5}
CONFIG = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 8}
CONFIG |= {"num_attention_heads": 4, "intermediate_size": 8, "rms_norm_eps": 1e-5}
CONFIG |= {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "tie_word_embeddings": True}
INDEX = {"metadata": {"total_size": 16}, "weight_map": {"model.norm.weight": "a.safetensors"}}

FILE = RecordedFile("a", 1, "0" * 32)
RECORD = format_steps(
    [
        Step(
            "download", {}, "x", (Source("7B", "catalog", ()),), (RecordedFile("a", 1, "0" * 32),)
        ),
        Step("edit", {"drop": ["a"]}, "x", (Source("src", "meta", (), 0),), (), {"dtype": "int8"}),
    ]
)
MANY = Step("b", {}, "x", (Source("..", "meta", (), 0), Source("src", "meta", (), 0)) * 50, ())


def follow(path: Path, steps: Sequence[Step]) -> None:
    list(follow_history(path, steps, {}))


def pth() -> bytes:
    arrays = {"norm.weight": np.ones(4, "float16"), "output.weight": np.ones((2, 3), "float32")}
    with tempfile.TemporaryDirectory() as folder:
        return write_pth(Path(folder) / "seed.pth", arrays).read_bytes()


def pickled() -> bytes:
    with zipfile.ZipFile(io.BytesIO(pth())) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))


def with_pickle(data: bytes) -> bytes:
    """Put a pickle into a file as torch does."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", bytes(4))
    return file.getvalue()


def tensor_of(values: int, stride: int) -> bytes:
    """Pickle a tensor of so many values over a storage of one."""
    storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\1tQ"
    shape = b"\x8a\7" + values.to_bytes(7, "little") + b"\x85"
    stride_ = b"\x8a\7" + stride.to_bytes(7, "little") + b"\x85"
    arguments = storage + b"K\0" + shape + stride_ + b"\x89N"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"tR"
    return b"\x80\2}X\1\0\0\0a" + rebuilt + b"s."


def zip_of_members(count: int) -> bytes:
    """Make a zip whose directory has so many members, all of them empty."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 9, len(b"a/1234567"), *[0] * 6)
    directory = b"".join([entry + b"a/%07d" % number for number in range(count)])
    end = struct.pack("<4s4H2IH", b"PK\5\6", *[0] * 4, len(directory), 4, 0)
    return b"PK\3\4" + directory + end


def safetensors(header: bytes | None = None) -> bytes:
    entry = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}
    other = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}
    described = {"model.norm.weight": entry, "b": other, "__metadata__": {"format": "pt"}}
    text = json.dumps(described).encode() if header is None else header
    return len(text).to_bytes(8, "little") + text + bytes(16)


def of_tensors(count: int) -> bytes:
    """Describe so many tensors, all of them empty but one."""
    entries = [
        b'"%06d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % it for it in range(count)
    ]
    entries.append(b'"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}')
    return b"{" + b",".join(entries) + b"}"


def read_tensors(file: TensorFile) -> None:
    """Do what ``verify --deep`` and ``diff`` do with a file of tensors."""
    counts = NonFiniteCounts(file)
    counts.update(0, memoryview(file.path.read_bytes()))
    counts.finish()
    for name in file.tensors:
        file.array(name).tobytes()


def read_params_json(_: bytes, path: Path) -> None:
    params = parse_params(read_params(path), path, vocab_size=8)
    json.dumps(to_meta_json(params)).encode()
    if params.n_layers < 100:
        expected_parameters(params, 0)
    valid_sizes(params)


def read_checkpoint(_: bytes, path: Path) -> None:
    folder = path.parent
    for name, content in (("config.json", CONFIG), ("model.safetensors.index.json", INDEX)):
        if name != path.name:
            (folder / name).write_text(json.dumps(content))
    (folder / "a.safetensors").write_bytes(safetensors())
    open_huggingface(folder)


READERS = (
    Reader(
        "pth",
        lambda _, path: read_tensors(PthFile.open(path)),
        [pth()],
        [
            with_pickle(tensor_of(2**40, 0)),
            with_pickle(tensor_of(2**20, 0)),
            with_pickle(pickle.dumps({"a" * 60_000_000: 1})),
            zip_of_members(1_100_000),
            zip_of_members(30_000),
        ],
        file="consolidated.00.pth",
    ),
    Reader(
        "pickle",
        lambda data, _: read_pickle(data, "x.pth"),
        [pickled(), tensor_of(1, 1)],
        [
            b"\x80\2}X\3\0\0\0\xed\xa0\x80NS.",
            b"}\x94" * 125_000 + b".",
            b"(" * 250_000 + b".",
            b")" + b"\x85" * 100_000 + b".",
            b")" + b"q\0h\0h\0\x86" * 50_000 + b".",
            b"\x80\2}X" + struct.pack("<I", 4 << 20) + b"a" * (4 << 20) + b"Ns.",
        ],
    ),
    Reader(
        "safetensors",
        lambda _, path: read_tensors(SafetensorsFile.open(path)),
        [safetensors()],
        [
            safetensors(b"{" + b"[" * 100_000 + b"}"),
            safetensors(of_tensors(30_000)),
            safetensors(of_tensors(450_000)),
            safetensors(b'{"\\u001b]0;x":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}'),
            safetensors(
                b'{"%s":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}' % (b"a" * 2000)
            ),
        ],
        file="model.safetensors",
    ),
    Reader(
        "params",
        read_params_json,
        [json.dumps(PARAMS).encode()],
        [
            b"[" * 100_000,
            b'{"a":' * 100_000,
            rb'{"\ud800": 1}',
            json.dumps(PARAMS | {"x" * 2_000_000: 1}).encode(),
            json.dumps(PARAMS | {"dim": 2**30, "n_heads": 2**30, "n_kv_heads": 2**30}).encode(),
            json.dumps(PARAMS | {"\x1b[2J": 1}, ensure_ascii=False).encode(),
        ],
        file="params.json",
    ),
    Reader("config", read_checkpoint, [json.dumps(CONFIG).encode()], file="config.json", cases=300),
    Reader(
        "index",
        read_checkpoint,
        [json.dumps(INDEX).encode()],
        [
            json.dumps({"weight_map": {"\x1b[2J": "a.safetensors"}}).encode(),
            json.dumps({"weight_map": {"a" * 2_000_000: "a.safetensors"}}).encode(),
            json.dumps({"weight_map": {"a": "../\x1b" + "a" * 2_000_000}}).encode(),
        ],
        file="model.safetensors.index.json",
        cases=300,
    ),
    Reader(
        "training checkpoint",
        lambda data, _: read_pickle(data, "x.pth", "model"),
        [
            pickle.dumps({"model": {"a": 1}, "b": {1: 2.0, 3: {4}}, "c": Path("/x")}, 2),
            b"\x80\x02}X\x05\0\0\0model" + tensor_of(1, 1)[2:-1] + b"s.",
            b"\x80\x02}(X\1\0\0\0acargparse\nNamespace\n)\x81}bX\1\0\0\0b" + b"K\1u.",
        ],
        [
            b"\x80\x02}(" + b"K\1N" * 80_000 + b"u.",
            b"\x80\x02}"
            + b"".join(b"q\1}(X\1\0\0\0ah\1X\1\0\0\0bh\1u" for _ in range(9000))
            + b".",
            b"\x80\x02ca\n" + b"b" * 2_000_000 + b"\n.",
            b"\x80\x02}X\x05\0\0\0model(" + b"\x8b\xff\xff\x3f\0" + b"\1" * 4_000_000 + b"ts.",
        ],
    ),
    Reader(
        "checklist",
        lambda _, path: read_checklist(path),
        [
            b"%032x  ./consolidated.00.pth\n%032x  params.json\r\n" % (1, 2),
            b"MD5 (a) = %032x\n\\%064x *b\\\\c\n" % (1, 2),
            b"MD5 hash of a b:\r\n%032x\r\nCertUtil: done.\r\n" % 1,
            b'"Algorithm","Hash","Path"\r\n"MD5","%032x","C:\\a\\b"\r\n' % 1,
            b"Algorithm : MD5\nHash      : %032x\nPath      : C:\\a\n            b\n" % 1,
            b"MD5  Size  Name\n----\n%032x  1  a\n----\n" % 1,
            f"{1:032x}  a\n".encode("utf-16"),
        ],
        [b"%032x  \x1b[2J\n" % 1, b"%032x  " % 1 + b"a" * 2_000_000, b"a" * 2_000_000],
        file="checklist.chk",
    ),
    Reader(
        "reshard.json",
        lambda _, path: embedding_axis(None, ModelParams(64, 2, 4, 4, 8, 8), 1, path.parent),
        [b'{"embedding_axis": 0}'],
        [b"[" * 100_000],
        file="reshard.json",
    ),
    Reader(
        "llamakit.json",
        lambda _, path: follow(path.parent, read_steps(path.parent)),
        [RECORD],
        [
            b"[" * 100_000,
            b'{"format": "llamakit provenance 1", "steps": [' + b"{}," * 200 + b"{}]}",
            format_steps([Step("a", {}, "x", (), (FILE,) * 2000), *[MANY] * 10]),
            RECORD.replace(b"src", b"\\u001b]0;x\\u0007"),
            RECORD.replace(b'"a"', b'"../../../../../../etc/passwd"'),
        ],
        file="llamakit.json",
    ),
    Reader(
        "error pages",
        lambda data, _: describe_not_weights(data) or describe_other_format(data),
        [b"<html><title>403</title></html>", b"<?xml?><Error><Code>No</Code>"],
        [b"<title>" * 100_000],
    ),
)
