"""Files laid out by ``PthLayout``, judged by torch and by Python's zipfile."""

from __future__ import annotations

import zipfile
import zlib

import numpy as np
import pytest
from lazy_torch import torch
from pth_files import write_pth

from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.pth_reader import PthFile
from llamakit.checkpoint.pth_writer import PthLayout
from llamakit.errors import UnsupportedModelError

ARRAYS = {
    "a": np.arange(10, dtype=np.float16),
    "b": np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32),
    "c": np.arange(7, dtype=np.int64),
    "one": np.array(3, np.float32),
    "none": np.zeros((0, 3), np.float32),
}


def write(path, arrays=ARRAYS, shared=()):
    return write_pth(
        path, arrays, [TensorSpec(name, "float32", (3, 5), same_as="b") for name in shared]
    )


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_what_was_written(tmp_path, mmap):
    path = write(tmp_path / "consolidated.00.pth")

    loaded = torch.load(path, weights_only=True, mmap=mmap)

    assert list(loaded) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert loaded[name].shape == array.shape
        assert loaded[name].numpy().tobytes() == array.tobytes()


def test_every_crc_is_right_and_every_value_aligned(tmp_path):
    path = write(tmp_path / "x.pth")

    assert zipfile.ZipFile(path).testzip() is None
    assert all(tensor.offset % 64 == 0 for tensor in PthFile.open(path).tensors.values())


def test_a_wrong_crc_is_noticed_by_testzip(tmp_path):
    path = write(tmp_path / "x.pth")
    data = bytearray(path.read_bytes())
    data[PthFile.open(path).tensors["a"].offset] ^= 1
    path.write_bytes(data)

    assert zipfile.ZipFile(path).testzip() == "x/data/0"


def test_our_reader_reads_what_our_writer_wrote(tmp_path):
    file = PthFile.open(write(tmp_path / "x.pth"))

    for name, array in ARRAYS.items():
        assert file.array(name).tobytes() == array.tobytes()


def test_tensors_that_share_values_are_stored_once(tmp_path):
    path = write(tmp_path / "x.pth", shared=["d"])

    loaded = torch.load(path, weights_only=True)

    assert loaded["d"].data_ptr() == loaded["b"].data_ptr()
    assert path.stat().st_size < write(tmp_path / "y.pth").stat().st_size + 400


def test_the_members_are_those_of_torch(tmp_path):
    torch.save(
        {name: torch.from_numpy(array) for name, array in ARRAYS.items()}, tmp_path / "t.pth"
    )
    write(tmp_path / "t2.pth")

    def members(name):
        infos = zipfile.ZipFile(tmp_path / name).infolist()
        return {
            it.filename.partition("/")[2]: (it.file_size, it.CRC, it.flag_bits, it.compress_type)
            for it in infos
            if not it.filename.endswith(("data.pkl", "serialization_id"))
        }

    theirs = members("t.pth")
    assert {name: members("t2.pth").get(name) for name in theirs} == theirs


def test_a_dtype_that_torch_has_no_storage_for_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"float8_e4m3fn.*with dtype"):
        PthLayout("x", [TensorSpec("w", "float8_e4m3fn", (2,))])


@pytest.mark.soak
def test_members_over_4_gib_are_read_by_torch_and_zipfile(tmp_path):
    path = tmp_path / "large.pth"
    layout = PthLayout(
        "large", [TensorSpec("a", "float16", (5 << 29,)), TensorSpec("b", "int8", (3,))]
    )
    zeros = bytes(1 << 26)
    crc = 0
    for _ in range((5 << 30) // len(zeros)):
        crc = zlib.crc32(zeros, crc)
    with path.open("wb") as file:
        file.write(layout.head + layout.before(0))
        file.seek(5 << 30, 1)  # a hole takes no room on the disk
        file.write(layout.after(0, crc) + layout.before(1) + b"abc")
        file.write(layout.after(1, zlib.crc32(b"abc")) + layout.tail([crc, zlib.crc32(b"abc")]))

    loaded = torch.load(path, weights_only=True, mmap=True)

    assert loaded["a"].shape == (5 << 29,)
    assert loaded["b"].numpy().tobytes() == b"abc"
    assert PthFile.open(path).array("b").tobytes() == b"abc"
    assert zipfile.ZipFile(path).testzip() is None
    assert path.stat().st_size == layout.nbytes


def test_torch_finds_values_where_it_works_out_that_they_are(tmp_path):
    path = write(tmp_path / "x.pth")

    with torch.utils.serialization.config.patch("load.calculate_storage_offsets", True):
        loaded = torch.load(path, weights_only=True, mmap=True)

    assert loaded["one"].item() == 3
    assert loaded["c"].tolist() == list(range(7))
