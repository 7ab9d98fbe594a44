import io
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lazy_torch import torch

from llamakit.checkpoint import pickle_machine, pickle_reader
from llamakit.checkpoint.pickle_reader import read_pickle
from llamakit.checkpoint.torch_globals import TensorRecord
from llamakit.errors import (
    CheckpointError,
    DamagedFileError,
    LlamakitError,
    ParametersError,
    UnsafePickleError,
)


def pickle_of(value, protocol=2):
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("archive/data.pkl")


STATE_DICT = (  # torch.save's pickle of torch.nn.Linear(3, 2).state_dict(), for where no torch is
    b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x06\x00\x00\x00weightq\x02ctorch._utils"
    b"\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X"
    b"\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x06tq\x08QK\x00K\x02K\x03\x86q\tK\x03K"
    b"\x01\x86q\n\x89h\x00)Rq\x0btq\x0cRq\rX\x04\x00\x00\x00biasq\x0eh\x03((h\x04h\x05X\x01\x00"
    b"\x00\x001q\x0fh\x07K\x02tq\x10QK\x00K\x02\x85q\x11K\x01\x85q\x12\x89h\x00)Rq\x13tq\x14Rq"
    b"\x15u}q\x16X\t\x00\x00\x00_metadataq\x17h\x00)Rq\x18X\x00\x00\x00\x00q\x19}q\x1aX\x07\x00"
    b"\x00\x00versionq\x1bK\x01sssb."
)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_dict_of_tensors_is_read_in_every_protocol(protocol):
    tensor = torch.zeros(10, dtype=torch.bfloat16)[4:].view(2, 3)

    records = read_pickle(pickle_of({"a": tensor}, protocol), "x.pth")

    assert records == {"a": TensorRecord("0", "bfloat16", 10, 4, (2, 3), (3, 1))}


def test_a_state_dict_with_its_metadata_is_read():
    records = read_pickle(STATE_DICT, "x.pth")

    assert [(name, record.shape) for name, record in records.items()] == [
        ("weight", (2, 3)),
        ("bias", (2,)),
    ]


def test_a_parameter_is_read_as_its_tensor():
    records = read_pickle(pickle_of({"a": torch.nn.Parameter(torch.zeros(3))}), "x.pth")

    assert records["a"] == TensorRecord("0", "float32", 3, 0, (3,), (1,))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "uint16"])
def test_a_dtype_without_a_storage_class_is_read(dtype):
    records = read_pickle(
        pickle_of({"a": torch.zeros(4, dtype=getattr(torch, dtype))[1:]}), "x.pth"
    )

    assert (records["a"].dtype, records["a"].storage_numel) == (dtype, 4)
    assert (records["a"].offset, records["a"].shape) == (1, (3,))


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it-ran"


def hostile_pickles(marker):
    command = f"touch {marker}".encode()
    line = b"X" + struct.pack("<I", len(command)) + command
    return {
        "GLOBAL and REDUCE": b"\x80\x02cposix\nsystem\n(" + line + b"tR.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93(" + line + b"tR.",
        "INST": b"(" + line + b"iposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\n" + line + b"o.",
        "NEWOBJ": b"\x80\x02cposix\nsystem\n(" + line + b"t\x81.",
        "BUILD": b"\x80\x02}cposix\nsystem\n(" + line + b"tRb.",
        "inside a tensor": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cposix\nsystem\n("
        + line
        + b"tRtR.",
    }


@pytest.mark.parametrize("way", hostile_pickles(""))
def test_a_pickle_that_runs_a_program_is_refused_by_name_and_not_run(way, marker):
    data = hostile_pickles(marker)[way]

    with pytest.raises(UnsafePickleError) as caught:
        read_pickle(data, "consolidated.00.pth")

    message = str(caught.value)
    assert message.startswith("consolidated.00.pth asks for ")
    assert "posix.system, which no tensor needs; nothing was run" in message
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_that_runs_a_program_is_refused_in_every_protocol(protocol, marker):
    data = pickle.dumps({"a": Hostile(marker)}, protocol)

    with pytest.raises(UnsafePickleError):
        read_pickle(data, "x.pth")

    assert not marker.exists()


@pytest.mark.parametrize(
    "name", [b"os\nsystem", b"builtins\neval", b"torch\nload", b"t\x1b\n\xc3\xa9"]
)
def test_other_names_are_refused_too(name):
    with pytest.raises(UnsafePickleError, match="nothing was run"):
        read_pickle(b"\x80\x02c" + name + b"\n.", "x.pth")


@pytest.mark.parametrize(
    ("operation", "data"),
    [
        ("OBJ", b"(o."),
        ("NEWOBJ", b"\x80\x02)\x81."),
        ("NEWOBJ_EX", b"\x92."),
        ("EXT1", b"\x82\x01."),
        ("PERSID", b"Px\n."),
        ("STRING", b"S'\\q'\n."),
        ("BYTEARRAY8", b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f."),
    ],
)
def test_an_operation_that_no_tensor_needs_is_refused_by_name(operation, data):
    with pytest.raises(UnsafePickleError, match=f"the pickle operation {operation},"):
        read_pickle(data, "x.pth")


def test_a_state_with_anything_but_metadata_is_refused():
    data = b"\x80\x02}}X\x05\x00\x00\x00itemsK\x01sb."

    with pytest.raises(UnsafePickleError, match="a state other than _metadata"):
        read_pickle(data, "x.pth")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends too early"),
        (b"\x80\x02", "ends too early"),
        (b"\x80\x02cposix", "ends within a name"),
        (b"\xff", "0xff is no operation"),
        (b".", "stack runs empty"),
        (b"t.", "a mark is missing"),
        (b"(0.", "asks for"),
        (b"h\x05.", "nothing is remembered as 5"),
        (b"j\xff\xff\xff\xff.", "nothing is remembered as 4294967295"),
        (b"X\xff\xff\xff\x7fab", "expected 2147483647 bytes"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab", "is damaged"),
        (b"}K\x01K\x02K\x03s.", "no dict where one is filled"),
        (b"}(K\x01u.", "a key has no value"),
        (b"}})s.", "a key is not text"),
        (b"K\x01)R.", "called that is no function"),
        (b"K\x01Q.", "in a way that torch does not write"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "too many or too few arguments"),
        (b"ccollections\nOrderedDict\nK\x01\x85R.", "too many or too few arguments"),
    ],
)
def test_a_malformed_pickle_is_damage_and_says_where(data, said):
    with pytest.raises(CheckpointError) as caught:
        read_pickle(data, "x.pth")

    assert said in str(caught.value)


def tensor_pickle(offset=b"K\x00", shape=b"K\x02\x85", stride=b"K\x01\x85", length=b"K\x02"):
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    storage += length + b"tQ"
    arguments = b"(" + storage + offset + shape + stride + b"\x89NtR"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"s."


def test_the_hand_made_pickle_of_a_tensor_is_read():
    records = read_pickle(tensor_pickle(), "x.pth")

    assert records["a"] == TensorRecord("0", "float16", 2, 0, (2,), (1,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offset": b"K\x01"}, "reaches value 3 of a storage of 2"),
        ({"offset": b"J\xff\xff\xff\xff"}, "not made of counts"),
        ({"offset": b"\x88"}, "not made of counts"),
        ({"shape": b"K\x03\x85"}, "reaches value 3 of a storage of 2"),
        ({"shape": b"J\xff\xff\xff\xff\x85"}, "not made of counts"),
        ({"shape": b"K\x02K\x02\x86"}, "different lengths"),
        (
            {"shape": b"\x8a\x06" + bytes(5) + b"\x01\x85", "stride": b"K\x00\x85"},
            "has 1099511627776 values in a storage of 2",
        ),
        ({"stride": b"K\x09\x85"}, "reaches value 10 of a storage of 2"),
        ({"stride": b"J\xff\xff\xff\xff\x85"}, "not made of counts"),
        ({"stride": b"K\x01"}, "not made of counts"),
        ({"length": b"J\xff\xff\xff\xff"}, "in a way that torch does not write"),
        ({"shape": b"\x8a\x08" + b"\xff" * 7 + b"\x1f\x85", "stride": b"K\x00\x85"}, "impossible"),
        (
            {"shape": b"(" + b"K\x01" * 40 + b"t", "stride": b"(" + b"K\x01" * 40 + b"t"},
            "impossible",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_damage(change, said):
    with pytest.raises(DamagedFileError) as caught:
        read_pickle(tensor_pickle(**change), "x.pth")

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda: {"model": OrderedDict(a=torch.zeros(2))}, "holds a dict under 'model'"),
        (lambda: {"a": torch.zeros(2), "epoch": 3}, "holds an int under 'epoch'"),
        (lambda: {"a": torch.zeros(2), "list": [1.5, None]}, "holds a list of 2 under 'list'"),
        (lambda: torch.zeros(2), "holds a tensor; expected a dict"),
    ],
)
def test_what_is_no_flat_dict_of_tensors_is_refused(value, said):
    with pytest.raises(ParametersError) as caught:
        read_pickle(pickle_of(value()), "x.pth")

    assert said in str(caught.value)


def test_a_huge_memo_index_takes_no_memory():
    data = b"\x80\x02}r\xff\xff\xff\xff."

    assert read_pickle(data, "x.pth") == {}


def test_a_pickle_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(pickle_reader, "MAX_NBYTES", 10)

    with pytest.raises(DamagedFileError, match=r"has \d+ bytes; no checkpoint needs over 10"):
        read_pickle(STATE_DICT, "x.pth")


def test_too_many_operations_are_refused(monkeypatch):
    monkeypatch.setattr(pickle_machine.Machine, "max_operations", 10)

    with pytest.raises(DamagedFileError, match="over 10 operations"):
        read_pickle(STATE_DICT, "x.pth")


def reads_or_refuses(data):
    with suppress(LlamakitError):
        read_pickle(data, "x.pth")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_foreign(data):
    reads_or_refuses(data)


OPERATIONS = st.sampled_from(
    [operation.code.encode("latin-1") for operation in pickletools.opcodes]
)
FRAGMENTS = st.sampled_from(
    [
        *(
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ccollections\nOrderedDict\n",
            b"ctorch\nint8\n",
        ),
        *(b"X\x07\x00\x00\x00storage", b"K\x01", b"ctorch\nHalfStorage\n", b")", b"}", b"(", b"N"),
    ]
)


@given(st.lists(OPERATIONS | FRAGMENTS | st.binary(max_size=3), max_size=40).map(b"".join))
def test_arbitrary_operations_raise_nothing_foreign(data):
    reads_or_refuses(data)


@given(st.integers(0, len(STATE_DICT) * 8 - 1))
def test_a_flipped_bit_raises_nothing_foreign(bit):
    data = bytearray(STATE_DICT)
    data[bit // 8] ^= 1 << bit % 8

    reads_or_refuses(bytes(data))


@given(st.integers(0, len(STATE_DICT) - 1))
def test_a_pickle_truncated_anywhere_is_damage(length):
    with pytest.raises(DamagedFileError):
        read_pickle(STATE_DICT[:length], "x.pth")
