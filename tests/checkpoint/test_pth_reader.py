import gc
import mmap
import resource
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lazy_torch import torch

from llamakit.checkpoint import tensor_file, zip_index
from llamakit.checkpoint.pth_reader import PthFile
from llamakit.errors import DamagedFileError, LlamakitError, ParametersError, UnsafePickleError

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

FDS = Path("/proc/self/fd")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "consolidated.00.pth"


@pytest.fixture
def saved(path):
    """A whole file of three tensors."""
    torch.save({"a": torch.arange(12.0).view(3, 4), "b": torch.ones(5), "c": torch.zeros(2)}, path)
    return path


def rezip(source, target, *, change=None, compression=zipfile.ZIP_STORED, **options):
    """Write the members of a zip again; ``change(name, data)`` may give other bytes, or None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = old.read(name) if change is None else change(name, old.read(name))
            if data is not None:
                with new.open(
                    zipfile.ZipInfo(name) if not compression else name, "w", **options
                ) as f:
                    f.write(data)


@pytest.mark.parametrize(
    "dtype",
    [
        *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn"),
        *("int64", "int32", "int16", "int8", "uint8", "bool"),
    ],
)
def test_every_dtype_is_read_as_torch_reads_it(path, dtype):
    tensor = torch.arange(24).view(4, 6).to(getattr(torch, dtype))
    torch.save({"a": tensor}, path)

    array = PthFile.open(path).array("a")

    assert str(array.dtype) == dtype
    assert array.tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes()


def test_views_are_read_as_torch_reads_them(path, as_torch):
    base = torch.arange(60.0).view(6, 10)
    views = {
        "whole": base,
        "offset": base[2:],
        "columns": base[:, 3:7],
        "transposed": base.t(),
        "steps": base[::2, ::3],
        "row repeated": base[:1].expand(4, 10),
        "no axes": base[1, 1],
        "empty": base[:0],
        "empty too": torch.zeros(0, 3),
        "three axes": base.view(6, 5, 2).permute(2, 0, 1),
    }
    torch.save(views, path)

    file = PthFile.open(path)

    for name, tensor in torch.load(path).items():
        assert torch.equal(as_torch(file.array(name)), tensor), name
        assert file.tensors[name].contiguous == tensor.is_contiguous(), name


def test_tensors_that_share_a_storage_share_its_bytes(path):
    base = torch.arange(6.0)
    torch.save({"a": base, "b": base[3:]}, path)

    tensors = PthFile.open(path).tensors

    assert tensors["b"].offset == tensors["a"].offset + 3 * 4


def test_offsets_are_those_of_the_bytes_in_the_file(saved):
    tensors = PthFile.open(saved).tensors

    data = saved.read_bytes()

    a = tensors["a"]
    assert (a.nbytes, a.end, a.contiguous) == (48, a.offset + 48, True)
    assert data[a.offset : a.end] == np.arange(12, dtype="<f4").tobytes()


@pytest.mark.parametrize(("axis", "start", "stop"), [(0, 1, 3), (1, 1, 2), (0, 2, 2), (1, 0, None)])
def test_a_slice_is_that_of_the_whole(saved, axis, start, stop):
    file = PthFile.open(saved)

    part = file.read("a", axis=axis, start=start, stop=stop)

    index = (slice(start, stop), slice(None)) if axis == 0 else (slice(None), slice(start, stop))
    assert np.array_equal(part, np.arange(12.0).reshape(3, 4)[index])
    assert not part.size or not part.flags.owndata


@pytest.mark.parametrize(("axis", "start", "stop"), [(2, 0, 1), (-1, 0, 1), (0, 0, 4), (0, 2, 1)])
def test_a_slice_that_is_not_there_is_a_value_error(saved, axis, start, stop):
    with pytest.raises(ValueError, match="no slice"):
        PthFile.open(saved).read("a", axis=axis, start=start, stop=stop)


def test_writing_to_an_array_leaves_the_file_as_it_was(saved):
    before = saved.read_bytes()

    PthFile.open(saved).array("a")[:] = 7

    assert saved.read_bytes() == before


def test_an_array_outlives_the_file_object_and_its_name(saved):
    array = PthFile.open(saved).array("a")
    saved.unlink()
    gc.collect()

    assert array.sum() == 66


@pytest.mark.skipif(not FDS.is_dir(), reason="counts open files as Linux does")
def test_maps_and_handles_die_with_their_arrays(saved):
    before = list(FDS.iterdir())

    file = PthFile.open(saved)
    opened = list(FDS.iterdir())
    arrays = [file.array(name) for name in file.tensors]
    mapped = list(FDS.iterdir())
    del arrays
    gc.collect()

    assert len(opened) == len(before)
    assert len(mapped) == len(before) + 1
    assert len(list(FDS.iterdir())) == len(before)


def test_more_tensors_than_open_files_are_allowed_can_be_mapped_at_once(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    torch.save({str(n): torch.full((2,), float(n)) for n in range(300)}, path)
    file = PthFile.open(path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        arrays = [file.array(name) for name in file.tensors]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert [array[0] for array in arrays] == list(range(300))


def test_tensors_larger_than_a_window_or_across_two_are_read(path, monkeypatch):
    monkeypatch.setattr(tensor_file, "_WINDOW", mmap.ALLOCATIONGRANULARITY)
    tensors = {str(n): torch.arange(n * 700.0) for n in range(1, 8)}
    torch.save(tensors, path)

    file = PthFile.open(path)

    assert all(np.array_equal(file.array(name), tensor) for name, tensor in tensors.items())


def test_zip64_headers_before_the_members_are_honoured(saved, tmp_path):
    target = tmp_path / "wide.pth"
    rezip(saved, target, force_zip64=True)

    assert np.array_equal(PthFile.open(target).array("a"), np.arange(12.0).reshape(3, 4))


def test_zip64_sizes_in_the_directory_are_honoured(saved, tmp_path, monkeypatch):
    target = tmp_path / "wide.pth"
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 4)
    rezip(saved, target, force_zip64=True)
    assert b"PK\6\6" in target.read_bytes()

    assert np.array_equal(PthFile.open(target).array("b"), np.ones(5))


def test_a_comment_after_the_zip_is_no_fault(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.comment = b"from a friend"

    assert PthFile.open(saved).array("b").sum() == 5


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.999])
def test_a_file_truncated_is_said_to_be_with_its_size(path, kept):
    torch.save({"a": torch.zeros(5000), "b": torch.zeros(5000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])

    with pytest.raises(DamagedFileError) as caught:
        PthFile.open(path)

    message = str(caught.value)
    assert f"{path} is truncated: it has {int(len(whole) * kept)} bytes and needs at least 40" in (
        message
    )
    assert int(message.split("at least ", 1)[1].split(";", 1)[0]) <= len(whole)


def test_a_file_truncated_within_its_index_is_said_to_be_truncated(saved):
    saved.write_bytes(saved.read_bytes()[:200])

    with pytest.raises(DamagedFileError, match="truncated: it has 200 bytes and needs more"):
        PthFile.open(saved)


@relaxed
@given(data=st.data())
def test_a_file_truncated_anywhere_is_refused(data, saved, tmp_path):
    whole = saved.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    with pytest.raises(DamagedFileError):
        PthFile.open(cut)


def test_a_file_that_shrinks_after_it_was_opened_is_refused(saved):
    file = PthFile.open(saved)
    saved.write_bytes(saved.read_bytes()[:-1])

    with pytest.raises(DamagedFileError, match="since it was opened"):
        file.array("a")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (
            b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
            'is an XML error page ("AccessDenied")',
        ),
        (
            b"<html>\n<head><title>403 Forbidden</title></head></html>",
            'is an HTML page ("403 Forbidden")',
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x80\x02}.", "is not a torch checkpoint"),
        (b"ggml" * 100, "is not a torch checkpoint: it is a file of llama.cpp"),
        (b"PK\3\4", "truncated"),
    ],
)
def test_what_is_no_zip_is_called_what_it_is(path, content, said):
    path.write_bytes(content)

    with pytest.raises(DamagedFileError) as caught:
        PthFile.open(path)

    assert said in str(caught.value)


def test_a_legacy_file_is_refused_with_the_way_to_convert_it(path):
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)

    with pytest.raises(DamagedFileError) as caught:
        PthFile.open(path)

    assert "torch.save(torch.load(path, weights_only=True), path)" in str(caught.value)


def test_an_absent_file_is_refused(path):
    with pytest.raises(DamagedFileError, match="cannot be read: No such file"):
        PthFile.open(path)


def test_compressed_members_are_refused(saved, tmp_path):
    target = tmp_path / "small.pth"
    rezip(saved, target, compression=zipfile.ZIP_DEFLATED)

    with pytest.raises(DamagedFileError, match="is compressed or encrypted"):
        PthFile.open(target)


def test_big_endian_values_are_refused(saved, tmp_path):
    target = tmp_path / "big.pth"
    rezip(saved, target, change=lambda n, data: b"big" if n.endswith("byteorder") else data)

    with pytest.raises(DamagedFileError, match="byte order is 'big'; expected 'little'"):
        PthFile.open(target)


def test_a_file_without_a_byte_order_is_read(saved, tmp_path):
    target = tmp_path / "old.pth"
    rezip(saved, target, change=lambda n, data: None if n.endswith("byteorder") else data)

    assert PthFile.open(target).array("b").sum() == 5


def test_a_storage_shorter_than_its_tensor_is_damage(saved, tmp_path):
    target = tmp_path / "short.pth"
    rezip(saved, target, change=lambda n, data: data[:-1] if n.endswith("data/0") else data)

    with pytest.raises(DamagedFileError, match="storage of a is 47 bytes; expected 48"):
        PthFile.open(target)


def test_an_absent_storage_is_damage(saved, tmp_path):
    target = tmp_path / "short.pth"
    rezip(saved, target, change=lambda n, data: None if n.endswith("data/1") else data)

    with pytest.raises(DamagedFileError, match="storage of b is absent"):
        PthFile.open(target)


@pytest.mark.parametrize(
    "names", [[], ["data.pkl"], ["a/data.pkl", "b/data.pkl"], ["a/b/data.pkl"]]
)
def test_a_zip_that_is_not_torchs_is_said_not_to_be(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ["notes.txt", *names]:
            archive.writestr(name, b"}.")

    with pytest.raises(DamagedFileError, match="is a zip, but not one of torch's"):
        PthFile.open(path)


def test_two_members_of_one_name_are_refused(saved):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(archive.namelist()[0], b"}.")

    with pytest.raises(DamagedFileError, match="two members are called"):
        PthFile.open(saved)


def change_entry(path, number, at, packed):
    """Change a field of one entry of the directory."""
    data = bytearray(path.read_bytes())
    entry = data.find(b"PK\1\2")
    for _ in range(number):
        entry = data.find(b"PK\1\2", entry + 4)
    data[entry + at : entry + at + len(packed)] = packed
    path.write_bytes(data)


def test_overlapping_members_are_refused(saved):
    change_entry(saved, 1, 42, struct.pack("<I", 0))

    with pytest.raises(DamagedFileError, match=r"overlap|differ in its name"):
        PthFile.open(saved)


def test_an_absurd_size_is_refused(saved):
    change_entry(saved, 0, 20, struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF))

    with pytest.raises(DamagedFileError, match="past the last"):
        PthFile.open(saved)


def test_a_directory_over_the_limit_is_refused(saved, monkeypatch):
    monkeypatch.setattr(zip_index, "_MAX_DIRECTORY", 10)

    with pytest.raises(DamagedFileError, match="larger than any checkpoint needs"):
        PthFile.open(saved)


def test_a_hostile_file_is_refused_and_not_run(path, tmp_path):
    marker = tmp_path / "it-ran"
    command = f"touch {marker}".encode()
    with zipfile.ZipFile(path, "w") as archive:
        line = b"X" + struct.pack("<I", len(command)) + command
        archive.writestr("archive/data.pkl", b"\x80\x02cposix\nsystem\n" + line + b"\x85R.")

    with pytest.raises(UnsafePickleError, match=r"consolidated\.00\.pth asks for posix\.system"):
        PthFile.open(path)

    assert not marker.exists()


def test_a_training_checkpoint_is_refused_clearly(path):
    torch.save({"model": {"a": torch.zeros(2)}, "step": 3}, path)

    with pytest.raises(ParametersError, match="holds a dict under 'model'"):
        PthFile.open(path)


def opens_or_refuses(path):
    with suppress(LlamakitError):
        file = PthFile.open(path)
        for name in file.tensors:
            file.array(name).tobytes()


@relaxed
@given(data=st.binary(max_size=300), like_a_zip=st.booleans())
def test_arbitrary_bytes_raise_nothing_foreign(tmp_path, data, like_a_zip):
    path = tmp_path / "random.pth"
    path.write_bytes(b"PK\3\4" + data + b"PK\5\6" + data[:18] if like_a_zip else data)

    opens_or_refuses(path)


@relaxed
@given(data=st.data())
def test_changed_bytes_anywhere_raise_nothing_foreign(data, saved, tmp_path):
    whole = bytearray(saved.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.pth"
    path.write_bytes(whole)

    opens_or_refuses(path)


@relaxed
@given(data=st.data())
def test_changed_bytes_in_the_directory_raise_nothing_foreign(data, saved, tmp_path):
    whole = bytearray(saved.read_bytes())
    directory = whole.find(b"PK\1\2")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(directory, len(whole) - 1))
        whole[at] = data.draw(st.sampled_from([0, 1, 255, 80]))
    path = tmp_path / "changed.pth"
    path.write_bytes(whole)

    opens_or_refuses(path)


def test_bfloat16_is_that_of_ml_dtypes(path):
    torch.save({"a": torch.tensor([1.5], dtype=torch.bfloat16)}, path)

    array = PthFile.open(path).array("a")

    assert array.dtype == ml_dtypes.bfloat16
    assert float(array[0]) == 1.5


@pytest.mark.parametrize("entry", [b"PK\1\2" + bytes(41), b"PK\1\3" + bytes(42), b"P"])
def test_a_directory_that_is_cut_or_no_directory_is_damage(entry):
    with pytest.raises(ValueError, match="its directory is damaged"):
        list(zip_index._entries(bytes.fromhex("504b0102") + bytes(42) + entry))
