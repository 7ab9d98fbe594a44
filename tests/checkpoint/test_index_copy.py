"""A sparse copy of an index opens as the whole file does, after a few ranges of it."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from pth_files import save_pth, write_pth

from llamakit.checkpoint.index_copy import END_NBYTES, MAX_HEADERS, copy_index
from llamakit.checkpoint.shards import open_shard
from llamakit.errors import DamagedFileError, UnsupportedModelError


def arrays(count, nbytes=20_000):
    return {
        f"layers.{index}.wq.weight": np.arange(nbytes // 4, dtype="f4") for index in range(count)
    }


def copied(path, tmp_path):
    """Copy the index of a file; return the copy and the ranges that were asked for."""
    data = path.read_bytes()
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir(exist_ok=True)
    steps, asked, answer = copy_index(copy, len(data)), [], None
    while True:
        try:
            start, stop = steps.send(answer)
        except StopIteration:
            return copy, asked
        assert 0 <= start < stop <= len(data)
        asked.append((start, stop))
        answer = data[start:stop]


def unaligned(path, source, padding=0):
    """Write the members of a .pth as another zip program does, not padded as torch pads them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            entry = zipfile.ZipInfo(member.filename)
            entry.extra = b"XX" + padding.to_bytes(2, "little") + bytes(padding) if padding else b""
            new.writestr(entry, old.read(member))
    return path


@pytest.mark.parametrize("write", [save_pth, lambda it, path: write_pth(path, it)])
@pytest.mark.parametrize("count", [3, 300])
def test_a_pth_is_opened_from_its_two_ends(tmp_path, write, count):
    path = tmp_path / "consolidated.00.pth"
    write(arrays(count), path)

    copy, asked = copied(path, tmp_path)

    assert open_shard(copy).tensors == open_shard(path).tensors
    assert len(asked) == (1 if count == 3 else 2)
    assert sum(stop - start for start, stop in asked) <= 2 * END_NBYTES
    assert copy.stat().st_size == path.stat().st_size


def test_a_directory_and_a_pickle_longer_than_the_ends_are_fetched_too(tmp_path):
    path = write_pth(tmp_path / "consolidated.00.pth", arrays(3000, nbytes=400))

    copy, asked = copied(path, tmp_path)

    assert open_shard(copy).tensors == open_shard(path).tensors
    assert 3 <= len(asked) <= 4


@pytest.mark.parametrize("padding", [0, 7])
def test_headers_that_are_not_as_torchs_are_fetched(tmp_path, padding):
    whole = write_pth(tmp_path / "whole.pth", arrays(30))
    path = unaligned(tmp_path / "consolidated.00.pth", whole, padding)

    copy, asked = copied(path, tmp_path)

    assert open_shard(copy).tensors == open_shard(path).tensors
    assert len(asked) <= 2 + 30


def test_too_many_of_them_are_refused_with_what_to_do(tmp_path):
    whole = write_pth(tmp_path / "whole.pth", arrays(120))
    path = unaligned(tmp_path / "consolidated.00.pth", whole)

    with pytest.raises(UnsupportedModelError, match=f"more than {MAX_HEADERS} requests"):
        copied(path, tmp_path)


def test_a_safetensors_is_opened_from_its_header(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "consolidated.00.safetensors"
    save_file(arrays(4000, nbytes=400), path)

    copy, asked = copied(path, tmp_path)

    assert open_shard(copy).tensors == open_shard(path).tensors
    assert [start for start, _ in asked] == [0, END_NBYTES]


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\3\4", b"<!DOCTYPE html>" + bytes(900_000), bytes(700_000), b"PK\3\4" * 200_000],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_is_no_file_of_tensors_is_refused_as_the_whole_file_is(tmp_path, data, suffix):
    path = tmp_path / f"consolidated.00.{suffix}"
    path.write_bytes(data)

    copy, _ = copied(path, tmp_path)

    with pytest.raises(DamagedFileError) as of_file:
        open_shard(path)
    with pytest.raises(DamagedFileError) as of_copy:
        open_shard(copy)
    assert str(of_copy.value) == str(of_file.value).replace(str(path), str(copy))


@pytest.mark.parametrize("at", range(0, 700, 21))
def test_a_damaged_directory_never_asks_for_what_is_not_there(tmp_path, at):
    data = bytearray(write_pth(tmp_path / "whole.pth", arrays(40)).read_bytes())
    data[-1 - at] ^= 0xFF
    path = tmp_path / "consolidated.00.pth"
    path.write_bytes(data)

    copy, _ = copied(path, tmp_path)

    assert copy.stat().st_size == len(data)
